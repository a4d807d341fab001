"""Outputs of an ONNX file on a core that qemu emulates."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgeprune.artifacts.latency import InstructionCounts
from edgeprune.devices.connection import last_line
from edgeprune.devices.emulation.cores import Core
from edgeprune.devices.emulation.counting import counting_plugin, per_run, read_counts
from edgeprune.devices.emulation.system_root import python_of, site_of, system_root
from edgeprune.errors import DeviceError
from edgeprune.parity import Outputs
from edgeprune.storage.files import scratch_folder
from edgeprune.system.progress import stage

QEMU = "qemu-aarch64"
_COUNTED_RUNS = 4
LIMIT_S = 1800.0
"""Longest time of all runs: emulation is some fifty times slower than the processor that it runs on."""


def emulated_outputs(onnx_path: Path, input_name: str, images: Tensor, core: Core) -> Outputs:
    """Outputs for images (n, c, h, w) of the file on the core, by onnxruntime built for aarch64.

    They show that the file computes the same with the core's instructions; how long that takes says nothing
    of the core's speed.

    Raises:
        DeviceError: qemu or the system for it is missing, or the run fails there.
    """
    _require_qemu()
    root = system_root(core)
    with scratch_folder() as folder:
        _run_model(onnx_path, {input_name: images.numpy()}, core, root, folder)
        with np.load(folder / "outputs.npz") as arrays:
            return [arrays[f"output_{place}"] for place in range(len(arrays.files))]


def emulated_instructions(onnx_path: Path, input_name: str, batch: Tensor, core: Core) -> InstructionCounts:
    """Instructions that the core retires in a run on ``batch`` (n, c, h, w), whose first run is not counted.

    Raises:
        DeviceError: qemu, the system for it or a C compiler is missing, or the run fails there.
    """
    _require_qemu()
    plugin, root = counting_plugin(QEMU), system_root(core)
    with scratch_folder() as folder:
        found = []
        for runs in (1, 1 + _COUNTED_RUNS):
            counts = folder / f"counts-{runs}"
            inputs = {input_name: np.concatenate([batch.numpy()] * runs)}
            _run_model(onnx_path, inputs, core, root, folder, ["-plugin", f"{plugin},out={counts}"])
            found.append(read_counts(counts))
        return per_run(found[0], found[1], _COUNTED_RUNS)


def _require_qemu() -> None:
    if shutil.which(QEMU) is None:
        raise DeviceError(
            f"--emulate needs {QEMU!r}, which is not installed; install it (Debian, Ubuntu: apt install "
            "qemu-user), or verify without --emulate"
        )


def _run_model(
    onnx_path: Path,
    inputs: Mapping[str, Any],
    core: Core,
    root: Path,
    folder: Path,
    options: Sequence[str] = (),
) -> None:
    """Run the file on the inputs, one batch after the other; the outputs lie in ``folder`` then."""
    script = resources.files("edgeprune.devices").joinpath("script", "run_once.py")
    with resources.as_file(script) as path:
        np.savez(folder / "inputs.npz", **inputs)
        program = [
            str(path),
            str(onnx_path.resolve()),
            str(folder / "inputs.npz"),
            str(folder / "outputs.npz"),
        ]
        qemu = [QEMU, "-cpu", core.name, *options, "-L", str(root)]
        with stage(f"emulating {core.name}"):
            _run([*qemu, str(python_of(root)), "-S", *program], root, core)


def _run(command: list[str], root: Path, core: Core) -> None:
    # Without a seed of hashes the interpreter takes another way each time, and counts differ by some percent.
    own = {
        "PYTHONPATH": str(site_of(root)), "PYTHONHASHSEED": "0", "ORT_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
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
