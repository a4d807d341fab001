"""The same job over adb, with a script in place of adb that acts on a folder of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from onnx_models import IMAGE, Chain, written

from edgeprune.artifacts.latency import Provenance
from edgeprune.devices.connection import connected
from edgeprune.devices.runner import runner_on
from edgeprune.errors import DeviceError
from edgeprune.options.devices import DeviceOptions
from edgeprune.profiling.measurer import RunSettings
from edgeprune.targets import load_target

FAKE = f"""#!{sys.executable}
import os, shutil, subprocess, sys
root = os.environ["FAKE_ADB_ROOT"]
assert sys.argv[1] == "-s"
serial, what, *rest = sys.argv[2:]
if serial != "phone-1":
    sys.exit(f"error: device '{{serial}}' not found")
def there(path):
    return path.replace("/data/local/tmp", root)
if what == "shell":
    done = subprocess.run(["sh", "-c", there(rest[0])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sys.stdout.buffer.write(done.stdout.replace(root.encode(), b"/data/local/tmp"))
    sys.exit(done.returncode)
elif what == "push":
    if os.environ.get("FAKE_ADB_FULL"):
        sys.exit("adb: error: failed to copy: remote No space left on device")
    shutil.copy(rest[0], there(rest[1]))
elif what == "pull":
    shutil.copy(there(rest[0]), rest[1])
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is /data/local/tmp of a device called phone-1."""
    tools, root = tmp_path / "tools", tmp_path / "root"
    tools.mkdir()
    root.mkdir()
    (tools / "adb").write_text(FAKE, encoding="utf-8")
    (tools / "adb").chmod(0o700)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("FAKE_ADB_ROOT", str(root))
    return root


def test_a_model_is_measured_and_nothing_stays(phone: Path, tmp_path: Path) -> None:
    model = written(Chain(), tmp_path / "model.onnx", IMAGE)
    with connected(DeviceOptions(adb="phone-1")) as device:
        runner = runner_on(load_target("rpi4"), device, RunSettings(threads=1))
        latency = runner.measurer.latency(model)
        (work,) = phone.iterdir()
        assert len(list(work.glob("*.onnx"))) == 1
    assert latency.latency_p50_ms > 0
    assert latency.provenance is Provenance.MEASURED_ON_TARGET
    assert latency.machine.startswith("adb:phone-1 (")
    assert list(phone.iterdir()) == []


def test_a_device_that_is_not_connected(phone: Path) -> None:
    with (
        pytest.raises(DeviceError, match="is not connected"),
        connected(DeviceOptions(adb="phone-2")),
    ):
        pass
    assert list(phone.iterdir()) == []


def test_a_full_device(phone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ADB_FULL", "1")
    model = written(Chain(), tmp_path / "model.onnx", IMAGE)
    with (
        pytest.raises(DeviceError, match="has no room"),
        connected(DeviceOptions(adb="phone-1")) as device,
    ):
        runner_on(load_target("rpi4"), device, RunSettings(threads=1)).measurer.latency(model)
    assert list(phone.iterdir()) == []


def test_a_script_that_takes_too_long(phone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.devices.adb.script_text", lambda _name: "import time; time.sleep(60)")
    with connected(DeviceOptions(adb="phone-1")) as device:
        assert device is not None
        with pytest.raises(DeviceError, match="took longer than 1 s"):
            device.measure(b"{}", {}, time_limit_s=1)
    assert list(phone.iterdir()) == []


def test_without_adb_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(DeviceError, match="there is no 'adb'"),
        connected(DeviceOptions(adb="phone-1")),
    ):
        pass


def test_without_python_there(phone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = phone.parent / "tools"
    for name in ("sh", "find", "mktemp", "rm"):
        (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    with (
        pytest.raises(DeviceError, match="Termux"),
        connected(DeviceOptions(adb="phone-1")),
    ):
        pass
