"""Facts inside ONNX files: the same bytes for the same facts, others' entries stay, they follow a file."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgeprune.artifacts.calibration import ChannelOrder, Preprocessing
from edgeprune.sharing.model_metadata import (
    PlanFacts,
    carry_entries,
    origin_entries,
    preprocessing_text,
    read_entries,
    write_entries,
)


def tiny(path: Path, **entries: str) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "tiny", values[:1], values[1:])
    model = helper.make_model(graph)
    helper.set_model_props(model, entries)
    onnx.save(model, str(path))
    return path


@settings(max_examples=20)
@given(entries=st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=20), max_size=4))
def test_the_same_facts_give_the_same_bytes(tmp_path_factory: object, entries: dict[str, str]) -> None:
    folder = tmp_path_factory.mktemp("files")  # type: ignore[attr-defined]
    told = {f"edgeprune.{key}": value for key, value in entries.items()}
    one, two = tiny(folder / "1", theirs="stays"), tiny(folder / "2", theirs="stays")
    write_entries(one, told)
    for key in reversed(told):
        write_entries(two, {key: told[key]})
    write_entries(two, {})
    assert one.read_bytes() == two.read_bytes()
    assert read_entries(one) == told
    stored = onnx.load(str(one), format="protobuf")
    assert {p.key: p.value for p in stored.metadata_props} == {**told, "theirs": "stays"}
    onnx.checker.check_model(stored)


def test_they_follow_a_file(tmp_path: Path) -> None:
    source, made = tiny(tmp_path / "s", **{"edgeprune.seed": "3"}), tiny(tmp_path / "m", theirs="stays")
    carry_entries(source, made)
    assert read_entries(made) == {"edgeprune.seed": "3"}
    before = source.read_bytes()
    carry_entries(tiny(tmp_path / "none", theirs="x"), source)
    assert source.read_bytes() == before


def test_what_is_said_of_the_origin() -> None:
    facts = PlanFacts(macs_removed_share=0.25, channels_removed=7, blocks_dropped=("a.b",))
    entries = origin_entries(source_sha256="ab" * 32, seed=5, plan=facts)
    assert entries["edgeprune.source_sha256"] == "ab" * 32
    assert entries["edgeprune.seed"] == "5"
    assert json.loads(entries["edgeprune.plan"]) == {
        "macs_removed_share": 0.25, "channels_removed": 7, "blocks_dropped": ["a.b"]
    }  # fmt: skip
    assert origin_entries(source_sha256=None, seed=0).keys() == {"edgeprune.version", "edgeprune.seed"}


def test_every_step_of_preprocessing_is_told() -> None:
    card = Preprocessing(letterbox=(4, 8), pad=3, mean=(0.5,), channel_order=ChannelOrder.BGR)
    told = json.loads(preprocessing_text(card))
    assert told["letterbox"] == [4, 8]
    assert (told["pad"], told["channel_order"], told["scale"]) == (3, "bgr", "1/255")
    assert set(vars(card)) <= told.keys()
