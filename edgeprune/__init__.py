"""edgeprune: take a trained PyTorch vision model to a small device."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.api import (
        apply_surgery,
        bundle,
        check,
        compare,
        compress,
        compress_dry_run,
        demo,
        inspect,
        load_onnx,
        pick,
        profile,
        quantize,
        rank,
        sweep,
        verify,
    )
    from edgeprune.artifacts.budget import Budget, BudgetSection
    from edgeprune.artifacts.calibration import ChannelOrder, Ground, Preprocessing
    from edgeprune.artifacts.choices import (
        AttentionUnit,
        BoxFormat,
        ComputeDevice,
        Effort,
        ExecutorKind,
        Finetune,
        JsonDocument,
        RankedPlayers,
        Task,
    )
    from edgeprune.artifacts.quantization import Precision, RangeMethod
    from edgeprune.artifacts.report import RunReport
    from edgeprune.gate.outcomes import Comparison, GateLimits, GateResult, OnInconclusive
    from edgeprune.options.devices import DeviceOptions
    from edgeprune.reporting.ranking.facts import RankingReport
    from edgeprune.reporting.schemas import json_schema
    from edgeprune.reporting.sweep.facts import SweepReport
    from edgeprune.results import (
        DryRun,
        Inspection,
        PickedCandidate,
        ProfileResult,
        QuantizationResult,
        Verification,
    )

    __version__: str

__all__ = [
    "AttentionUnit",
    "BoxFormat",
    "Budget",
    "BudgetSection",
    "ChannelOrder",
    "Comparison",
    "ComputeDevice",
    "DeviceOptions",
    "DryRun",
    "Effort",
    "ExecutorKind",
    "Finetune",
    "GateLimits",
    "GateResult",
    "Ground",
    "Inspection",
    "JsonDocument",
    "OnInconclusive",
    "PickedCandidate",
    "Precision",
    "Preprocessing",
    "ProfileResult",
    "QuantizationResult",
    "RangeMethod",
    "RankedPlayers",
    "RankingReport",
    "RunReport",
    "SweepReport",
    "Task",
    "Verification",
    "__version__",
    "apply_surgery",
    "bundle",
    "check",
    "compare",
    "compress",
    "compress_dry_run",
    "demo",
    "inspect",
    "json_schema",
    "load_onnx",
    "pick",
    "profile",
    "quantize",
    "rank",
    "sweep",
    "verify",
]

_TYPES = {
    "artifacts.budget": ("Budget", "BudgetSection"),
    "artifacts.calibration": ("ChannelOrder", "Ground", "Preprocessing"),
    "artifacts.choices": (
        "AttentionUnit",
        "BoxFormat",
        "ComputeDevice",
        "Effort",
        "ExecutorKind",
        "Finetune",
        "JsonDocument",
        "RankedPlayers",
        "Task",
    ),
    "gate.outcomes": ("Comparison", "GateLimits", "GateResult", "OnInconclusive"),
    "artifacts.quantization": ("Precision", "RangeMethod"),
    "artifacts.report": ("RunReport",),
    "options.devices": ("DeviceOptions",),
    "reporting.ranking.facts": ("RankingReport",),
    "reporting.schemas": ("json_schema",),
    "reporting.sweep.facts": ("SweepReport",),
    "results": (
        "DryRun",
        "Inspection",
        "PickedCandidate",
        "ProfileResult",
        "QuantizationResult",
        "Verification",
    ),
}
"""Modules of the public argument and result types; the functions themselves are in ``edgeprune.api``."""


def __getattr__(name: str) -> Any:
    """Load the API on first use, so that ``edgeprune --help`` does not wait for torch."""
    if name == "__version__":
        from importlib import metadata  # a sixth of what a process imports that only measures memory

        return metadata.version("edgeprune")
    if name in __all__:
        place = next((module for module, names in _TYPES.items() if name in names), "api")
        return getattr(importlib.import_module(f"edgeprune.{place}"), name)
    raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names of all attributes, loaded or not."""
    return sorted({*globals(), *__all__})
