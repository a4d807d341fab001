"""Pictures of a run, of its calibration images: feature maps, saliency, answers that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune import parity
from edgeprune.artifacts.calibration import CalibrationSet, ImageBatch
from edgeprune.artifacts.coupling import MaskPoint
from edgeprune.artifacts.illustrations import (
    ChangedAnswer,
    FeatureMaps,
    FilterMaps,
    Illustrations,
    Picture,
    SaliencyMaps,
)
from edgeprune.commands.report.painting import drawn_over, heat_map, photograph, pictured
from edgeprune.commands.run.state import Judged, Planned, Prepared, Pruned, Run
from edgeprune.evaluation.base import Measure
from edgeprune.evaluation.differences import difference
from edgeprune.evaluation.overlays import Overlay
from edgeprune.fx import NodeValues, tensor_leaves

MOST_BYTES = 220_000
"""Of all pictures of a page; encoded as text they take a third more."""
_IMAGES = 6
_SALIENT = 4
_CHANGED = 12
_DRAWN_OVER = 6
_SMALLEST_MAP = 3
_NO_CLASSES = "the outputs are no class scores"


def illustrate(
    run: Run, prepared: Prepared, planned: Planned, pruned: Pruned, judged: Judged
) -> Illustrations:
    """The pictures of a run, 300 kB of text at most; none where ``pictures`` is off."""
    if not run.options.pictures:
        told = "left out, as --no-pictures asks for: the page holds no image of the calibration data"
        return Illustrations(missing=dict.fromkeys(("feature_maps", "saliency", "changed"), told))
    with run.stage("pictures"):
        calibration = prepared.calibration
        shown = _one_of_each(calibration.fitting, _IMAGES)
        missing: dict[str, str] = {}
        if len(pictured(calibration.fitting.images[:1], calibration.fitting.joins)) == 0:
            told = "none of the model's inputs is an image"
            return Illustrations(missing=dict.fromkeys(("feature_maps", "saliency", "changed"), told))
        answers, count = _changed(run, calibration, judged, missing)
        return _small_enough(
            Illustrations(
                feature_maps=_feature_maps(planned, calibration, shown, missing),
                saliency=_saliency(prepared, pruned, judged, shown[:_SALIENT], missing),
                changed=answers,
                changed_images=count,
                held_out_images=len(calibration.held_out),
                missing=missing,
            )
        )


def _one_of_each(batch: ImageBatch, most: int) -> list[int]:
    """The first image of each class, then further ones; in the order of the images."""
    if batch.labels is None:
        return list(range(min(most, len(batch))))
    _, first = np.unique(batch.labels.numpy(), return_index=True)
    others = [index for index in range(len(batch)) if index not in set(first.tolist())]
    return sorted([*sorted(first.tolist()), *others][:most])


def _feature_maps(
    planned: Planned, calibration: CalibrationSet, shown: Sequence[int], missing: dict[str, str]
) -> FeatureMaps | None:
    """Feature maps of the first layer that has any, as the next layer reads them."""
    variant, values = planned.variant, planned.ranking.values
    point = _first_maps(planned)
    if point is None or values.size != variant.coupling.num_players:
        missing["feature_maps"] = "no layer with prunable channels makes maps of 3 x 3 values or more"
        return None
    images = calibration.fitting.images[list(shown)]
    seen = pictured(images, calibration.fitting.joins)
    maps = _value_of(variant.captured.graph_module, point.source, images)
    group = next(g for g in variant.coupling.groups if int(point.players[point.players >= 0][0]) in g.players)
    inside = [player for player in group.players if (point.players == player).any()]
    order = sorted(inside, key=lambda player: (-values[player], player))
    gone = variant.coupling.removed_mask(planned.plan.removed)

    def of_filter(player: int) -> FilterMaps:
        position = int(np.flatnonzero(point.players == player)[0])
        told = f"feature map of filter {position} of {group.name} for image"
        return FilterMaps(
            channel=position,
            value=float(values[player]),
            removed=bool(gone[player]),
            maps=tuple(heat_map(maps[i, position], f"{told} {i + 1}") for i in range(len(images))),
        )

    each = min(2, len(order) // 2)
    return FeatureMaps(
        layer=group.layers[0] if group.layers else group.name,
        filters=len(order),
        images=tuple(
            photograph(image, calibration.preprocessing, _words_of(calibration, place, number))
            for number, (image, place) in enumerate(zip(seen, shown, strict=True), start=1)
        ),
        highest=tuple(of_filter(player) for player in order[:each]),
        lowest=tuple(of_filter(player) for player in order[len(order) - each :]),
    )


def _first_maps(planned: Planned) -> MaskPoint | None:
    """The first place where channels of an image with two dimensions enter a layer."""
    graph = planned.variant.captured.graph_module.graph
    shapes = {node.name: tuple(_shape_of(node)) for node in graph.nodes}
    for point in planned.variant.coupling.mask_points:
        shape = shapes.get(point.source, ())
        spatial = len(shape) == 4 and point.dim == 1 and min(map(int, shape[2:])) >= _SMALLEST_MAP
        if spatial and point.batch.dim == 0 and len(np.unique(point.players[point.players >= 0])) > 1:
            return point
    return None


def _shape_of(node: Node) -> tuple[int, ...]:
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _value_of(module: GraphModule, name: str, images: Tensor) -> Tensor:
    kept = NodeValues(module, (name,))
    with torch.no_grad():
        kept.run(images)
    return kept.values[name]


def _saliency(
    prepared: Prepared, pruned: Pruned, judged: Judged, shown: Sequence[int], missing: dict[str, str]
) -> tuple[SaliencyMaps, ...]:
    """Class saliency maps: the largest change of the score by a pixel (Simonyan et al. 2014, section 3)."""
    calibration = prepared.calibration
    if not _names_classes(judged, calibration):
        missing["saliency"] = f"{_NO_CLASSES}, so there is no score of a class to follow back to the pixels"
        return ()
    images = calibration.fitting.images[list(shown)]
    try:
        scores = tensor_leaves(prepared.captured.graph_module(images))[0]
        answers = scores.argmax(dim=1)
        before, after = (
            pictured(_gradients(network, images, answers), calibration.fitting.joins).amax(dim=1)
            for network in (prepared.captured.graph_module, pruned.final)
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:160]
        missing["saliency"] = f"the network has no gradient with respect to its input ({reason})"
        return ()
    names = [_class_name(calibration, int(answer)) for answer in answers]
    seen = pictured(images, calibration.fitting.joins)
    return tuple(
        SaliencyMaps(
            image=photograph(seen[i], calibration.preprocessing, f"image that the original calls {name}"),
            original=heat_map(before[i], f"pixels behind the original's score of {name}"),
            compressed=heat_map(after[i], f"pixels behind the compressed network's score of {name}"),
        )
        for i, name in enumerate(names)
    )


def _names_classes(judged: Judged, calibration: CalibrationSet) -> bool:
    return calibration.held_out.class_scores and parity.is_classifier(judged.original_outputs)


def _gradients(network: GraphModule, images: Tensor, answers: Tensor) -> Tensor:
    """Absolute gradient of the answers' scores by value of the images."""
    with torch.enable_grad():
        given = images.detach().clone().requires_grad_(True)
        scores = tensor_leaves(network(given))[0]
        chosen = scores.gather(1, answers[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, given)
    return gradient.abs()


def _changed(
    run: Run, calibration: CalibrationSet, judged: Judged, missing: dict[str, str]
) -> tuple[tuple[ChangedAnswer, ...], int]:
    """The first held-out images whose answer changed, and how many there are."""
    overlays = () if run.measure is None else run.measure.overlays(judged.original_outputs)
    if run.measure is not None and overlays:
        return _drawn_over(run.measure, overlays, calibration, judged, missing)
    if not _names_classes(judged, calibration):
        missing["changed"] = f"{_NO_CLASSES}, so there are no answers to show side by side"
        return (), 0
    before = judged.original_outputs[0].argmax(axis=1)
    after = judged.delivered_outputs[0].argmax(axis=1)
    places = np.flatnonzero(before != after).tolist()
    if not places:
        missing["changed"] = f"none of the {len(before):,} held-out images changed its answer"
    held = calibration.held_out
    seen = pictured(held.images[places[:_CHANGED]], held.joins)
    answers = []
    for place, image in zip(places[:_CHANGED], seen, strict=True):
        old, new = _class_name(calibration, before[place]), _class_name(calibration, after[place])
        told = f"held-out image {place}: {old} by the original, {new} by the compressed network"
        answers.append(
            ChangedAnswer(
                pictures=(photograph(image, calibration.preprocessing, told),),
                before=old,
                after=new,
                label=None if held.labels is None else _class_name(calibration, int(held.labels[place])),
            )
        )
    return tuple(answers), len(places)


def _drawn_over(
    measure: Measure,
    before: Sequence[Overlay],
    calibration: CalibrationSet,
    judged: Judged,
    missing: dict[str, str],
) -> tuple[tuple[ChangedAnswer, ...], int]:
    """The held-out images on which boxes or masks differ most, with those of both networks."""
    after = measure.overlays(judged.delivered_outputs)
    apart = np.array([difference(a, b) for a, b in zip(before, after, strict=True)])
    order = [int(place) for place in np.argsort(-apart, kind="stable") if apart[place] > 0]
    if not order:
        missing["changed"] = f"boxes or masks are the same on all {len(before):,} held-out images"
    held, answers = calibration.held_out, []
    for place in order[:_DRAWN_OVER]:
        one, other = before[place], after[place]
        told = f"held-out image {place}: {one.words} by the original"
        compressed = f"held-out image {place}: {other.words} by the compressed network"
        how = calibration.preprocessing
        answers.append(
            ChangedAnswer(
                pictures=(
                    drawn_over(held.images[place], how, one, told),
                    drawn_over(held.images[place], how, other, compressed),
                ),
                before=one.words if one.map is None else "original",
                after=other.words if one.map is None else f"{apart[place]:.1%} of the pixels otherwise",
                label=None,
            )
        )
    return tuple(answers), len(order)


def _words_of(calibration: CalibrationSet, place: int, number: int) -> str:
    labels = calibration.fitting.labels
    label = "" if labels is None else f", {_class_name(calibration, int(labels[place]))}"
    return f"image {number}{label}"


def _class_name(calibration: CalibrationSet, index: int) -> str:
    names = calibration.class_names
    return names[index] if names is not None and 0 <= index < len(names) else f"class {index}"


def _small_enough(illustrations: Illustrations) -> Illustrations:
    """The last pictures left out while all together are too large."""
    while sum(len(picture.png) for picture in _pictures(illustrations)) > MOST_BYTES:
        missing = illustrations.missing
        if illustrations.changed:
            illustrations = replace(illustrations, changed=illustrations.changed[:-1])
            told = "the pictures of images whose answer changed were too large for the page"
            missing = missing if illustrations.changed else {**missing, "changed": told}
        elif illustrations.saliency:
            illustrations = replace(illustrations, saliency=illustrations.saliency[:-1])
            told = "the saliency maps were too large for the page"
            missing = missing if illustrations.saliency else {**missing, "saliency": told}
        else:
            told = "the feature maps were too large for the page"
            illustrations = replace(illustrations, feature_maps=None)
            missing = {**missing, "feature_maps": told}
        illustrations = replace(illustrations, missing=missing)
    return illustrations


def _pictures(illustrations: Illustrations) -> list[Picture]:
    maps = illustrations.feature_maps
    found = [] if maps is None else list(maps.images)
    for each in () if maps is None else (*maps.highest, *maps.lowest):
        found += each.maps
    for saliency in illustrations.saliency:
        found += (saliency.image, saliency.original, saliency.compressed)
    return found + [picture for answer in illustrations.changed for picture in answer.pictures]
