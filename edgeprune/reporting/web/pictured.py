"""The sections of a run's page that show pictures of calibration images."""

from __future__ import annotations

from edgeprune.artifacts.illustrations import FilterMaps, Illustrations
from edgeprune.reporting.formatting import significant
from edgeprune.reporting.web.facts import PictureRow, Section

_NOT_KEPT = "no pictures are kept in report.json, so a page made from it has none"


def picture_sections(illustrations: Illustrations) -> tuple[Section, ...]:
    """Feature maps, saliency maps, and images whose answer changed."""
    return (_feature_maps(illustrations), _saliency(illustrations), _changed(illustrations))


def _feature_maps(illustrations: Illustrations) -> Section:
    maps = illustrations.feature_maps
    if maps is None:
        return Section(key="maps", empty=_why(illustrations, "feature_maps"))
    told = (
        f"What the {maps.filters} filters of {maps.layer} make of calibration images: those with the highest "
        "and the lowest values. Every map is scaled from its lowest value (black) to its highest (white), so "
        "maps tell where a filter answers, not how strongly. What they mean is for you to judge: no figure "
        "rests on them."
    )
    rows = [PictureRow(heading="Images", pictures=maps.images)]
    rows += [_filter_row("highest", each) for each in maps.highest]
    rows += [_filter_row("lowest", each) for each in maps.lowest]
    return Section(key="maps", words=(told,), pictures=tuple(rows))


def _filter_row(end: str, maps: FilterMaps) -> PictureRow:
    fate = "removed" if maps.removed else "kept"
    heading = f"Filter {maps.channel}, {end}"
    return PictureRow(heading=heading, pictures=maps.maps, words=f"value {significant(maps.value)}, {fate}")


def _saliency(illustrations: Illustrations) -> Section:
    maps = illustrations.saliency
    if not maps:
        return Section(key="saliency", empty=_why(illustrations, "saliency"))
    told = (
        "Which pixels the score of the original's answer depends on: the absolute gradient, the brighter the "
        "more (Simonyan et al. 2014). Alike maps say that both networks look at the same parts of an image."
    )
    rows = (
        PictureRow(heading="Images", pictures=tuple(each.image for each in maps)),
        PictureRow(heading="Original", pictures=tuple(each.original for each in maps)),
        PictureRow(heading="Compressed", pictures=tuple(each.compressed for each in maps)),
    )
    return Section(key="saliency", words=(told,), pictures=rows)


def _changed(illustrations: Illustrations) -> Section:
    changed = illustrations.changed
    if not changed:
        return Section(key="changed", empty=_why(illustrations, "changed"))
    part = "" if len(changed) == illustrations.changed_images else f" Shown are the first {len(changed)}."
    told = (
        f"{illustrations.changed_images:,} of {illustrations.held_out_images:,} held-out images are answered "
        f"otherwise than by the original.{part}"
    )
    rows = tuple(
        PictureRow(
            heading=f"{each.before} -> {each.after}",
            pictures=each.pictures,
            words="" if each.label is None else f"label: {each.label}",
        )
        for each in changed
    )
    return Section(key="changed", words=(told,), pictures=rows)


def _why(illustrations: Illustrations, kind: str) -> str:
    why = illustrations.missing.get(kind, _NOT_KEPT)
    return f"{why[:1].upper()}{why[1:]}."
