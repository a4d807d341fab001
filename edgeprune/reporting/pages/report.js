'use strict';
(() => {
  const figure = document.querySelector('figure.candidates');
  if (figure) {
    const told = figure.querySelector('output');
    const plans = new Map([...document.querySelectorAll('details.plan')].map(plan => [plan.dataset.name, plan]));
    const marks = [...figure.querySelectorAll('svg path[aria-label*=" of the latency "]')];
    const choose = mark => {
      for (const other of marks) other.classList.toggle('on', other === mark);
      const plan = plans.get(mark.getAttribute('aria-label').split(':')[0]);
      for (const other of plans.values()) other.open = other === plan;
      if (plan) plan.querySelector('summary').focus();
    };
    for (const mark of marks) {
      const tell = () => { told.textContent = mark.getAttribute('aria-label'); };
      mark.setAttribute('tabindex', '0');
      mark.setAttribute('role', 'button');
      mark.addEventListener('pointerenter', tell);
      mark.addEventListener('focus', tell);
      mark.addEventListener('click', () => choose(mark));
      mark.addEventListener('keydown', event => {
        if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose(mark); }
      });
    }
  }
  window.addEventListener('beforeprint', () => {
    for (const each of document.querySelectorAll('details')) each.open = true;
  });
})();
