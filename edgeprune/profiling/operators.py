"""Time by operator of an ONNX file on this host, from onnxruntime's own times of single nodes."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgeprune.artifacts.arrays import FloatArray
from edgeprune.artifacts.latency import OperatorTime, OperatorTimes
from edgeprune.errors import ProfileError
from edgeprune.onnx_io.session import in_a_sentence, open_session, run_session
from edgeprune.profiling.timing import random_feeds
from edgeprune.storage.documents import UnreadableError, read_json
from edgeprune.storage.files import scratch_folder

MOST_RUNS = 30
_WARMUP = 3
_LEAST_RUNS = 3
_LONGEST_S = 5.0
_NODE_TIME = "_kernel_time"


def operator_times(original: Path, compressed: Path, *, threads: int, batch_size: int = 1) -> OperatorTimes:
    """Time by operator of two files on random inputs: medians of at most 30 runs, or of 5 s, of each.

    Raises:
        ProfileError: a file cannot be loaded or run, or a dimension other than the batch is dynamic.
    """
    before, runs = _timed(original, threads, batch_size)
    after, runs_after = (before, runs) if original == compressed else _timed(compressed, threads, batch_size)
    return OperatorTimes(original=before, compressed=after, runs=min(runs, runs_after), threads=threads)


def _timed(path: Path, threads: int, batch_size: int) -> tuple[tuple[OperatorTime, ...], int]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True

    def failed(reason: str) -> str:
        return f"{path.name}: onnxruntime cannot time its nodes ({reason}); give a valid ONNX file"

    with scratch_folder() as scratch, in_a_sentence(ProfileError, failed, name=path.name):
        options.profile_file_prefix = str(scratch / "nodes")
        session = open_session(path, options)
        feeds = random_feeds(session, path.name, batch_size, 0)
        runs, began = 0, time.monotonic()
        while runs < _WARMUP + _LEAST_RUNS or (
            runs < _WARMUP + MOST_RUNS and time.monotonic() - began < _LONGEST_S
        ):
            run_session(session, None, feeds)
            runs += 1
        written = Path(session.end_profiling())
        try:
            events = read_json(written)
        except UnreadableError as error:
            raise ProfileError(f"{path.name}: onnxruntime's profile {error}; run it again") from error
    return _by_operator(events, runs), runs - _WARMUP


def _by_operator(events: list[dict[str, Any]], runs: int) -> tuple[OperatorTime, ...]:
    """Median over the runs behind the warm-up of what the nodes of each operator took together."""
    of_node: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_NODE_TIME):
            of_node[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    totals: dict[str, FloatArray] = {}
    nodes: dict[str, int] = defaultdict(int)
    for (operator, _), times in of_node.items():
        # A node inside a loop may run more than once in a run, or in some runs only.
        each = np.array([part.sum() for part in np.array_split(np.array(times), runs)][_WARMUP:])
        totals[operator] = each if operator not in totals else totals[operator] + each
        nodes[operator] += 1
    rows = [
        OperatorTime(operator=name, nodes=nodes[name], time_ms=float(np.median(times)))
        for name, times in totals.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.time_ms, row.operator)))
