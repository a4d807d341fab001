"""Child process of ``memory.peak_memory_bytes``: prints the peak of one model as JSON.

Run: python -m edgeprune.profiling._peak MODEL.onnx THREADS BATCH
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgeprune.errors import ProfileError
from edgeprune.profiling.timing import open_runner

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def main(arguments: list[str]) -> int:
    """Load and run the model; print ``{"peak_bytes": n or null, "reason": text}`` or ``{"error": text}``."""
    onnx_path, threads, batch_size = arguments[0], int(arguments[1]), int(arguments[2])
    baseline = _reset_peak()
    try:
        run = open_runner(onnx_path, threads=threads, batch_size=batch_size)
        run()
    except ProfileError as error:
        print(json.dumps({"error": str(error)}))
        return 0
    print(json.dumps(_answer(baseline)))
    return 0


def _answer(baseline: int | None) -> dict[str, int | str | None]:
    peak = _status_bytes("VmHWM") if baseline is not None else None
    if baseline is None or peak is None:
        baseline, peak = _MAX_RESIDENT_AT_START, _max_resident_bytes()
    if baseline is None or peak is None:
        return {"peak_bytes": None, "reason": f"{sys.platform} does not tell peak memory"}
    if peak <= baseline:
        return {"peak_bytes": None, "reason": "it is hidden below the peak of starting onnxruntime"}
    return {"peak_bytes": peak - baseline, "reason": ""}


def _reset_peak() -> int | None:
    """Resident bytes now, with the kernel's peak set back to them; ``None`` where that is not allowed."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    fields = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(fields[0]) * 1024 if fields else None


def _max_resident_bytes() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


_MAX_RESIDENT_AT_START = _max_resident_bytes()

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
