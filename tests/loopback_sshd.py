"""A real ssh server on the loopback address, with keys and a home of its own, as a stand-in for a device."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeprune.options.devices import DeviceOptions

SSHD = "/usr/sbin/sshd"
_START_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Sshd:
    """A server that lets ``identity`` in; what runs there has ``home`` as its home."""

    port: int
    home: Path
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def identity(self) -> Path:
        """The private key that is let in."""
        return self.folder / "user_key"

    @property
    def known_hosts(self) -> Path:
        """A file with the host key."""
        return self.folder / "known_hosts"

    @property
    def cache(self) -> Path:
        """Where edgeprune works there."""
        return self.home / ".cache" / "edgeprune"

    @property
    def destination(self) -> str:
        """As for ``--ssh``."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def options(self) -> DeviceOptions:
        """How to get in."""
        return DeviceOptions(ssh=self.destination, identity=self.identity, known_hosts=self.known_hosts)

    @property
    def arguments(self) -> list[str]:
        """The same on a command line."""
        keys = ["--identity", str(self.identity), "--known-hosts", str(self.known_hosts)]
        return ["--ssh", self.destination, *keys]

    def cut(self) -> int:
        """Kill the processes that serve connections; how many there were."""
        children = _children(self.process.pid)
        for child in children:
            for process in (*_children(child), child):
                with contextlib.suppress(ProcessLookupError):
                    if b"sshd" in Path(f"/proc/{process}/cmdline").read_bytes():
                        os.kill(process, signal.SIGKILL)
        return len(children)

    def left_over(self) -> list[Path]:
        """What edgeprune left in its cache there, once what was killed has had time to clean up."""
        ends_at = time.monotonic() + _START_S
        while (left := sorted(self.home.rglob("work-*"))) and time.monotonic() < ends_at:
            time.sleep(0.05)
        return left


def key(path: Path) -> Path:
    """Make a key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


@contextlib.contextmanager
def serving(folder: Path, *, before: str = "", environment: dict[str, str] | None = None) -> Iterator[Sshd]:
    """Serve for the block; shell text ``before`` goes before every command, as in ``ulimit -f 8;``.

    The test is skipped where there is no server program.
    """
    for program in (SSHD, "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (Debian: apt install openssh-server openssh-client)")
    if os.geteuid() == 0:  # what the service does when it starts; other servers may be in it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / "home"
    home.mkdir()
    for name in ("host_key", "user_key"):
        key(folder / name)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kind, public, _ = (folder / "host_key.pub").read_text(encoding="utf-8").split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {public}\n", encoding="utf-8")
    own = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home), **(environment or {})}
    _write_config(folder, port, before, own)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "log")
        yield Sshd(port=port, home=home, folder=folder, process=process)
    finally:
        for child in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()
        log.close()


def _write_config(folder: Path, port: int, before: str, environment: dict[str, str]) -> None:
    exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in environment.items())
    # SetEnv cannot say all of this on one line in every version of sshd; a wrapper can.
    wrapper = folder / "wrapper"
    text = f'#!/bin/sh\n{exports}{before}\ncd "$HOME"\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n'
    wrapper.write_text(text, encoding="utf-8")
    wrapper.chmod(0o700)
    lines = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "ForceCommand": wrapper,
    }
    text = "".join(f"{name} {value}\n" for name, value in lines.items())
    (folder / "config").write_text(text, encoding="utf-8")


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends_at = time.monotonic() + _START_S
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text(errors='replace').strip()[-200:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    pytest.fail("sshd does not answer")


def _children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(status.parent.name))
    return found
