"""Imported once by the process that tests fork commands from: all that a command imports and sets up lazily.

A first export takes two seconds more than the next; every forked command would pay for it again.
"""

from __future__ import annotations

import gc
import importlib
import tempfile
from pathlib import Path

import torch
from torch import nn

from edgeprune.capture.capture import capture
from edgeprune.capture.export import program_of_graph
from edgeprune.exporting import export_onnx, simplify_onnx
from edgeprune.options.cards import list_cards
from edgeprune.options.project_file import load_config
from edgeprune.profiling import timing
from edgeprune.targets import list_targets, load_target


def warm() -> None:
    """Capture and export a small network; read a file of each kind, whose checks are made on first use."""
    torch.set_num_threads(1)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)
    )
    captured = capture(network.eval(), (1, 8, 8))
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        export_onnx(program_of_graph(captured.graph_module, torch.zeros(2, 1, 8, 8)), raw)
        simplify_onnx(raw, Path(folder) / "simplified.onnx")
        config = Path(folder) / "edgeprune.toml"
        config.write_text("[preprocessing]\n")
        load_config(config)
    for target in list_targets():
        load_target(target)
    list_cards()


for name in ("edgeprune.api", "edgeprune.cli", "altair"):
    importlib.import_module(name)
warm()
# No test asks how exact latencies of forked commands are, and samples as long as a user's took a fifth of a
# command's time. Commands in a process of their own have those.
timing.MIN_SAMPLE_NS = 200_000
gc.collect()
gc.freeze()  # or every collection in a forked process would copy all of this
