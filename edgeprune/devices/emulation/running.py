"""Outputs of an ONNX file on a core that qemu emulates."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgeprune.devices.connection import last_line
from edgeprune.devices.emulation.cores import Core
from edgeprune.devices.emulation.system_root import python_of, site_of, system_root
from edgeprune.errors import DeviceError
from edgeprune.parity import Outputs
from edgeprune.storage.files import scratch_folder
from edgeprune.system.progress import stage

QEMU = "qemu-aarch64"
LIMIT_S = 1800.0
"""Longest time of all runs: emulation is some fifty times slower than the processor that it runs on."""


def emulated_outputs(onnx_path: Path, input_name: str, images: Tensor, core: Core) -> Outputs:
    """Outputs for images (n, c, h, w) of the file on the core, by onnxruntime built for aarch64.

    They show that the file computes the same with the core's instructions; how long that takes says nothing
    of the core's speed.

    Raises:
        DeviceError: qemu or the system for it is missing, or the run fails there.
    """
    if shutil.which(QEMU) is None:
        raise DeviceError(
            f"--emulate needs {QEMU!r}, which is not installed; install it (Debian, Ubuntu: apt install "
            "qemu-user), or verify without --emulate"
        )
    root = system_root(core)
    script = resources.files("edgeprune.devices").joinpath("script", "run_once.py")
    with scratch_folder() as folder, resources.as_file(script) as path:
        named: dict[str, Any] = {input_name: images.numpy()}
        np.savez(folder / "inputs.npz", **named)
        program = [
            str(path),
            str(onnx_path.resolve()),
            str(folder / "inputs.npz"),
            str(folder / "outputs.npz"),
        ]
        with stage(f"emulating {core.name}"):
            _run([QEMU, "-cpu", core.name, "-L", str(root), str(python_of(root)), "-S", *program], root, core)
        with np.load(folder / "outputs.npz") as arrays:
            return [arrays[f"output_{place}"] for place in range(len(arrays.files))]


def _run(command: list[str], root: Path, core: Core) -> None:
    own = {"PYTHONPATH": str(site_of(root)), "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=LIMIT_S, env=kept | own, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"emulating {core.name} took longer than {LIMIT_S:.0f} s; give fewer images (--max-images)"
        ) from error
    if done.returncode:
        raise DeviceError(
            f"the model does not run on an emulated {core.name} ({last_line(done.stderr.splitlines())}); "
            "verify it without --emulate to see whether it runs here"
        )
