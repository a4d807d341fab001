"""Python on a device that has numpy and onnxruntime: found there, or installed once into a folder of ours."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.devices.connection import Ended, last_line
from edgeprune.devices.ssh.keeper_client import MARK, KeeperClient, OnLine
from edgeprune.errors import DeviceError

if TYPE_CHECKING:
    import asyncssh

OLDEST = (3, 9)
_VENV_LIMIT_S = 300.0
_INSTALL_LIMIT_S = 1800.0
_FIND_LIMIT_S = 120.0
_NO_INDEX = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|Temporary failure in name resolution|Name or service not "
    r"known|Network is unreachable|Connection refused|ProxyError|SSLError|nodename nor servname",
    re.IGNORECASE,
)
_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|File too large", re.IGNORECASE)
_CHECK = """
import importlib, json, os, platform, sys, sysconfig
def version(name):
    try:
        return importlib.import_module(name).__version__
    except Exception:
        return None
told = {"path": os.environ["EDGEPRUNE_PYTHON"], "version": list(sys.version_info[:2]),
        "machine": platform.machine(), "platform": sysconfig.get_platform(),
        "numpy": None, "onnxruntime": None}
if sys.version_info >= (3, 9):
    told.update(numpy=version("numpy"), onnxruntime=version("onnxruntime"))
print("edgeprune:" + json.dumps(told))
sys.exit(0 if told["numpy"] and told["onnxruntime"] else 1)
"""
_FIND = """
export ORT_DISABLE_TELEMETRY=1
kept="${{XDG_CACHE_HOME:-$HOME/.cache}}/edgeprune"
for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 \\
    "$kept"/venv-*/bin/python /opt/bin/python3 /data/data/com.termux/files/usr/bin/python3; do
  if EDGEPRUNE_PYTHON=$(command -v "$python"); then
    export EDGEPRUNE_PYTHON
    "$python" -c "import base64;exec(base64.b64decode('{check}'))" </dev/null 2>/dev/null && exit 0
  fi
done
exit 0
"""


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python of the device; versions are ``None`` where a package is missing or cannot be imported."""

    path: str
    version: tuple[int, ...]
    machine: str
    platform: str
    numpy: str | None
    onnxruntime: str | None

    @property
    def measures(self) -> bool:
        """Whether models can be run by it."""
        return self.numpy is not None and self.onnxruntime is not None

    @property
    def shown(self) -> str:
        """Its version as text."""
        return ".".join(map(str, self.version))


async def find_interpreter(connection: asyncssh.SSHClientConnection, device: str) -> Interpreter:
    """The first Python with both packages, else the newest that is new enough.

    Raises:
        DeviceError: there is none of 3.9 or later.
    """
    check = base64.b64encode(_CHECK.encode()).decode()
    done = await connection.run(
        "sh -s", input=_FIND.format(check=check).encode(), encoding=None, timeout=_FIND_LIMIT_S
    )
    output = done.stdout or b""
    assert isinstance(output, bytes)
    interpreters = [_parsed(line) for line in output.splitlines() if line.startswith(MARK)]
    accepted = [each for each in interpreters if each.version >= OLDEST]
    if not accepted:
        present = ", ".join(dict.fromkeys(each.shown for each in interpreters)) or "none at all"
        raise DeviceError(
            f"{device} has no Python of 3.9 or later ({present}); install it there (on Debian and "
            "Raspberry Pi "
            "OS: sudo apt install python3 python3-venv)"
        )
    return max(accepted, key=lambda each: (each.measures, each.version))


def _parsed(line: bytes) -> Interpreter:
    told = json.loads(line[len(MARK) :])
    return Interpreter(**{**told, "version": tuple(told["version"])})


async def install(keeper: KeeperClient, base: Interpreter, device: str, on_line: OnLine) -> str:
    """Make a virtual environment with both packages, which stays for later; the path of its Python.

    Raises:
        DeviceError: no venv module, no package index reachable, no wheel for that platform, no room.
    """
    on_line(f"making a virtual environment on {device} (once)")
    made = await keeper.run([base.path, "-m", "venv", "venv"], time_limit_s=_VENV_LIMIT_S, on_line=on_line)
    if made.status != 0:
        raise DeviceError(_venv_sentence(made, base, device))
    on_line(f"installing numpy and onnxruntime on {device} (once)")
    pip = ["venv/bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    options = ["--only-binary", ":all:", "--retries", "2", "--progress-bar", "off"]
    packages = ["numpy", "onnxruntime"]
    done = await keeper.run([*pip, *options, *packages], time_limit_s=_INSTALL_LIMIT_S, on_line=on_line)
    if done.status != 0:
        raise DeviceError(_install_sentence(done, base, device))
    check = ["venv/bin/python", "-c", "import numpy, onnxruntime"]
    runs = await keeper.run(check, time_limit_s=_VENV_LIMIT_S, on_line=on_line)
    if runs.status != 0:
        raise DeviceError(
            f"onnxruntime was installed on {device} and cannot be imported there "
            f"({last_line(runs.lines)}); its "
            f"processor or system ({base.platform}) is not one that the package is built for"
        )
    kept = await keeper.keep("venv", f"venv-{base.shown}-{base.machine}")
    return f"{kept}/bin/python"


def _venv_sentence(made: Ended, base: Interpreter, device: str) -> str:
    text = "\n".join(made.lines)
    if _NO_ROOM.search(text):
        return f"{device} has no room for a virtual environment ({last_line(made.lines)}); make room there"
    if made.timed_out:
        return (
            f"making a virtual environment on {device} took longer than {_VENV_LIMIT_S:.0f} s; try it there"
        )
    if "ensurepip" in text or "No module named venv" in text:
        return (
            f"Python {base.shown} on {device} cannot make virtual environments; install its module "
            "(on Debian "
            "and Raspberry Pi OS: sudo apt install python3-venv)"
        )
    said = last_line(made.lines)
    return f"no virtual environment can be made on {device} ({said}); try 'python3 -m venv' there"


def _install_sentence(done: Ended, base: Interpreter, device: str) -> str:
    text = "\n".join(done.lines)
    if _NO_ROOM.search(text):
        return (
            f"{device} has no room for numpy and onnxruntime (about 120 MB); make room there, or set "
            "XDG_CACHE_HOME there to a folder with room"
        )
    if done.timed_out:
        return f"installing numpy and onnxruntime on {device} took longer than {_INSTALL_LIMIT_S:.0f} s"
    by_hand = "or copy an 'edgeprune bundle' to a device without a network"
    if _NO_INDEX.search(text):
        return (
            f"{device} reaches no package index to install numpy and onnxruntime from; install them there by "
            f"hand into a Python on the PATH, {by_hand}"
        )
    if "No matching distribution" in text:
        return (
            f"there are no wheels of numpy and onnxruntime for {device} (Python {base.shown}, "
            f"{base.platform}); accepted is a 64-bit system with a Python that has them, {by_hand}"
        )
    return f"numpy and onnxruntime cannot be installed on {device}: {last_line(done.lines)}"
