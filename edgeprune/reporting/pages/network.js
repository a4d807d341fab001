'use strict';
(() => {
  const net = document.querySelector('svg.net');
  const told = document.getElementById('told');
  const rest = told.textContent;
  const names = JSON.parse(document.getElementById('names').textContent);
  const has = (element, list, group) => (element.dataset[list] || '').split(' ').includes(group);
  let pinned = '';
  function show(group) {
    net.classList.toggle('chosen', group !== '');
    for (const element of net.querySelectorAll('[data-groups]')) {
      element.classList.toggle('on', group !== '' && has(element, 'groups', group));
      element.classList.toggle('reads', group !== '' && has(element, 'reads', group));
    }
    for (const row of document.querySelectorAll('tr[data-group]'))
      row.classList.toggle('on', row.dataset.group === group);
    told.textContent = group === '' ? rest : names[group];
  }
  const groupAt = event => {
    const found = event.target.closest('[data-group]');
    return found ? found.dataset.group : '';
  };
  for (const area of [net, document.getElementById('groups')]) {
    if (!area) continue;
    area.addEventListener('pointerover', event => { if (!pinned) show(groupAt(event)); });
    area.addEventListener('pointerleave', () => show(pinned));
    area.addEventListener('focusin', event => { if (!pinned) show(groupAt(event)); });
    area.addEventListener('click', event => {
      const group = groupAt(event);
      pinned = group === pinned ? '' : group;
      show(pinned);
    });
  }
  document.addEventListener('keydown', event => {
    if (event.key === 'Escape') { pinned = ''; show(''); }
  });
  const view = document.getElementById('view'), size = document.getElementById('size');
  size.addEventListener('click', () => {
    size.textContent = view.classList.toggle('fit') ? 'Actual size' : 'Fit to window';
  });
})();
