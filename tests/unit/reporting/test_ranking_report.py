"""Orders, points, areas and coalition sizes of a ranking, and the files and tables made of them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import typing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networks as nets
import numpy as np
import pytest
import torch
from rich.console import Console
from synthetic_ranking import made_up
from torch.nn import functional

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.quality import AbsentChannels, AccuracyKind, RemovedShare
from edgeprune.commands.rank.ranked_layers import channel_numbers, groups_of_layers
from edgeprune.commands.rank.removal_curves import (
    RemovalJudge,
    area,
    coalition_sizes,
    cost_per_mac,
    macs_of_one,
    passes_by_size,
    removal_counts,
    removal_order,
    size_curve,
    size_effort,
)
from edgeprune.errors import NothingToPruneError, UsageError
from edgeprune.fx import tensor_leaves
from edgeprune.games.masked_game import MaskedGame
from edgeprune.pruning.masking import mask_module
from edgeprune.pruning.surgery import prune
from edgeprune.reporting.ranking.facts import RANKING_SCHEMA_VERSION, GroupScores, RankedGroup, RankingReport
from edgeprune.reporting.ranking.figures import best_first, figure_files, values_name
from edgeprune.reporting.ranking.files import (
    ranking_to_csv,
    ranking_to_json,
    read_ranking,
    write_ranking,
)
from edgeprune.reporting.ranking.html import render_page
from edgeprune.reporting.ranking.words import render_ranking

ROOT = Path(__file__).resolve().parents[3]
IMAGES = 9


def game_of(case: nets.Case, *, labelled: bool = True) -> tuple[MaskedGame, torch.Tensor]:
    pixels = torch.randn(
        IMAGES, *case.captured.input_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    with torch.no_grad():
        reference = tensor_leaves(case.captured.graph_module(pixels))
    labels = torch.arange(IMAGES) % 5 if labelled else None
    masked = mask_module(case.captured, case.coupling)
    players = case.coupling.num_players
    batch = ImageBatch(images=pixels, labels=labels)
    return MaskedGame(masked, players, batch, reference, images_at_once=4), pixels


# what goes, and when


def test_least_cost_per_mac_goes_first_and_one_of_each_group_stays() -> None:
    coupling = nets.toy(nets.padded_shortcut).coupling
    costs = np.random.default_rng(0).random(coupling.num_players)
    prices = cost_per_mac(costs, coupling, coupling.groups)
    order = removal_order(prices, coupling.groups)
    assert (np.diff(prices[order]) >= 0).all()
    stayed = set(range(coupling.num_players)) - set(order.tolist())
    dearest = {max(g.players, key=lambda p: costs[p]) for g in coupling.groups}
    assert stayed == dearest
    whole = coupling.total_macs()
    for group in coupling.groups:
        gone = coupling.removed_mask(group.players[-1:])
        saved = whole - coupling.total_macs(gone)
        assert macs_of_one(coupling, group) == saved > 0
        for player in group.players:
            assert prices[player] == costs[player] / saved


def test_only_the_groups_asked_for_go() -> None:
    coupling = nets.toy(nets.chain).coupling
    group = coupling.groups[1]
    prices = cost_per_mac(np.ones(coupling.num_players), coupling, [group])
    assert set(removal_order(prices, [group]).tolist()) == set(sorted(group.players)[:-1]), (
        "the last of equals"
    )
    assert np.isinf(prices[list(coupling.groups[0].players)]).all()


def test_points_are_even_in_filters_or_in_macs() -> None:
    coupling = nets.toy(nets.padded_shortcut).coupling
    order = np.random.default_rng(1).permutation(coupling.num_players)[:-3]
    assert removal_counts(order[:11], coupling, RemovedShare.FILTERS) == tuple(range(12))
    counts = removal_counts(order, coupling, RemovedShare.MACS, points=6)
    assert (counts[0], counts[-1]) == (0, len(order))
    saved = [coupling.total_macs() - coupling.total_macs(coupling.removed_mask(order[:c])) for c in counts]
    most = saved[-1]
    before = [
        coupling.total_macs() - coupling.total_macs(coupling.removed_mask(order[: c - 1])) for c in counts[1:]
    ]
    for i in range(1, 6):
        assert before[i - 1] < most * i / 5 <= saved[i]
    nobody = order[:0]
    assert removal_counts(nobody, coupling, RemovedShare.MACS) == (0,)
    assert removal_counts(nobody, coupling, RemovedShare.FILTERS) == (0,)


# what is lost


def test_a_curve_follows_the_pruned_network() -> None:
    case = nets.toy(nets.padded_shortcut)
    game, pixels = game_of(case)
    labels = (torch.arange(IMAGES) % 5).numpy()
    judge = RemovalJudge(game, case.coupling, labels, RemovedShare.MACS)
    prices = cost_per_mac(
        np.arange(case.coupling.num_players, dtype=float), case.coupling, case.coupling.groups
    )
    order = removal_order(prices, case.coupling.groups)
    units: list[int] = []
    curve = judge.curve("fake", order, case.coupling.num_players, advance=units.append)
    assert judge.kind is AccuracyKind.TOP1
    assert len(units) == len(curve.points) > 8
    for point in curve.points:
        removed = tuple(sorted(order[: point.removed].tolist()))
        with torch.no_grad():
            (scores,) = tensor_leaves(prune(case.captured, case.coupling, removed)(pixels))
        losses = functional.cross_entropy(scores, torch.from_numpy(labels), reduction="none").numpy()
        assert point.loss == pytest.approx(losses.mean(), abs=1e-9)
        assert point.loss_standard_error == pytest.approx(losses.std(ddof=1) / 3, abs=1e-9)
        assert point.quality == pytest.approx((scores.argmax(1).numpy() == labels).mean())
        assert point.quality_low is not None
        assert point.quality_high is not None
        assert point.quality_low <= point.quality <= point.quality_high
        gone = case.coupling.removed_mask(removed)
        assert point.macs_removed_share == 1 - case.coupling.total_macs(gone) / case.coupling.total_macs()
        assert point.removed_share == point.removed / case.coupling.num_players


def test_without_labels_agreement_begins_at_one() -> None:
    case = nets.toy(nets.chain)
    game, _ = game_of(case, labelled=False)
    judge = RemovalJudge(game, case.coupling, None, RemovedShare.FILTERS)
    order = np.arange(case.coupling.num_players - 1)
    first = judge.curve("fake", order, case.coupling.num_players).points[0]
    assert judge.kind is AccuracyKind.AGREEMENT
    assert (first.removed, first.quality) == (0, 1.0)


def test_outputs_that_are_no_class_scores_have_a_loss_only() -> None:
    case = nets.toy(nets.two_outputs)
    game, _ = game_of(case, labelled=False)
    judge = RemovalJudge(game, case.coupling, None, RemovedShare.FILTERS)
    curve = judge.curve("fake", np.arange(3), case.coupling.num_players)
    assert curve.quality_auc is None
    assert curve.points[0].quality is None
    assert curve.points[0].loss == pytest.approx(0.0, abs=1e-12)
    assert curve.points[-1].loss > 1e-6


def test_the_area_is_the_mean_height_with_the_error_over_images() -> None:
    shares = np.array([0.0, 0.1, 0.5])
    per_image = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    value, error = area(shares, per_image)
    areas = [(0.05 * 1.0 + 0.0) / 0.5, (0.1 + 0.4 / 2) / 0.5]
    assert value == pytest.approx(np.mean(areas))
    assert error == pytest.approx(np.std(areas, ddof=1) / math.sqrt(2))
    assert area(np.array([0.0]), per_image[:1])[0] == 1.0
    assert math.isnan(area(shares, per_image[:, :1])[1])


# coalitions of every size


class Additive:
    """A game whose value is the sum of its members' worth."""

    num_players = 20
    num_images = 3

    def __init__(self) -> None:
        self.seen: list[np.ndarray[Any, Any]] = []

    def values(self, coalitions: Any) -> Any:
        self.seen.append(coalitions)
        return np.repeat((coalitions * np.arange(20.0)).sum(1, keepdims=True), 3, axis=1)


def test_random_coalitions_have_the_size_they_should_and_outsiders_stay() -> None:
    game: Any = Additive()
    members = list(range(5, 15))
    units: list[int] = []
    curve = size_curve(
        game, "some", ("some",), members, coalitions=6, rng=np.random.default_rng(0), advance=units.append
    )
    seen = np.concatenate(game.seen)
    assert seen[:, :5].all()
    assert seen[:, 15:].all()
    outside = sum(p for p in range(20) if p not in members)
    assert [p.present for p in curve.points] == list(range(11))
    row = 0
    for point in curve.points:
        block = seen[row : row + point.coalitions]
        row += point.coalitions
        assert (block[:, 5:15].sum(1) == point.present).all()
        worth = (block * np.arange(20.0)).sum(1)
        assert (point.mean, point.lowest, point.highest) == (worth.mean(), worth.min(), worth.max())
        if point.coalitions > 1:
            assert point.standard_deviation == pytest.approx(worth.std(ddof=1))
    assert row == len(units) == passes_by_size(10, 6) == 2 + 9 * 6
    assert (curve.points[0].mean, curve.points[-1].mean) == (outside, sum(range(20)))
    assert len({b.tobytes() for b in seen[1:7]}) > 1, "coalitions are drawn, not repeated"


@pytest.mark.parametrize(
    ("macs", "images", "expected"),
    [(1, 40, (16, 40)), (1, 500, (16, 128)), (40_000_000, 500, (16, 128)), (4_000_000_000, 500, (8, 16))],
)
def test_effort_follows_the_work(macs: int, images: int, expected: tuple[int, int]) -> None:
    assert size_effort(macs, images) == expected


def test_sizes_of_few_players_are_each_taken_once() -> None:
    assert coalition_sizes(1) == (0, 1)
    assert coalition_sizes(3) == (0, 1, 2, 3)
    assert coalition_sizes(100) == tuple(range(0, 101, 10))


# layers and channels by name


def test_a_layer_names_its_group() -> None:
    coupling = nets.toy(nets.padded_shortcut).coupling
    assert groups_of_layers(coupling, ()) == coupling.groups
    for group in coupling.groups:
        for layer in group.layers:
            assert group in groups_of_layers(coupling, (layer,))
    last = coupling.groups[-1].layers[0]
    first = coupling.groups[0].layers[0]
    chosen = groups_of_layers(coupling, (last, first, last))
    assert [g.name for g in chosen] == [g.name for g in coupling.groups if g in chosen], "in graph order"


@pytest.mark.parametrize(
    ("layer", "parts"),
    [
        ("1.conf1", ("there is no layer '1.conf1' to rank", "did you mean '1.conv1'", "Accepted are 0.0")),
        ("zzz", ("there is no layer 'zzz' to rank; accepted are",)),
        ("3.2", ("no channel of layer '3.2' can be removed", "output of the model", "accepted are")),
    ],
)
def test_a_layer_that_cannot_be_ranked(layer: str, parts: tuple[str, ...]) -> None:
    coupling = nets.toy(nets.padded_shortcut).coupling
    with pytest.raises(UsageError) as caught:
        groups_of_layers(coupling, (layer,))
    for part in parts:
        assert part in str(caught.value)


def test_a_network_without_players() -> None:
    coupling = dataclasses.replace(nets.toy(nets.chain).coupling, num_players=0, groups=())
    with pytest.raises(NothingToPruneError, match="edgeprune inspect"):
        groups_of_layers(coupling, ())


@pytest.mark.parametrize("factory", [nets.chain, nets.padded_shortcut, nets.concat, nets.grouped_convolution])
def test_channel_numbers_are_places_in_the_first_layer(factory: Any) -> None:
    coupling = nets.toy(factory).coupling
    for group in coupling.groups:
        numbers = channel_numbers(coupling, group)
        assert len(set(numbers)) == len(group.players)
        layer = next(found for found in coupling.layers if found.name == group.layers[0])
        for player, channel in zip(group.players, numbers, strict=True):
            assert layer.out_players[channel] == player
            assert player not in layer.out_players[:channel]


# the files


FILES = {
    "coalition-sizes.svg",
    "ranking.csv",
    "ranking.html",
    "ranking.json",
    "removal-curves-masked.svg",
    "removal-curves.svg",
    "values-l1.svg",
    "values-ours.svg",
}


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    write_ranking(made_up(), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == FILES
    again = read_ranking(tmp_path / "ranking.json")
    assert ranking_to_json(again) == ranking_to_json(made_up())
    assert again.criteria == made_up().criteria
    assert json.loads((tmp_path / "ranking.json").read_text())["removal"]["axis"] == "MACs"


def test_durations_are_in_the_json_alone() -> None:
    quick = made_up()
    slow = dataclasses.replace(quick, durations_s={"load": 99.0})
    assert ranking_to_csv(quick) == ranking_to_csv(slow)
    assert figure_files(quick) == figure_files(slow)
    assert render_page(quick, figure_files(quick)) == render_page(slow, figure_files(slow))
    a, b = json.loads(ranking_to_json(quick)), json.loads(ranking_to_json(slow))
    assert a != b
    assert {k: v for k, v in a.items() if k != "durations_s"} == {
        k: v for k, v in b.items() if k != "durations_s"
    }


def test_the_table_has_a_row_for_each_criterion_and_player() -> None:
    rows = list(csv.DictReader(io.StringIO(ranking_to_csv(made_up()))))
    assert len(rows) == 2 * 5
    assert rows[1] == {
        "criterion": "l1",
        "group": "stem & co",
        "layers": "stem co",
        "channel": "2",
        "value": repr(1 / 3),
        "standard_error": "",
        "removal_cost": repr(1 / 9),
        "rank_in_group": "1",
        "rank_in_network": "2",
    }
    assert float(rows[6]["standard_error"]) == 0.1 * (1 / 3)


@pytest.mark.parametrize("rated", [True, False])
def test_the_page_holds_every_plot_and_asks_for_nothing(rated: bool) -> None:
    report = made_up(rated=rated)
    figures = figure_files(report)
    page = render_page(report, figures)
    for name, svg in figures.items():
        ElementTree.fromstring(svg)
        assert svg in page, name
    assert page.count("<svg") == len(figures) == 5
    assert page.index(figures["removal-curves.svg"]) < page.index(figures["removal-curves-masked.svg"])
    assert "a&lt;b&gt;.pt" in page
    assert "a<b>" not in page
    assert "default-src 'none'" in page
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"<\s]+", page)) <= namespaces
    assert set(re.findall(r"url\([^)]{2}", page)) <= {"url(#c", "url(#r"}, (
        "clips and fills of the page itself"
    )
    for forbidden in ("href", "src=", "<script", "@import"):
        assert forbidden not in page, forbidden


def test_the_best_criterion_comes_first() -> None:
    for rated in (True, False):
        assert best_first(made_up(rated=rated).removal, AbsentChannels.RECONSTRUCTED) == [1, 0]
        assert best_first(made_up(rated=rated).removal, AbsentChannels.MASKED) == [0, 1]
    masked = figure_files(made_up())["removal-curves-masked.svg"]
    assert masked.index("0.525 ± 0.020") < masked.index("0.487 ± 0.020")
    svg = figure_files(made_up())["removal-curves.svg"]
    assert "0.525" not in svg
    assert svg.index("0.670 ± 0.020") < svg.index("0.575 ± 0.020")
    assert "0.900" in svg
    assert "nan" not in svg
    assert "AUC accuracy" not in figure_files(made_up(rated=False))["removal-curves.svg"]


@pytest.mark.parametrize("rated", [pytest.param(True, marks=pytest.mark.wide), False])
def test_recovered_networks_are_single_markers_beside_the_reconstructed_curves(rated: bool) -> None:
    report = made_up(rated=rated)
    figures = figure_files(report)
    leading = figures["removal-curves.svg"]
    titles = re.findall("<title>ours, recovered: 2 filters removed[^<]*</title>", leading)
    assert len(titles) == (2 if rated else 1)
    assert "single markers: networks that were pruned there and recovered" in leading
    assert "recovered" not in figures["removal-curves-masked.svg"]
    assert "Recovered networks" in render_page(report, figures)
    without = dataclasses.replace(report, removal=dataclasses.replace(report.removal, recovered=()))
    assert "recovered" not in figure_files(without)["removal-curves.svg"]
    assert "Recovered networks" not in render_page(without, figure_files(without))


def test_the_page_says_where_channels_are_masked_all_the_same() -> None:
    report = made_up()
    assert "at 2 of 3 places; at the others" in render_page(report, figure_files(report))
    whole = dataclasses.replace(report, removal=dataclasses.replace(report.removal, mask_points=2))
    assert "places" not in render_page(whole, figure_files(whole))


def test_a_wide_group_is_drawn_as_a_band() -> None:
    report = made_up()
    count = 2000
    wide = RankedGroup(
        name="wide", layers=("wide",), consumers=(), channels=tuple(range(count)), macs_of_channel=1
    )
    values = tuple(1.0 + i / count for i in range(count))
    found = GroupScores(
        group="wide",
        values=values,
        standard_errors=(0.1,) * count,
        removal_costs=values,
        ranks_in_group=tuple(range(count, 0, -1)),
        ranks_in_network=tuple(range(count, 0, -1)),
    )
    big = dataclasses.replace(
        report, groups=(wide,), criteria=(dataclasses.replace(report.criteria[1], groups=(found,)),)
    )
    svg = figure_files(big)["values-ours.svg"]
    assert "mark-area" in svg
    assert "mark-symbol" not in svg
    assert len(svg) < 40_000


def with_losses(report: RankingReport, value: float) -> RankingReport:
    """The report with a loss that a masked network may have."""
    curves = tuple(
        dataclasses.replace(
            curve, points=(dataclasses.replace(curve.points[0], loss=value), *curve.points[1:])
        )
        for curve in report.removal.reconstructed
    )
    return dataclasses.replace(report, removal=dataclasses.replace(report.removal, reconstructed=curves))


def test_a_criterion_looks_the_same_in_every_chart() -> None:
    """The charts list criteria by what they leave, each in its own order."""
    strokes = []
    for name in ("removal-curves.svg", "removal-curves-masked.svg"):
        svg = figure_files(made_up())[name]
        marks = re.findall(r'<path aria-label="(\w+): [^"]*"[^>]*fill="([^"]+)"', svg)
        found = {criterion: {colour for c, colour in marks if c == criterion} for criterion, _ in marks}
        assert all(len(colours) == 1 for colours in found.values())
        strokes.append(found)
    assert strokes[0] == strokes[1]
    assert len(strokes[0]) == 2


@pytest.mark.parametrize(
    "value", [math.inf, *(pytest.param(each, marks=pytest.mark.wide) for each in (-math.inf, math.nan))]
)
def test_points_that_are_not_finite_are_left_out(value: float) -> None:
    whole, broken = (
        figure_files(r)["removal-curves.svg"] for r in (made_up(), with_losses(made_up(), value))
    )
    assert not re.search(
        r"\b(nan|inf|NaN|Infinity)\b", re.sub('<title>.*?</title>|aria-label="[^"]*"', "", broken)
    )
    marks = [len(re.findall("<title>[^<]*loss", svg)) for svg in (whole, broken)]
    assert marks[0] - marks[1] == len(made_up().criteria)


def test_files_have_colours_of_their_own_and_the_page_those_of_its_stylesheet(tmp_path: Path) -> None:
    write_ranking(made_up(), tmp_path)
    for path in tmp_path.glob("*.svg"):
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "var(" not in text, path.name
    page = (tmp_path / "ranking.html").read_text()
    assert {f"--{name}" for name in re.findall(r"var\(--([a-z]+)\)", page)} <= set(
        re.findall("--[a-z]+", page)
    )


@pytest.mark.parametrize(
    "name",
    [
        "<b>&\"'",
        "'] + datum.x + ['",
        *(
            pytest.param(each, marks=pytest.mark.wide)
            for each in ("a\x00b\x1b[31m", "w" * 300, "层", "\\1\\g<0>")
        ),
    ],
)
def test_names_of_any_kind_are_drawn(name: str) -> None:
    report = made_up()
    group = dataclasses.replace(report.groups[0], name=name)

    def renamed(curves: tuple[Any, ...]) -> Any:
        return tuple(
            dataclasses.replace(c, criterion=name if c.criterion == "l1" else c.criterion) for c in curves
        )

    removal = {key: renamed(getattr(report.removal, key)) for key in ("reconstructed", "masked", "recovered")}
    named = dataclasses.replace(
        report,
        groups=(group, *report.groups[1:]),
        criteria=tuple(
            dataclasses.replace(c, name=name if c.name == "l1" else c.name) for c in report.criteria
        ),
        removal=dataclasses.replace(report.removal, **removal),
    )
    figures = figure_files(named)
    for svg in figures.values():
        ElementTree.fromstring(svg)
    assert len(render_page(named, figures)) > 0


def test_a_plug_in_of_any_name_gets_a_file_name() -> None:
    assert values_name("l1") == "values-l1.svg"
    assert values_name("../my rule") == "values--my-rule.svg"


def test_the_terminal_shows_ends_and_areas() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_ranking(made_up()))
    text = console.export_text()
    assert re.search(r"stem, co +3 +0 \(0\.100\) +2 \(0\.333\)", text)
    assert text.index("Recovered networks") < text.index("Absent channels reconstructed: ")
    assert re.search(r"33\.3% +ours +87\.5% \(82\.5% to 92\.5%\) +0\.234 ± 0\.010", text)
    assert text.index("33.3%  ours") < text.index("33.3%  l1")
    leading, masked = text.split("Absent channels masked: ")
    leading = leading.split("Absent channels reconstructed: ")[1]
    assert re.search(r"ours +0\.670 ± 0\.020 +0\.675 +7", leading)
    assert leading.index("ours  ") < leading.index("l1  ")
    assert re.search(r"ours +0\.487 ± 0\.020 +1\.200 +7", masked)
    assert masked.index("l1  ") < masked.index("ours  ")
    assert "note: ours: a note on ours" in text
    assert "top-1 accuracy 90.0%" in text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nothing", "is not JSON"),
        ("{}", "schema version None"),
        ('{"schema_version": "9"}', "schema version '9', this edgeprune reads '2.0'"),
        ('{"schema_version": "1.1"}', "schema version '1.1', this edgeprune reads '2.0'"),
        ('{"schema_version": "2.0"}', "does not fit schema 2.0"),
    ],
)
def test_other_files_are_no_ranking(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        read_ranking(tmp_path / "x.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_ranking(tmp_path / "missing.json")


# the documented schema


def reachable(kind: object) -> list[type]:
    """Dataclasses in the fields of ``kind``, itself first."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        inner = [t for hint in typing.get_type_hints(kind).values() for t in reachable(hint)]
        return list(dict.fromkeys([kind, *inner]))
    return [t for part in typing.get_args(kind) for t in reachable(part)]


@pytest.mark.parametrize("kind", reachable(RankingReport), ids=lambda kind: kind.__name__)
def test_every_field_of_the_schema_is_documented_and_nothing_else(kind: type) -> None:
    text = (ROOT / "docs" / "ranking-schema.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    assert kind.__name__ in sections, f"docs/ranking-schema.md has no section {kind.__name__}"
    described = re.findall(r"^\| `(\w+)` \| \S.* \| \S.* \|$", sections[kind.__name__], flags=re.MULTILINE)
    assert sorted(described) == sorted(f.name for f in dataclasses.fields(kind))


def test_the_documented_schema_version_and_columns_are_the_current_ones() -> None:
    text = (ROOT / "docs" / "ranking-schema.md").read_text(encoding="utf-8")
    assert f"schema version `{RANKING_SCHEMA_VERSION}`" in text
    section = text.split("\n## ranking.csv\n")[1]
    header = ranking_to_csv(made_up()).splitlines()[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == header.split(",")
