"""The drawing of ``inspect``: what feeds what, what it says, where things lie, and what it may replace."""

from __future__ import annotations

import itertools
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Network, conv_bn, head, make_case, toy
from torch import nn

from edgeprune.artifacts.coupling import NO_PLAYER, CoupledGroup, CouplingGraph, FrozenChannels, WeightedLayer
from edgeprune.commands.inspect.network_graph import check_graph_path, network_flow, write_graph
from edgeprune.errors import OutputError, UsageError
from edgeprune.reporting.drawing.facts import FlowStep, gather, group_colour
from edgeprune.reporting.drawing.files import GraphFormat, NetworkDrawing, StepKind, render_graph
from edgeprune.reporting.drawing.layout import arrange
from edgeprune.reporting.drawing.ranks import Box
from edgeprune.reporting.drawing.words import keep_end, listed_within, numbers, short_names

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "a<b>&\"'</script><script>alert(1)</script>\x01"


def drawing_of(factory: Callable[[], nn.Module]) -> NetworkDrawing:
    case = toy(factory)
    return NetworkDrawing(
        source=factory.__name__,
        inputs="3x8x8",
        parameters=1234,
        coupling=case.coupling,
        flow=network_flow(case.captured, case.coupling),
    )


def feeds(drawing: NetworkDrawing) -> dict[str, list[str]]:
    """Labels of what feeds each step; joins are numbered in graph order."""
    seen: Counter[str] = Counter()
    label = {}
    for step in drawing.flow:
        seen[step.label] += 1
        label[step.name] = f"{step.label}{seen[step.label]}" if step.kind is StepKind.JOIN else step.label
    return {label[s.name]: [label[n] for n in s.fed_by] for s in drawing.flow}


def dense_block() -> nn.Module:
    def forward(m: Network, x: torch.Tensor) -> torch.Tensor:
        found = [m.stem(x)]
        for layer in (m.one, m.two, m.three):
            found.append(layer(torch.cat(found, 1)))
        return m.head(torch.cat(found, 1))

    layers = {"one": conv_bn(8, 4), "two": conv_bn(12, 4), "three": conv_bn(16, 4)}
    return Network(forward, stem=conv_bn(3, 8), head=head(20), **layers)


def masked_by_zeros() -> nn.Module:
    """Adds zeros of its own input's shape, which is no branch."""
    return Network(
        lambda m, x: m.head(m.second(y := m.stem(x)) + torch.zeros_like(y)),
        stem=conv_bn(3, 6),
        second=conv_bn(6, 6),
        head=head(6),
    )


def test_a_residual_add_is_a_join_of_both_branches() -> None:
    assert feeds(drawing_of(networks.residual_add)) == {
        "x": [],
        "stem.0": ["x"],
        "first.0": ["stem.0"],
        "second.0": ["first.0"],
        "add1": ["second.0", "stem.0"],
        "head.2": ["add1"],
        "output": ["head.2"],
    }


def test_a_dense_block_is_a_chain_of_concatenations() -> None:
    found = feeds(drawing_of(dense_block))
    assert found["cat1"] == ["stem.0", "one.0"]
    assert found["cat2"] == ["cat1", "two.0"]
    assert found["cat3"] == ["cat2", "three.0"]
    assert found["head.2"] == ["cat3"]


def test_a_constant_made_from_a_shape_is_no_branch() -> None:
    assert not [s for s in drawing_of(masked_by_zeros).flow if s.kind is StepKind.JOIN]


def test_both_outputs_of_a_network_lead_to_its_output() -> None:
    assert len(feeds(drawing_of(networks.two_outputs))["output"]) == 2


@pytest.mark.parametrize(
    "factory",
    [networks.padded_shortcut, networks.concat, networks.channel_shuffle, networks.squeeze_excitation],
)
def test_shares_of_a_layer_add_up_to_its_channels(factory: Callable[[], nn.Module]) -> None:
    drawing = drawing_of(factory)
    facts = gather(drawing)
    owner = drawing.coupling.group_of_player()
    for layer in drawing.coupling.layers:
        found = facts.layers[layer.node]
        assert sum(s.channels for s in found.leaving) == found.channels == layer.out_players.size
        for share in found.leaving:
            mine = NO_PLAYER if share.group is None else share.group - 1
            groups = np.where(layer.out_players == NO_PLAYER, NO_PLAYER, owner[layer.out_players])
            assert share.channels == np.count_nonzero(groups == mine)
    assert {n for g in facts.groups for n in g.layers} <= {layer.name for layer in facts.layers.values()}


def parts(svg: ET.Element) -> dict[str, list[tuple[str, float, str]]]:
    """Group, width and colour of every segment of each layer's strip, by the layer's first tooltip line."""
    found = {}
    for node in svg.iter(f"{SVG}g"):
        if node.get("class") == "node layer":
            name = (node.findtext(f"{SVG}title") or "").splitlines()[0]
            strips = [g for g in node.iter(f"{SVG}g") if g.get("class") == "part"]
            rects = [(g.get("data-group", ""), g.find(f"{SVG}rect")) for g in strips]
            found[name] = [
                (g, float(r.get("width", "0")), r.get("fill", "")) for g, r in rects if r is not None
            ]
    return found


def test_what_leaves_together_has_one_number_and_colour_in_every_layer() -> None:
    drawing = drawing_of(networks.padded_shortcut)
    facts = gather(drawing)
    strips = parts(ET.fromstring(render_graph(drawing, GraphFormat.SVG)))
    assert set(strips) == {layer.name for layer in drawing.coupling.layers}
    for group in facts.groups:
        members = {name for name, strip in strips.items() if str(group.number) in {p[0] for p in strip}}
        assert members == set(group.layers)
        assert {p[2] for s in strips.values() for p in s if p[0] == str(group.number)} == {group.colour}


def test_strips_are_in_proportion_and_fill_the_box() -> None:
    drawing = drawing_of(networks.padded_shortcut)
    facts = gather(drawing)
    strips = parts(ET.fromstring(render_graph(drawing, GraphFormat.SVG)))
    for layer in facts.layers.values():
        total = sum(width for _, width, _ in strips[layer.name])
        assert total == pytest.approx(212, abs=0.5)
        for share, (_, width, _) in zip(layer.leaving, strips[layer.name], strict=True):
            # Each segment has three pixels for certain, the rest is in proportion.
            assert width == pytest.approx(
                total * share.channels / layer.channels, abs=3.1 * len(layer.leaving)
            )


@pytest.mark.parametrize("form", list(GraphFormat))
def test_channels_that_stay_name_the_op_and_the_reason(form: GraphFormat) -> None:
    text = render_graph(drawing_of(networks.half_of_the_channels), form)
    frozen = toy(networks.half_of_the_channels).coupling.frozen
    assert frozen
    for row in frozen:
        assert row.reason in text
        assert row.layer in text
    assert "stay: A" in text


def many_groups(count: int, name: str = "wide") -> NetworkDrawing:
    """One layer whose channels belong to ``count`` groups of one channel, and two that stay for a reason."""
    players = np.array([*range(count), NO_PLAYER, NO_PLAYER], dtype=np.int64)
    layer = WeightedLayer(
        name=name,
        node="wide",
        op="conv2d",
        weight="wide.weight",
        macs_per_weight=9,
        out_players=players,
        in_players=np.array([NO_PLAYER]),
    )
    groups = tuple(
        CoupledGroup(name=f"{name}#{i}", players=(i,), layers=(name,), consumers=()) for i in range(count)
    )
    coupling = CouplingGraph(
        num_players=count,
        groups=groups,
        mask_points=(),
        layers=(layer,),
        frozen=(FrozenChannels(layer=name, channels=2, op=HOSTILE, node="n", reason=HOSTILE),),
        parameter_players={},
        node_players={},
        unruled_ops=(),
    )
    flow = (
        FlowStep(name="x", kind=StepKind.INPUT, label=HOSTILE, fed_by=()),
        FlowStep(name="wide", kind=StepKind.LAYER, label=name, fed_by=("x",)),
    )
    return NetworkDrawing(
        source=HOSTILE, inputs="1", parameters=1, coupling=coupling, flow=flow, notes=(HOSTILE,)
    )


def test_a_group_without_room_for_its_number_is_written_in_the_box() -> None:
    texts = {t.text for t in ET.fromstring(render_graph(many_groups(60), GraphFormat.SVG)).iter(f"{SVG}text")}
    assert "groups 1-60" in texts


def test_names_from_outside_are_text_and_never_markup() -> None:
    drawing = many_groups(3, name=HOSTILE)
    svg = render_graph(drawing, GraphFormat.SVG)
    root = ET.fromstring(svg)
    assert not list(root.iter(f"{SVG}script"))
    assert any(HOSTILE.replace("\x01", r"\x01") in (t.text or "") for t in root.iter(f"{SVG}title"))
    page = render_graph(drawing, GraphFormat.HTML)
    assert "<script>alert" not in page
    assert page.count("</script>") == 2


@pytest.mark.parametrize("form", list(GraphFormat))
def test_the_same_network_gives_the_same_bytes(form: GraphFormat, tmp_path: Path) -> None:
    written = []
    for attempt in range(2):
        torch.manual_seed(attempt)
        case = make_case(networks.concat())
        path = tmp_path / f"{attempt}{form.value}"
        write_graph(path, case.captured, case.coupling, source="model.pt2", notes=())
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"0{form.value}", f"1{form.value}"]


def test_the_page_asks_nothing_of_the_network() -> None:
    page = render_graph(drawing_of(networks.residual_add), GraphFormat.HTML)
    assert set(re.findall(r"\w+://[^\s\"'<>]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page
    assert not re.findall(r"<(?:link|img|iframe)|\bsrc=|@import|url\((?!#)", page)


def test_a_network_whose_channels_all_stay_is_drawn_all_the_same() -> None:
    def one_layer() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))

    drawing = drawing_of(one_layer)
    assert drawing.coupling.groups == ()
    ET.fromstring(render_graph(drawing, GraphFormat.SVG))
    assert "No channel of this network can go" in render_graph(drawing, GraphFormat.HTML)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_differ_and_their_numbers_can_be_read() -> None:
    colours = [group_colour(n) for n in range(1, 201)]
    assert len(set(colours)) == 200
    ink = luminance("#111418")
    # WCAG 2.1 asks for 4.5 to 1.
    assert min((luminance(c) + 0.05) / (ink + 0.05) for c in colours) > 4.5
    for one, other in itertools.pairwise(colours):
        apart = [abs(int(one[i : i + 2], 16) - int(other[i : i + 2], 16)) for i in (1, 3, 5)]
        assert max(apart) > 60


@st.composite
def networks_of_boxes(draw: st.DrawFn) -> tuple[list[Box], list[tuple[str, str]]]:
    count = draw(st.integers(1, 40))
    boxes = [
        Box(
            name=str(i),
            width=draw(st.sampled_from([44.0, 212.0])),
            height=draw(st.sampled_from([22.0, 54.0])),
        )
        for i in range(count)
    ]
    edges = set()
    for target in range(1, count):
        for source in draw(st.sets(st.integers(max(0, target - 9), target - 1), min_size=1, max_size=3)):
            edges.add((str(source), str(target)))
    return boxes, sorted(edges)


@settings(max_examples=60, deadline=None)
@given(networks_of_boxes())
def test_boxes_never_overlap_and_lie_inside(given_network: tuple[list[Box], list[tuple[str, str]]]) -> None:
    boxes, edges = given_network
    layout = arrange(boxes, edges)
    assert layout == arrange(boxes, edges)
    assert set(layout.paths) == set(edges)
    placed = [layout.boxes[b.name] for b in boxes]
    for index, one in enumerate(placed):
        assert (one.width, one.height) == (boxes[index].width, boxes[index].height)
        assert one.x > -0.01
        assert one.y > -0.01
        assert one.x + one.width < layout.width + 0.01
        assert one.y + one.height < layout.height + 0.01
        for other in placed[:index]:
            beside = one.x + one.width < other.x + 0.01 or other.x + other.width < one.x + 0.01
            above = one.y + one.height < other.y + 0.01 or other.y + other.height < one.y + 0.01
            assert beside or above


def test_a_chain_goes_straight_down_and_a_deep_one_on_in_the_next_column() -> None:
    def chain(count: int) -> dict[float, list[float]]:
        boxes = [Box(name=str(i), width=212.0, height=54.0) for i in range(count)]
        placed = arrange(boxes, [(str(i), str(i + 1)) for i in range(count - 1)]).boxes
        columns: dict[float, list[float]] = {}
        for i in range(count):
            columns.setdefault(round(placed[str(i)].x, 3), []).append(placed[str(i)].y)
        return columns

    assert len(chain(6)) == 1
    deep = chain(200)
    assert len(deep) > 3
    assert all(ys == sorted(ys) for ys in deep.values())
    assert max(len(ys) for ys in deep.values()) < 40


def test_parallel_branches_are_side_by_side() -> None:
    names = ["in", "a", "b", "c", "cat"]
    boxes = [Box(name=n, width=212.0, height=54.0) for n in names]
    edges = [("in", n) for n in "abc"] + [(n, "cat") for n in "abc"]
    placed = arrange(boxes, edges).boxes
    assert placed["a"].y == placed["b"].y == placed["c"].y
    assert placed["in"].y < placed["a"].y < placed["cat"].y


def test_words() -> None:
    assert numbers([1, 2, 3, 5, 7, 8]) == "1-3, 5, 7, 8"
    assert keep_end("features.block.conv", 10) == "…lock.conv"
    assert listed_within(["alpha", "beta", "gamma"], 17) == "alpha and 2 more"
    assert listed_within(["a.long.layer.name", "b"], 18) == "…er.name and 1 more"


def test_long_names_that_end_alike_get_a_second_line() -> None:
    names = {
        "a": "net.layer_1.attention.weight",
        "b": "net.layer_2.attention.weight",
        "c": "net.layer_3.mlp.weight",
    }
    assert short_names(names, 17) == {
        "a": ("net.layer_1.", "attention.weight"),
        "b": ("net.layer_2.", "attention.weight"),
        "c": ("…yer_3.mlp.weight",),
    }
    assert short_names({"a": "x" * 30, "b": "y" + "x" * 29}, 20)["b"] == ("y" + "x" * 9, "x" * 20)


@pytest.mark.parametrize(("name", "given"), [("net.png", "the suffix '.png'"), ("net", "no suffix")])
def test_another_suffix_is_refused(name: str, given: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(given)) as caught:
        check_graph_path(tmp_path / name)
    assert ".svg" in str(caught.value)
    assert ".html" in str(caught.value)


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    assert check_graph_path(tmp_path / "net.SVG") == tmp_path.resolve() / "net.SVG"


def test_only_a_drawing_is_replaced_and_only_on_request(tmp_path: Path) -> None:
    case = toy(networks.residual_add)
    drawn, foreign = tmp_path / "net.svg", tmp_path / "logo.svg"
    write_graph(drawn, case.captured, case.coupling, source="m", notes=())
    foreign.write_text("<svg/>")
    with pytest.raises(OutputError, match=r"exists already; .*--overwrite"):
        check_graph_path(drawn)
    assert check_graph_path(drawn, overwrite=True) == drawn.resolve()
    with pytest.raises(OutputError, match="not drawn by edgeprune"):
        check_graph_path(foreign, overwrite=True)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_graph_path(tmp_path / "folder.svg", overwrite=True)
    with pytest.raises(OutputError, match="is no folder; make it first"):
        check_graph_path(tmp_path / "missing" / "net.svg")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_graph_path(tmp_path / "net.svg")
