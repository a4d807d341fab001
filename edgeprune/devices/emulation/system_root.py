"""Folders with Python, numpy and onnxruntime for aarch64, made once from packages of Debian and PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from edgeprune.devices.emulation.cores import Core, cpuinfo
from edgeprune.errors import DeviceError
from edgeprune.system.progress import stage

_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
_WHEELS = ("onnxruntime", "numpy")
_PLATFORMS = ("manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
_ARCHITECTURE = "arm64"
_SITE = "site"
_LIMIT_S = 900
_MOST_SHOWN = 200
_PROCESSORS = Path("sys", "devices", "system", "cpu")


def system_root(core: Core) -> Path:
    """The root folder of the core's system in the user's cache; the first call downloads about 60 MB.

    Wheels are of the versions of onnxruntime and numpy that are installed here.

    Raises:
        DeviceError: a tool is missing, or something cannot be downloaded or stored; says what to do.
    """
    versions = "-".join(f"{name}-{metadata.version(name)}" for name in _WHEELS)
    base = cache_folder() / f"aarch64-{versions}"
    root = base.with_name(f"{base.name}-{core.name}")
    if not root.is_dir():
        made_once(base, _fill)
        made_once(root, lambda folder: _with_core(base, folder, core))
    return root


def python_of(root: Path) -> Path:
    """The interpreter of a system root."""
    return sorted((root / "usr" / "bin").glob("python3.[0-9]*"))[0]


def site_of(root: Path) -> Path:
    """Its folder of Python packages."""
    return root / _SITE


def cache_folder() -> Path:
    """Where what emulation needs is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "edgeprune"


def made_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder of the cache, whole or not at all, where it is missing.

    Raises:
        DeviceError: it cannot be made.
    """
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
            made = Path(scratch) / "root"
            made.mkdir()
            fill(made)
            if not folder.is_dir():
                made.rename(folder)
    except OSError as error:
        raise DeviceError(
            f"the folder {str(folder)!r} for emulation cannot be made ({error.strerror or error}); make "
            "room, or set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def _fill(root: Path) -> None:
    with stage("fetching Python and onnxruntime for aarch64"), tempfile.TemporaryDirectory() as scratch:
        for package in _fetched_packages(Path(scratch)):
            _run(["dpkg", "-x", str(package), str(root)], "unpacking a package of Debian")
        version = python_of(root).name.removeprefix("python")
        wheels = Path(scratch) / "wheels"
        options = ["--no-deps", "--only-binary", ":all:", "--python-version", version, "--dest", str(wheels)]
        platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
        pinned = [f"{name}=={metadata.version(name)}" for name in _WHEELS]
        _run(
            [sys.executable, "-m", "pip", "download", "--quiet", *options, *platforms, *pinned],
            "fetching wheels of onnxruntime and numpy for aarch64",
        )
        for wheel in sorted(wheels.glob("*.whl")):
            shutil.unpack_archive(str(wheel), str(site_of(root)), "zip")


def _fetched_packages(folder: Path) -> list[Path]:
    """Packages of the distribution for aarch64, by an apt that knows of nothing installed."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State": folder, "Dir::State::lists": folder / "lists", "Dir::State::status": folder / "status",
        "Dir::Cache": folder, "Dir::Cache::archives": folder / "archives",
        "APT::Architecture": _ARCHITECTURE, "APT::Architectures::": _ARCHITECTURE,
        "APT::Install-Recommends": "0", "APT::Sandbox::User": "", "Debug::NoLocking": "1",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    _run([*apt, "update"], "reading the distribution's list of packages")
    _run([*apt, "install", "--download-only", "-y", *_PACKAGES], "fetching Python for aarch64")
    return sorted((folder / "archives").glob("*.deb"))


def _run(command: Sequence[str], doing: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=False,
            errors="replace",
        )  # fmt: skip
    except FileNotFoundError as error:
        raise DeviceError(
            f"{doing} needs {command[0]!r}, which is not installed; --emulate works on Debian and Ubuntu"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{doing} took longer than {_LIMIT_S} s; try again with a faster network"
        ) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason was given"])[-1][:_MOST_SHOWN]
        raise DeviceError(f"{doing} failed ({said}); check the network and the sources of packages")


def _with_core(base: Path, root: Path, core: Core) -> None:
    """The system with what Linux would say of the core, from which libraries choose their kernels."""
    shutil.copytree(base, root, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(cpuinfo(core))
    processors = root / _PROCESSORS
    (processors / "cpu0" / "topology").mkdir(parents=True, exist_ok=True)
    for name in ("present", "possible", "online", "kernel_max"):
        (processors / name).write_text("0\n")
