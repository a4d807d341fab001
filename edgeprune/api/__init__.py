"""The public Python API; the command line calls these functions and nothing deeper."""

from __future__ import annotations

from edgeprune.api.demonstration import demo
from edgeprune.api.files import bundle, profile, quantize, verify
from edgeprune.api.gate import check, compare
from edgeprune.api.inspection import inspect
from edgeprune.api.models import load_onnx
from edgeprune.api.networks import compress, compress_dry_run, pick, rank
from edgeprune.api.sweeping import sweep
from edgeprune.api.targets import add_target, calibrate_target
from edgeprune.applying import apply_surgery

__all__ = [
    "add_target",
    "apply_surgery",
    "bundle",
    "calibrate_target",
    "check",
    "compare",
    "compress",
    "compress_dry_run",
    "demo",
    "inspect",
    "load_onnx",
    "pick",
    "profile",
    "quantize",
    "rank",
    "sweep",
    "verify",
]
