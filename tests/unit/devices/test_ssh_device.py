"""Jobs over ssh against a real server: what works leaves nothing there, and neither does what fails."""

from __future__ import annotations

import _thread
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loopback_sshd import Sshd, key, serving

from edgeprune.devices.ssh import device as ssh
from edgeprune.devices.ssh.device import ssh_device
from edgeprune.errors import DeviceError
from edgeprune.options.devices import DeviceOptions

ECHO = 'import shutil, sys; print("half way"); shutil.copy(sys.argv[1], sys.argv[2])'
SLEEP = """
import os, pathlib, time
pathlib.Path("~/pid").expanduser().write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment with empty packages, which are imported at once: these jobs do not need the real ones."""
    folder = tmp_path_factory.mktemp("stubs")
    for name in ("numpy", "onnxruntime"):
        (folder / f"{name}.py").write_text("__version__ = '0'\n", encoding="utf-8")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, stubs: dict[str, str]) -> Iterator[Sshd]:
    with serving(tmp_path_factory.mktemp("sshd") / "device", environment=stubs) as server:
        yield server


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the device run another script than the one that measures."""
    return lambda text: monkeypatch.setattr(ssh, "script_text", lambda _name: text)


def failure(options: DeviceOptions, *, files: dict[str, Path] | None = None, time_limit_s: float = 30) -> str:
    """The sentence for a job that fails."""
    with pytest.raises(DeviceError) as raised, ssh_device(options) as device:
        device.measure(b"{}", files or {}, time_limit_s=time_limit_s)
    return str(raised.value)


def is_running(pid_file: Path) -> bool:
    """Whether the script that wrote its number still runs, after some time to end."""
    pid, ends_at = int(pid_file.read_text()), time.monotonic() + 5
    while time.monotonic() < ends_at:
        try:
            os.kill(pid, 0)
            if "Z" in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2]:
                return False
        except (ProcessLookupError, FileNotFoundError):
            return False
        time.sleep(0.05)
    return True


def when_it_runs(pid_file: Path, act: Callable[[], object]) -> threading.Thread:
    """Act as soon as the script has begun."""
    pid_file.unlink(missing_ok=True)

    def wait() -> None:
        ends_at = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < ends_at:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_jobs_run_there_and_nothing_stays(sshd: Sshd, script: Callable[[str], None], tmp_path: Path) -> None:
    script(ECHO)
    model = tmp_path / "model"
    model.write_bytes(os.urandom(3_000_000))
    with ssh_device(sshd.options) as device:
        for job in (b'{"a": 1}', b'{"b": 2}'):
            assert device.measure(job, {"model.onnx": model}, time_limit_s=30) == job
        (copied,) = sshd.cache.glob("work-*/model.onnx")
        assert copied.read_bytes() == model.read_bytes()
        assert copied.parent.stat().st_mode & 0o077 == 0
    assert sshd.left_over() == []
    assert not sshd.cache.exists()


def test_two_connections_have_a_folder_each(sshd: Sshd, script: Callable[[str], None]) -> None:
    script(ECHO)
    with ssh_device(sshd.options) as first, ssh_device(sshd.options) as second:
        assert len(list(sshd.cache.glob("work-*"))) == 2
        assert first.measure(b"1", {}, time_limit_s=30) == b"1"
        assert second.measure(b"2", {}, time_limit_s=30) == b"2"
    assert sshd.left_over() == []


def test_a_folder_of_one_that_was_killed_is_removed_by_the_next(
    sshd: Sshd, script: Callable[[str], None]
) -> None:
    script(ECHO)
    abandoned = sshd.cache / "work-abandoned"
    abandoned.mkdir(parents=True)
    with ssh_device(sshd.options):
        assert not abandoned.exists()


def test_another_key_is_not_let_in(sshd: Sshd, tmp_path: Path) -> None:
    said = failure(replace(sshd.options, identity=key(tmp_path / "other")))
    assert "lets nobody in" in said
    assert "--identity" in said


def test_a_file_that_is_no_key_is_named(sshd: Sshd) -> None:
    assert "holds no private key" in failure(replace(sshd.options, identity=sshd.known_hosts))


def test_an_unknown_host_key_is_refused_and_shown(sshd: Sshd, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.touch()
    said = failure(replace(sshd.options, known_hosts=empty))
    assert "SHA256:" in said
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {empty}" in said
    assert empty.read_bytes() == b""


def test_a_changed_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    other = key(tmp_path / "other").with_suffix(".pub").read_text(encoding="utf-8")
    changed = tmp_path / "known_hosts"
    changed.write_text(f"[127.0.0.1]:{sshd.port} {other}", encoding="utf-8")
    said = failure(replace(sshd.options, known_hosts=changed))
    assert "another machine" in said
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in said


@pytest.mark.parametrize(
    ("destination", "named"),
    [("pi@127.0.0.1:1", "refuses connections"), ("pi@nowhere.invalid", "no address is known")],
)
def test_a_device_that_is_not_there(destination: str, named: str) -> None:
    assert named in failure(DeviceOptions(ssh=destination))


def test_a_connection_that_is_cut_ends_what_runs_there(sshd: Sshd, script: Callable[[str], None]) -> None:
    script(SLEEP)
    when_it_runs(sshd.home / "pid", sshd.cut)
    assert "was cut" in failure(sshd.options)
    assert sshd.left_over() == []
    assert not is_running(sshd.home / "pid")


def test_ctrl_c_ends_what_runs_there(
    sshd: Sshd, script: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    script(SLEEP)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    when_it_runs(sshd.home / "pid", _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt), ssh_device(sshd.options) as device:
        device.measure(b"{}", {}, time_limit_s=30)
    assert sshd.left_over() == []
    assert not is_running(sshd.home / "pid")


def test_a_job_has_a_time_limit(sshd: Sshd, script: Callable[[str], None]) -> None:
    script(SLEEP)
    assert "took longer than 1 s" in failure(sshd.options, time_limit_s=1)
    assert sshd.left_over() == []
    assert not is_running(sshd.home / "pid")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed or refused memory"),
        ("raise MemoryError", "was killed or refused memory"),
        ("raise OSError(28, 'No space left on device')", "no room for the result"),
        ("raise ValueError('seven')", "ValueError: seven"),
        ("pass", "cannot give result.json"),
    ],
)
def test_a_script_that_fails_is_told_in_a_sentence(
    sshd: Sshd, script: Callable[[str], None], text: str, named: str
) -> None:
    script(text)
    assert named in failure(sshd.options)
    assert sshd.left_over() == []


def test_a_full_disk_is_told(tmp_path: Path, stubs: dict[str, str], script: Callable[[str], None]) -> None:
    script(ECHO)
    model = tmp_path / "model"
    model.write_bytes(bytes(1_000_000))
    with serving(tmp_path / "device", before="ulimit -f 400", environment=stubs) as server:
        assert "has no room to take model.onnx" in failure(server.options, files={"model.onnx": model})
        assert server.left_over() == []


def test_a_limit_on_memory_is_told(
    tmp_path: Path, stubs: dict[str, str], script: Callable[[str], None]
) -> None:
    script("bytearray(10**9)")
    with serving(tmp_path / "device", before="ulimit -v 600000", environment=stubs) as server:
        assert "was killed or refused memory" in failure(server.options)
        assert server.left_over() == []


def fake_python(folder: Path, text: str) -> dict[str, str]:
    """An environment whose only python3 is a shell script."""
    folder.mkdir()
    (folder / "python3").write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / "python3").chmod(0o700)
    (folder / "sh").symlink_to("/bin/sh")
    return {"PATH": str(folder)}


BARE = f"""
case "$*" in
  *"-m venv venv") {{venv}} ;;
  *) exec {sys.executable} -S "$@" ;;
esac
"""
MADE = "mkdir -p venv/bin; printf '#!/bin/sh\\n{pip}\\n' > venv/bin/python; chmod 700 venv/bin/python"


@pytest.mark.parametrize(
    ("python", "named"),
    [
        ("exit 127", "no Python of 3.9 or later .none at all."),
        (
            'echo \'edgeprune:{"path": "p", "version": [3, 7], "machine": "armv6l", "platform": "linux", '
            '"numpy": null, "onnxruntime": null}\'; exit 1',
            "no Python of 3.9 or later .3.7.",
        ),
        (BARE.format(venv="echo ensurepip is not available; exit 1"), "apt install python3-venv"),
        (BARE.format(venv="echo No space left on device; exit 1"), "no room for a virtual environment"),
    ],
)
def test_a_device_without_a_python_that_measures(tmp_path: Path, python: str, named: str) -> None:
    with serving(tmp_path / "device", environment=fake_python(tmp_path / "bin", python)) as server:
        assert re.search(named, failure(server.options))
        assert server.left_over() == []


@pytest.mark.parametrize(
    ("pip", "named"),
    [
        ("echo Name or service not known; echo No matching distribution; exit 1", "no package index"),
        ("echo ERROR: No matching distribution found for onnxruntime; exit 1", "there are no wheels"),
        ("echo OSError: No space left on device; exit 1", "about 120 MB"),
        ("echo odd; exit 1", "cannot be installed on .*: odd"),
    ],
)
def test_packages_that_cannot_be_installed(tmp_path: Path, pip: str, named: str) -> None:
    environment = fake_python(tmp_path / "bin", BARE.format(venv=MADE.format(pip=pip)))
    environment["PATH"] += ":/usr/bin:/bin"
    with serving(tmp_path / "device", environment=environment) as server:
        assert re.search(named, failure(server.options))
        assert server.left_over() == []
        assert list(server.home.rglob("venv*")) == []


def test_an_environment_is_made_once_and_found_again(
    tmp_path: Path, stubs: dict[str, str], script: Callable[[str], None]
) -> None:
    script(ECHO)
    installed = (
        f'case "$*" in *install*) ;; *) PYTHONPATH={stubs["PYTHONPATH"]} exec {sys.executable} "$@" ;; esac'
    )
    python = BARE.format(venv=MADE.format(pip=installed))
    environment = fake_python(tmp_path / "bin", python)
    environment["PATH"] += ":/usr/bin:/bin"
    with serving(tmp_path / "device", environment=environment) as server:
        for _ in range(2):
            with ssh_device(server.options) as device:
                assert device.measure(b"1", {}, time_limit_s=30) == b"1"
            (kept,) = server.cache.iterdir()
            assert kept.name.startswith("venv-3.")
            (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
