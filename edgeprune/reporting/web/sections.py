"""The sections of a run's page that show its figures, in their order."""

from __future__ import annotations

from edgeprune.artifacts.quality import AbsentChannels
from edgeprune.artifacts.quantization import Float16Report, IntegerReport, MixedReport
from edgeprune.artifacts.report import QuantizationSection, Verdict
from edgeprune.reporting.document import (
    accuracy_table,
    candidates_table,
    layers_table,
    parity_table,
    quantization_table,
)
from edgeprune.reporting.formatting import count_words, format_change, significant
from edgeprune.reporting.quantization_words import nodes_words
from edgeprune.reporting.ranking.figures import REMOVAL_FILES, removal_figure, sizes_figure
from edgeprune.reporting.table import Table
from edgeprune.reporting.web.facts import PageContents, Section
from edgeprune.reporting.web.figures import (
    MOST_GROUPS,
    accuracy_figure,
    importance_figure,
    operators_figure,
    pareto_figure,
    widths_figure,
)
from edgeprune.reporting.web.picks import candidate_plans

_OLDER = "The report was written by an edgeprune that did not keep this; run compress again to see it."
_RANK = "'edgeprune rank' finds it, and compress --ranking FOLDER brings it here"


def figure_sections(contents: PageContents) -> tuple[Section, ...]:
    """Candidates, widths, importance, coalitions, removal, accuracy, operators, precision and parity."""
    return (
        _candidates(contents),
        _widths(contents),
        _importance(contents),
        _coalitions(contents),
        _removal(contents),
        _accuracy(contents),
        _operators(contents),
        _precision(contents.report.quantization),
        _parity(contents),
    )


def _candidates(contents: PageContents) -> Section:
    section = contents.report.budget
    if section is None:
        asked = contents.report.pruning.ratio_asked_by
        why = f"Nothing was searched: how much goes was given ({asked}), so there is one candidate."
        return Section(key="candidates", empty=why)
    return Section(
        key="candidates",
        words=("Point at a candidate to read its figures; select it to see its plan and how to pick it.",),
        figures=(pareto_figure(section),),
        tables=(candidates_table(section),),
        plans=candidate_plans(section, contents.plans, contents.folder),
    )


def _widths(contents: PageContents) -> Section:
    pruning = contents.report.pruning
    told = (
        f"{pruning.players_removed} of {count_words(contents.report.ranking.players, 'prunable channel')} "
        f"went, widths in steps of {pruning.width_quantum}."
    )
    return Section(
        key="widths",
        words=(told,),
        figures=(widths_figure(pruning.layers),) if pruning.layers else (),
        folded=(layers_table(contents.report),),
    )


def _number(version: str) -> tuple[int, ...]:
    """1.10 comes after 1.9."""
    return tuple(int(part) for part in version.split("."))


def _importance(contents: PageContents) -> Section:
    groups = contents.report.importance
    if not groups:
        why = _OLDER
        if _number(contents.report.schema_version) >= _number("1.6"):
            why = "The ranking is that of the whole network, of which residual blocks were dropped."
        return Section(key="importance", empty=why)
    shown = [group for group in groups if group.removed] or list(groups)
    shown = sorted(shown, key=lambda group: -group.removed / group.channels)[:MOST_GROUPS]
    shown = [group for group in groups if group in shown]
    part = "" if len(shown) == len(groups) else f" Shown are {len(shown)} of {len(groups)} groups."
    told = (
        "Channels of each coupled group from the highest value to the lowest, with 95% intervals where the "
        "criterion has them. Round: kept; triangles: removed. The cut goes by what removing a channel costs, "
        f"given what is gone already, so it need not follow the values alone.{part}"
    )
    lines = tuple(
        (
            group.group,
            str(group.channels),
            str(group.removed),
            significant(group.shown[0].value),
            significant(group.shown[-1].value),
        )
        for group in groups
        if group.shown
    )
    table = Table(
        title="Groups",
        columns=("group", "channels", "removed", "highest value", "lowest value"),
        rows=lines,
        code_columns=frozenset({0}),
        numeric_columns=frozenset({1, 2, 3, 4}),
    )
    drawn = tuple(importance_figure(group, f"group{number}") for number, group in enumerate(shown))
    return Section(key="importance", words=(told,), figures=drawn, folded=(table,))


def _coalitions(contents: PageContents) -> Section:
    curves = contents.curves
    if curves is None or not curves.coalition_sizes:
        why = f"Random sets of channels were not valued in this run: {_RANK}."
        return Section(key="coalitions", empty=why)
    told = "What random sets of channels are worth: flat where channels stand in for each other."
    return Section(key="coalitions", words=(told,), drawings=(sizes_figure(curves),))


def _removal(contents: PageContents) -> Section:
    curves = contents.curves
    if curves is None or not curves.removal.reconstructed:
        why = f"Removal was not followed filter by filter in this run: {_RANK}."
        return Section(key="removal", empty=why)
    told = "Quality and loss on held-out images, the filters that cost least going first."
    drawings = tuple(removal_figure(curves, absent) for absent in REMOVAL_FILES)
    return Section(key="removal", words=(told,), drawings=drawings[: len(AbsentChannels)])


def _accuracy(contents: PageContents) -> Section:
    report = contents.report
    if not report.accuracy:
        why = "No stage was judged, since no images were held out."
        return Section(key="accuracy", empty=why)
    return Section(
        key="accuracy",
        figures=(accuracy_figure(report.accuracy, report.accuracy_kind),),
        tables=(accuracy_table(report),),
    )


def _operators(contents: PageContents) -> Section:
    times = contents.report.operators
    if times is None:
        return Section(key="operators", empty=_OLDER)
    before = {row.operator: row for row in times.original}
    after = {row.operator: row for row in times.compressed}
    lines = tuple(
        (
            name,
            str(before[name].nodes) if name in before else "0",
            significant(before[name].time_ms) if name in before else "0",
            str(after[name].nodes) if name in after else "0",
            significant(after[name].time_ms) if name in after else "0",
            format_change(before[name].time_ms, after[name].time_ms)
            if name in before and name in after
            else "",
        )
        for name in dict.fromkeys((*before, *after))
    )
    table = Table(
        title="Time by operator",
        columns=("operator", "nodes before", "ms before", "nodes after", "ms after", "change"),
        rows=lines,
        code_columns=frozenset({0}),
        numeric_columns=frozenset({1, 2, 3, 4, 5}),
    )
    return Section(key="operators", figures=(operators_figure(times),), folded=(table,))


def _precision(section: QuantizationSection | None) -> Section:
    if section is None:
        why = "All layers are stored and calculated in 32 bits: --precision int8, auto or fp16 asks for less."
        return Section(key="precision", empty=why)
    table = precision_table(section.integer, section.mixed, section.float16)
    return Section(key="precision", tables=(table,), folded=(quantization_table(section),))


def precision_table(
    integer: IntegerReport | None, mixed: MixedReport | None, float16: Float16Report | None
) -> Table:
    """Which part is stored in how many bits, and why."""
    rows: list[tuple[str, str, str]] = []
    if mixed is not None:
        rows += [
            (f"up to {piece.ends_with}", "8 bits" if piece.integer else "32 bits", piece.why)
            for piece in mixed.pieces
        ]
        integer = mixed.integer
    elif integer is not None:
        rows.append((nodes_words(integer), "8 bits", integer.format.reason))
    if integer is not None:
        rows += [(name, "32 bits", _why_float(integer, name)) for name in integer.kept_float]
    if float16 is not None:
        rows += [(count_words(float16.stored, "constant"), "16 bits", "weights are stored so")]
        rows += [(name, "32 bits", "16 bits do not hold it") for name in float16.kept_float]
    return Table(
        title="Which part is stored how, and why", columns=("part", "stored in", "why"), rows=tuple(rows)
    )


def _why_float(report: IntegerReport, name: str) -> str:
    why = report.unscaled.get(name) or report.mixed_units.get(name)
    return "its weights are stored in 8" if name in report.stored else why or "left as it was"


def _parity(contents: PageContents) -> Section:
    figures = contents.report.parity
    if not figures:
        return Section(key="parity", empty="No conversion was checked.")
    failed = sum(figure.verdict is not Verdict.PASSED for figure in figures)
    told = f"{failed} of {len(figures)} FAILED." if failed else f"All {len(figures)} passed."
    return Section(key="parity", words=(told,), tables=(parity_table(contents.report),))
