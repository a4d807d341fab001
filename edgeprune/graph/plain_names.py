"""Names of layers that any reader of a written program takes: ASCII letters, digits, ``_`` and ``-``.

PyTorch lets a layer have almost any name. ``torch.export`` and ``torch.fx`` write names into Python, so a
program that is to be read without trust may only have plain ones.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

from torch import nn
from torch.fx import Graph, GraphModule

from edgeprune.attributes import get_attribute

_PART = re.compile(r"[A-Za-z0-9_-]+")
_OTHERS = re.compile(r"[^A-Za-z0-9_-]")
_BREAKING = re.compile(r"[\"\\\n\r]")
_OWN_ATTRIBUTES = frozenset(vars(nn.Module()))
_LONGEST = 900
_LONGEST_PART = 60
_READING = ("get_attr", "call_module")
_STACK = "nn_module_stack"
"""Where torch keeps in which layers a node came about: their names, which its own reader may not take."""


def with_plain_names(module: GraphModule) -> GraphModule:
    """The same network, weights shared, with plain names; itself where it has no others."""
    targets = list(dict.fromkeys(str(n.target) for n in module.graph.nodes if n.op in _READING))
    plain = plain_names(targets)
    if all(old == new for old, new in plain.items()):
        return module
    graph = Graph()
    mapping: dict[object, object] = {}
    graph.output(graph.graph_copy(module.graph, mapping))  # type: ignore[arg-type]
    for node in graph.nodes:
        node.meta.pop(_STACK, None)
        if node.op in _READING:
            node.target = plain[str(node.target)]
    root = {plain[target]: get_attribute(module, target) for target in targets}
    renamed = GraphModule(root, graph, class_name=module.__class__.__name__)
    renamed.train(module.training)
    return renamed


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """A plain name for every dotted one, no two alike; plain ones stay as they are."""
    names = list(dict.fromkeys(names))
    found = {n: n for n in names if len(n) <= _LONGEST and all(map(_is_plain, n.split(".")))}
    taken = set(found)
    for name in names:
        if name in found:
            continue
        new = ".".join(_plain(part)[:_LONGEST_PART] for part in name.split("."))[-_LONGEST:].lstrip(".")
        while new in taken:
            new += "_"
        found[name] = new
        taken.add(new)
    return found


def unwritable_names(module: nn.Module) -> list[str]:
    """Names of layers that the Python that torch generates would not find again, or break at."""
    found: dict[str, None] = {}
    for name, _ in (*module.named_modules(), *module.named_parameters(), *module.named_buffers()):
        parts = name.split(".")
        first = next((i for i, part in enumerate(parts, 1) if _breaks(part)), None)
        if first is not None:
            found[".".join(parts[:first])] = None
    return list(found)


def _is_plain(part: str) -> bool:
    return _PART.fullmatch(part) is not None and not part.startswith("__") and part not in _OWN_ATTRIBUTES


def _plain(part: str) -> str:
    if _is_plain(part):
        return part
    found = _OTHERS.sub("_", unicodedata.normalize("NFKD", part)).lstrip("_")
    return found if found and _is_plain(found) else f"layer_{found}"


def _breaks(part: str) -> bool:
    """A keyword, a letter that Python takes for another one (NFKC), or a sign that ends a text."""
    return (
        keyword.iskeyword(part)
        or unicodedata.normalize("NFKC", part) != part
        or _BREAKING.search(part) is not None
    )
