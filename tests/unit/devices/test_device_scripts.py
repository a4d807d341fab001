"""What is copied to devices runs on what is there: Python 3.9, its library, numpy and onnxruntime."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import edgeprune.devices

SCRIPTS = sorted((Path(edgeprune.devices.__file__).parent / "script").glob("*.py"))
PACKAGES = {"numpy", "onnxruntime", *(path.stem for path in SCRIPTS)}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_of_python_3_9_and_needs_two_packages(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported <= set(sys.stdlib_module_names) | PACKAGES


def test_what_keeps_a_folder_needs_no_package() -> None:
    (keeper,) = (path for path in SCRIPTS if path.name == "keeper.py")
    text = keeper.read_text(encoding="utf-8")
    assert "import numpy" not in text
    assert "import onnxruntime" not in text
