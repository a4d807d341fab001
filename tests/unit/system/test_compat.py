import subprocess
import sys
import textwrap

import pytest

from edgeprune.errors import ModelLoadError
from edgeprune.system import compat


def test_import_works_twice_and_gives_the_same_module():
    first = compat.import_torchvision()
    assert compat.import_torchvision() is first
    assert first.models.resnet18(weights=None) is not None


def test_failure_of_another_kind_is_one_sentence(monkeypatch):
    def fail(name):
        raise ImportError("No module named 'torchvision'")

    monkeypatch.setattr(compat.importlib, "import_module", fail)
    with pytest.raises(ModelLoadError, match=r"torchvision cannot be imported .*install"):
        compat.import_torchvision()


def test_unrelated_runtime_error_is_not_worked_around(monkeypatch):
    def fail(name):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(compat.importlib, "import_module", fail)
    with pytest.raises(ModelLoadError, match="out of memory"):
        compat.import_torchvision()


# A stand-in package that behaves like a torchvision without its library: importing it fails on the
# operator and leaves submodules behind.
_BROKEN = """
import torch
from torchvision import sub
@torch.library.register_fake("torchvision::nms")
def _nms(dets, scores, iou_threshold):
    return dets
@torch.library.register_fake("torchvision::qnms")
def _qnms(dets, scores, iou_threshold):
    return dets
__version__ = "0.0"
"""
_SCRIPT = """
import logging, sys
logging.basicConfig()
import torch
{before}
from edgeprune.system.compat import import_torchvision
module = import_torchvision()
assert import_torchvision() is module
assert module.__version__ == "0.0" and module.sub.loads == "once"
print(torch.ops.torchvision.nms.default._schema)
"""


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("", id="first-import"),
        pytest.param(
            "try:\n    import torchvision\nexcept RuntimeError:\n    pass", id="after-failed-import"
        ),
        pytest.param(
            "lib = torch.library.Library('torchvision', 'FRAGMENT')\n"
            "lib.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')",
            id="one-declared-by-another",
        ),
    ],
)
def test_missing_operators_are_declared(tmp_path, before):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(_BROKEN)
    (package / "sub.py").write_text("loads = 'once'")
    (tmp_path / "run.py").write_text(textwrap.dedent(_SCRIPT).format(before=before))
    result = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" in result.stdout
    assert result.stderr.count("WARNING:edgeprune.system.compat") == 1
