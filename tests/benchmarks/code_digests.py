"""Which code a figure rests on: digests of the modules that were loaded where it was measured.

``python tests/benchmarks/code_digests.py`` says of each page of ``docs/benchmarks/code.json`` what changed
since. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = REPOSITORY / "docs" / "benchmarks" / "code.json"
CODE_KEY = "code"
"""Of the digests in the answer of a child process."""
_PACKAGE = "edgeprune"
_DIGITS = 10


def digest_of_code(text: str) -> str:
    """Of what a module does: its syntax tree without docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:_DIGITS]


def loaded_code() -> dict[str, str]:
    """Digests of the package's modules that this process has loaded, by name."""
    names = [name for name in sys.modules if name.split(".")[0] == _PACKAGE]
    return {name: _digest(name) for name in sorted(names)}


def changed(pages: Mapping[str, Mapping[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Modules by page whose code is not, or not only, that of the page any more."""
    return {
        page: [name for name, digests in modules.items() if list(digests) != [_digest(name)]]
        for page, modules in pages.items()
    }


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def _digest(name: str) -> str:
    """Of a module's file; "missing" where there is none."""
    place = REPOSITORY.joinpath(*name.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return digest_of_code(path.read_text())
    return "missing"


def main() -> None:
    """Print a line a page."""
    if not PAGES.exists():
        print("no page tells yet which modules it rests on")
        return
    for page, names in changed(json.loads(PAGES.read_text())).items():
        words = f"{len(names)} modules changed since: {', '.join(names)}" if names else "rests on this code"
        print(f"{page}: {words}")


if __name__ == "__main__":
    main()
