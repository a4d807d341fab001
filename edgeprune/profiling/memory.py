"""Peak memory of loading and running an ONNX model, in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from edgeprune.errors import ProfileError, UsageError
from edgeprune.onnx_io.read import require_onnx

_LOG = logging.getLogger("edgeprune.profiling")
_TIMEOUT_S = 600


def peak_memory_bytes(onnx_path: str | Path, threads: int, batch_size: int = 1) -> int | None:
    """Peak resident bytes of loading and running the model on one batch, above an idle onnxruntime.

    Measured in a fresh Python process, whose resident memory with onnxruntime imported is the baseline.
    ``None``, with the reason logged, where the platform does not tell.

    Raises:
        ProfileError: the file is missing, no ONNX or cannot run, or the process was killed (as when
            memory runs out) or took longer than ten minutes.
        UsageError: ``threads`` or ``batch_size`` is below 1.
    """
    for name, given in (("threads", threads), ("batch_size", batch_size)):
        if given < 1:
            raise UsageError(f"{name} is {given}; give at least 1")
    path = Path(onnx_path)
    require_onnx(path, ProfileError)
    # -P keeps files of the working folder from shadowing packages; the child still has to find this one.
    package_home = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, (package_home, os.environ.get("PYTHONPATH"))))
    child = [sys.executable, "-P", "-m", "edgeprune.profiling._peak"]
    try:
        done = subprocess.run(
            [*child, str(path.resolve()), str(threads), str(batch_size)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": search},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProfileError(
            f"{path.name}: measuring its memory took longer than {_TIMEOUT_S} s; give a smaller model"
        ) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ProfileError(
            f"{path.name}: measuring its memory ended with status {done.returncode} ({last}); "
            "free some memory or give a smaller model"
        )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if "error" in answer:
        raise ProfileError(answer["error"])
    if answer["peak_bytes"] is None:
        _LOG.warning("peak memory of %s is unknown: %s", path.name, answer["reason"])
        return None
    return int(answer["peak_bytes"])
