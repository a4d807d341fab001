"""A page with made-up figures and pictures that fills every section."""

from __future__ import annotations

from dataclasses import replace

import torch
from synthetic_ranking import made_up
from synthetic_report import synthetic_budget, synthetic_report

from edgeprune.artifacts.calibration import Preprocessing
from edgeprune.artifacts.illustrations import (
    ChangedAnswer,
    FeatureMaps,
    FilterMaps,
    Illustrations,
    Picture,
    SaliencyMaps,
)
from edgeprune.artifacts.pruning import GroupPlan
from edgeprune.artifacts.quantization import IntegerFormat, IntegerReport, Precision, RangeMethod
from edgeprune.artifacts.report import Deviation, InnerParity, QuantizationSection
from edgeprune.commands.report.painting import heat_map, photograph
from edgeprune.reporting.web.facts import PageContents


def photo(number: int, caption: str) -> Picture:
    """A colour gradient of 8 x 8 pixels."""
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    return photograph(torch.cat([ramp, ramp.flip(2), ramp * number / 9]), Preprocessing(), caption)


def grey(number: int, caption: str) -> Picture:
    return heat_map(torch.arange(64.0).view(8, 8) % (number + 2), caption)


def synthetic_illustrations() -> Illustrations:
    """Every kind of picture."""

    def of_filter(channel: int, value: float, *, removed: bool) -> FilterMaps:
        maps = (grey(1, f"map of filter {channel}, image 1"), grey(2, f"map of filter {channel}, image 2"))
        return FilterMaps(channel=channel, value=value, removed=removed, maps=maps)

    return Illustrations(
        feature_maps=FeatureMaps(
            layer="stem.conv",
            filters=16,
            images=(photo(1, "image 1, cat"), photo(2, "image 2, dog")),
            highest=(of_filter(3, 0.81, removed=False),),
            lowest=(of_filter(7, 0.03, removed=True),),
        ),
        saliency=(
            SaliencyMaps(image=photo(3, "a cat"), original=grey(3, "before"), compressed=grey(4, "after")),
        ),
        changed=(
            ChangedAnswer(pictures=(photo(4, "held-out image 4"),), before="cat", after="dog", label="cat"),
        ),
        changed_images=6,
        held_out_images=360,
        missing={},
    )


def synthetic_quantization() -> QuantizationSection:
    """Convolutions in 8 bits, the last layer left as it was."""
    return QuantizationSection(
        precision=Precision.INT8,
        integer=IntegerReport(
            format=IntegerFormat(signed_activations=True, reduce_range=False, reason="dot products of bytes"),
            method=RangeMethod.MSE,
            images=64,
            nodes={"Conv": 2},
            equalized=1,
            corrected=2,
            kept_float=("head",),
            mixed_units={"head": "it calculates with the outputs"},
        ),
        mixed=None,
        float16=None,
        deviation=Deviation(
            reference="ONNX", candidate="int8", max_abs_error=0.2, mean_abs_error=0.01, relative_error=0.02,
            cosine=0.999, top1_agreement=0.99, images=64,
        ),
        inner=InnerParity(compared=0, tolerance=0.1, first_apart=None, farthest=None),
        float_size_bytes=61_444,
    )  # fmt: skip


def synthetic_contents() -> PageContents:
    """Contents that leave no section empty."""
    return PageContents(
        report=replace(synthetic_report(), budget=synthetic_budget(), quantization=synthetic_quantization()),
        folder="out folder",
        illustrations=synthetic_illustrations(),
        plans={"candidate 2": (GroupPlan(group="stem.conv", players=16, kept=12),)},
        ranking=made_up(),
    )
