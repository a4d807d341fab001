"""The three forms of the report: golden files, round trip, provenance of every figure."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_page import synthetic_quantization
from synthetic_report import (
    parity,
    ruined_report,
    synthetic_budget,
    synthetic_default,
    synthetic_report,
    usability,
)

from edgeprune.artifacts.budget import BudgetSection
from edgeprune.artifacts.latency import LatencyRatio, Provenance, StageTime
from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import REPORT_SCHEMA_VERSION, Grade, RunReport, Verdict
from edgeprune.commands.run.usability import with_speed
from edgeprune.errors import OutputError, UsageError
from edgeprune.reporting import (
    read_json,
    render_brief,
    render_markdown,
    render_terminal,
    report_to_json,
    write_json,
)
from edgeprune.reporting.default_words import default_line, way_rows
from edgeprune.reporting.document import build_document
from edgeprune.reporting.formatting import (
    format_bytes,
    format_change,
    format_count,
    ratio_meaning,
    significant,
)
from edgeprune.reporting.headline import Tone
from edgeprune.reporting.markdown import escape

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"


def terminal_text(report: RunReport, width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(render_terminal(report))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def brief_text(report: RunReport) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120, color_system=None).print(render_brief(report, "out"))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


RENDERERS = {
    "report.json": report_to_json,
    "report.md": render_markdown,
    "report.txt": terminal_text,
    "report-brief.txt": brief_text,
}


@pytest.mark.parametrize("name", RENDERERS)
def test_golden(name: str, golden: Any) -> None:
    golden(GOLDEN / name, RENDERERS[name](synthetic_report()))


@pytest.mark.parametrize("name", ["report.md", "report.txt"])
def test_golden_of_a_budget(name: str, golden: Any) -> None:
    golden(
        GOLDEN / f"budget-{name}",
        RENDERERS[name](dataclasses.replace(synthetic_report(), budget=synthetic_budget())),
    )


@pytest.mark.parametrize("name", RENDERERS)
def test_golden_of_a_search_that_nobody_asked_for(name: str, golden: Any) -> None:
    golden(
        GOLDEN / f"default-{name}",
        RENDERERS[name](dataclasses.replace(synthetic_report(), budget=synthetic_default())),
    )


@pytest.mark.parametrize("name", RENDERERS)
def test_golden_of_a_network_that_is_not_usable(name: str, golden: Any) -> None:
    golden(GOLDEN / f"ruined-{name}", RENDERERS[name](ruined_report()))


@pytest.mark.parametrize("width", [60, 160])
def test_a_network_that_is_not_usable_is_the_first_thing_said(width: int) -> None:
    said = "loses 92 of 100 answers: not usable"
    report = ruined_report()
    terminal, markdown = terminal_text(report, width), render_markdown(report)
    assert terminal.startswith(said)
    assert markdown.startswith(f"# L{said[1:]}")
    first, second, *_ = json.loads(report_to_json(report)).items()
    assert first[0] == "schema_version"
    assert second[0] == "usability"
    assert second[1]["headline"].startswith(said)
    for text in (terminal, markdown):
        advice = " ".join(text.split())[:500].lower()
        assert all(word in advice for word in ("cut less (--ratio 0.13)", "--finetune", "more images"))


def test_the_colour_of_headline_and_frame_follows_the_grade() -> None:
    def colours(report: RunReport) -> set[str]:
        stream = io.StringIO()
        Console(file=stream, width=100, color_system="standard", force_terminal=True).print(
            render_terminal(report)
        )
        head = stream.getvalue().split("Warnings and notes")[0].splitlines()
        return {code for line in (head[0], head[-2]) for code in re.findall(r"\x1b\[(?:1;)?(3[1-3])m", line)}

    red, green, yellow = {"31"}, {"32"}, {"33"}
    assert colours(synthetic_report()) == green
    assert colours(ruined_report()) == red
    degraded = dataclasses.replace(synthetic_report(), usability=usability(lost=30, gained=0))
    assert degraded.usability is not None
    assert degraded.usability.grade is Grade.DEGRADED
    assert colours(degraded) == yellow


@pytest.mark.parametrize("render", [render_markdown, terminal_text])
def test_the_checks_are_not_taken_for_accuracy(render: typing.Callable[[RunReport], str]) -> None:
    text = " ".join(render(ruined_report()).split())
    assert "checks passed" not in text
    assert "2 steps checked, each computes what its input did; this is not about accuracy" in text


def test_a_report_from_before_usability_is_read_and_shown(tmp_path: Path) -> None:
    report = read_json(GOLDEN / "report-1.1.json")
    assert (report.schema_version, report.usability) == ("1.1", None)
    recovery = report.recovery
    assert (recovery.layers_solved, recovery.layers_changed) == (6, 6)
    assert (recovery.images, recovery.deciding_images, recovery.decision) == (1000, 0, None)
    assert report.accuracy == synthetic_report().accuracy
    assert render_markdown(report).startswith("# edgeprune: ")
    assert "usable" not in terminal_text(report)


def before_units() -> RunReport:
    """The report with the headline of before its interval had a unit."""
    report = synthetic_report()
    assert report.usability is not None
    headline = report.usability.headline.replace(" of 100; ", "; ")
    return dataclasses.replace(report, usability=dataclasses.replace(report.usability, headline=headline))


def test_a_report_from_before_the_default_searched_is_read() -> None:
    report = read_json(GOLDEN / "report-1.2.json")
    assert report.schema_version == "1.2"
    assert report.budget == synthetic_budget()
    before = dataclasses.replace(before_units(), importance=(), operators=None, preprocessing=None)
    assert dataclasses.replace(report, budget=None) == dataclasses.replace(before, schema_version="1.2")


def test_a_report_from_before_sessions_and_with_the_old_name_of_the_ratio_is_read() -> None:
    report = read_json(GOLDEN / "report-1.3.json")
    assert (report.schema_version, report.sessions) == ("1.3", 1)
    assert report.deployment == synthetic_report().deployment
    assert report.deployment.latency_ratio is not None


def test_16_bits_under_their_name_before_1_6_are_read(tmp_path: Path) -> None:
    data = json.loads((GOLDEN / "report-1.5.json").read_text())
    deviation = {
        "reference": "a", "candidate": "b", "max_abs_error": 0.0, "mean_abs_error": 0.0,
        "relative_error": 0.0, "cosine": 1.0, "top1_agreement": None, "images": 1, "by_channel": None,
    }  # fmt: skip
    data["quantization"] = {
        "precision": "fp16", "integer": None, "mixed": None, "halves": {"stored": 3, "kept_float": ["w"]},
        "deviation": deviation, "float_size_bytes": 10,
        "inner": {"compared": 0, "tolerance": 0.1, "first_apart": None, "farthest": None},
    }  # fmt: skip
    path = tmp_path / "report.json"
    path.write_text(json.dumps(data))
    section = read_json(path).quantization
    assert section is not None
    assert section.float16 is not None
    assert section.float16.stored == 3


def test_a_report_from_before_curves_is_read() -> None:
    report = read_json(GOLDEN / "report-1.6.json")
    assert report.curves is None
    assert report == dataclasses.replace(before_units(), curves=None, schema_version="1.6")


def test_a_report_from_before_stored_weights_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = dataclasses.replace(synthetic_report(), quantization=synthetic_quantization())
    write_json(report, path)
    data = json.loads(path.read_text())
    assert data["quantization"]["integer"].pop("stored") == []
    data["schema_version"] = "1.7"
    path.write_text(json.dumps(data))
    assert read_json(path) == dataclasses.replace(report, schema_version="1.7")


def found_by_default(*, confidence: float, more: int | None) -> str:
    """The row that says how sure it is that the delivered network is within the limit."""
    section = synthetic_default()
    candidates = []
    for found in section.candidates:
        assert found.paired is not None
        paired = dataclasses.replace(found.paired, confidence=confidence, images_to_decide=more)
        candidates.append(dataclasses.replace(found, paired=paired))
    budget = dataclasses.replace(section, candidates=tuple(candidates))
    return dict(build_document(dataclasses.replace(synthetic_report(), budget=budget)).verdict)["how sure"]


def test_no_toss_of_a_coin_is_sold_as_a_certainty() -> None:
    assert found_by_default(confidence=0.97, more=None).endswith("at most 1 point with 97% confidence")
    unsure = found_by_default(confidence=0.5, more=2200)
    assert "chosen by that figure; that the true loss is at most 1 point is 50% sure" in unsure
    assert "about 2,200 held-out images would decide at 95% whether it is at most 1 point" in unsure
    assert "too near to the limit" in found_by_default(confidence=0.5, more=None)


@pytest.mark.parametrize("section", [synthetic_budget(), synthetic_default()], ids=["budget", "default"])
def test_a_search_survives_the_round_trip(section: BudgetSection, tmp_path: Path) -> None:
    report = dataclasses.replace(synthetic_report(), budget=section)
    write_json(report, tmp_path / "report.json")
    assert read_json(tmp_path / "report.json") == report


def test_json_round_trip_is_equal(tmp_path: Path) -> None:
    report = synthetic_report()
    write_json(report, tmp_path / "report.json")
    assert read_json(tmp_path / "report.json") == report
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_json_stays_standard_with_a_figure_that_is_not_finite(tmp_path: Path) -> None:
    report = synthetic_report()
    odd = dataclasses.replace(parity("a", "b", float("inf")), cosine=float("nan"))
    write_json(dataclasses.replace(report, parity=(odd,)), tmp_path / "report.json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    back = read_json(tmp_path / "report.json").parity[0]
    assert back.relative_error == float("inf")
    assert back.cosine != back.cosine


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json", "is not JSON"),
        ("[]", "has no schema_version"),
        ('{"model": 1}', "has no schema_version"),
        (
            '{"schema_version": "99.0"}',
            "schema version '99.0', this edgeprune reads '1.9', '1.8', '1.7', '1.6', '1.5', '1.4', '1.3', "
            "'1.2' and '1.1'",
        ),
        (
            '{"schema_version": "1.4"}',
            "does not fit schema 1.4: RunReport: unknown fields [], missing fields",
        ),
    ],
)
def test_read_refuses_what_is_no_report(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        read_json(path)


def test_read_refuses_a_missing_file_and_a_wrongly_typed_field(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_json(tmp_path / "none.json")
    data = json.loads(report_to_json(synthetic_report()))
    data["environment"]["seed"] = "zero"
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="expected int, got 'zero'"):
        read_json(tmp_path / "report.json")


def test_write_to_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(synthetic_report(), tmp_path / "none" / "report.json")


@pytest.mark.parametrize("render", [render_markdown, terminal_text])
def test_every_millisecond_says_how_it_was_obtained(render: typing.Callable[[RunReport], str]) -> None:
    text = re.sub(r"\s+", " ", render(synthetic_report()))
    times = [text[found.end() :][:40] for found in re.finditer(r"[\d.]+ ms\b", text)]
    assert len(times) >= 10
    meanings = "|".join(p.value for p in Provenance)
    assert all(re.match(rf" \(({meanings})[,)]", after) for after in times), times


def test_the_verdict_comes_first_and_holds_the_outcome() -> None:
    head = render_markdown(synthetic_report()).split("## ")[0]
    for fact in ("25.0% fewer MACs", "98.6% -> 98.1%", "96.0% to 99.2%", "-25.0%", "0.81x", "predicted"):
        assert fact in head
    assert "FAILED" not in head


def test_a_failed_check_is_the_first_thing_said() -> None:
    report = synthetic_report()
    bad = dataclasses.replace(
        report, parity=(*report.parity, parity("ONNX", "ORT", 0.5, verdict=Verdict.FAILED))
    )
    head = render_markdown(bad).split("## ")[0]
    assert "A CHECK FAILED" in head
    assert "1 of 3 parity checks (ORT against ONNX)" in head
    assert head.startswith("# A CHECK FAILED")
    assert terminal_text(bad).startswith("A CHECK FAILED")


def test_warnings_and_notes_stand_before_the_tables_once_each() -> None:
    report = synthetic_report()
    warned = dataclasses.replace(report, notes=(*report.notes, *report.calibration.warnings))
    text = render_markdown(warned)
    assert text.count("fewer than 5 images") == 1
    assert text.index("fewer than 5 images") < text.index("## Original and compressed")
    assert "no rule for op" in text
    calm = dataclasses.replace(
        report, notes=(), calibration=dataclasses.replace(report.calibration, warnings=())
    )
    assert "Warnings" not in render_markdown(calm)
    assert "Warnings" not in terminal_text(calm)


def test_without_prediction_ratio_and_timing_the_report_still_renders() -> None:
    report = synthetic_report()
    bare = dataclasses.replace(
        report,
        accuracy_kind=AccuracyKind.RELATIVE_ERROR,
        deployment=dataclasses.replace(
            report.deployment,
            target="host",
            latency_ratio=None,
            original_prediction=None,
            compressed_prediction=None,
            original=dataclasses.replace(report.deployment.original, latency=None),
            compressed=dataclasses.replace(report.deployment.compressed, latency=None),
        ),
    )
    for text in (render_markdown(bare), terminal_text(bare)):
        assert "predicted" not in text
        assert "not measured" in text
        assert "Lower is better" in text
    assert read_back(bare) == bare


def read_back(report: RunReport) -> RunReport:
    from edgeprune.artifacts.codec import from_jsonable

    return from_jsonable(RunReport, json.loads(report_to_json(report)))


def test_names_are_never_read_as_markup() -> None:
    report = synthetic_report()
    assert "odd|name_[bold].safetensors" in terminal_text(report)
    assert "odd\\|name\\_\\[bold\\].safetensors" in render_markdown(report)
    rows = [line for line in render_markdown(report).splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert widths == {3, 4, 5, 8}


def on_terminal(report: RunReport, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(render_terminal(report))
    return console.export_text()


def with_layers(count: int) -> RunReport:
    """The last of ``count`` layers lose most."""
    report = synthetic_report()
    row = report.pruning.layers[0]
    rows = tuple(
        dataclasses.replace(row, layer=f"features.{i}.block.convolution", macs_after=row.macs_before - i)
        for i in range(count)
    )
    return dataclasses.replace(report, pruning=dataclasses.replace(report.pruning, layers=rows))


def test_a_terminal_has_the_layers_that_lost_most_and_the_file_has_all() -> None:
    report = with_layers(49)
    text = on_terminal(report, 100)
    shown = [i for i in range(49) if f"features.{i}.block" in text]
    assert shown == list(range(37, 49))
    assert "The 12 of 49 layers that lost most MACs; report.md has all." in text
    assert all(f"features.{i}.block" in render_markdown(report) for i in range(49))
    assert "that lost most" not in on_terminal(with_layers(12), 100)


def words_of(text: str) -> set[str]:
    """Of four letters or more, but for hexadecimal digits, which are folded anywhere."""
    return {word for word in re.findall(r"[a-z]{4,}", text) if not set(word) <= set("abcdef")}


@pytest.mark.parametrize("width", [72, 80, 100, 120])
@pytest.mark.parametrize("search", [None, synthetic_default(), synthetic_budget()])
def test_no_word_is_broken_or_cut_off_on_a_narrow_terminal(width: int, search: BudgetSection | None) -> None:
    report = dataclasses.replace(with_layers(20), budget=search)
    text = on_terminal(report, width)
    assert max(map(len, text.splitlines())) <= width
    known = words_of(on_terminal(report, 400)) | {"wider", "terminal", "more"}
    assert words_of(text) <= known


@pytest.mark.parametrize("low", [1.01, 0.99])
def test_what_is_slower_is_not_called_usable_alone(low: float) -> None:
    report = synthetic_report()
    ratio = LatencyRatio(ratio=1.05, low=low, high=1.1, confidence=0.95, pairs=100, threads=1)
    here = dataclasses.replace(
        report.deployment,
        target="host", latency_ratio=ratio, original_prediction=None, compressed_prediction=None,
    )  # fmt: skip
    assert report.usability is not None
    found = with_speed(report.usability, here)
    headline = build_document(dataclasses.replace(report, usability=found)).headline
    assert headline is not None
    said = low > 1.0
    assert found.slower is said
    assert headline.text.endswith("; SLOWER than the original (1.05x)") is said
    assert (headline.tone is Tone.DOUBTFUL) is said
    assert ("ship the original" in headline.what_to_do) is said


def test_a_board_where_it_is_predicted_to_be_slower_is_named() -> None:
    report = synthetic_report()
    deployment, usability = report.deployment, report.usability
    assert usability is not None
    assert deployment.compressed_prediction is not None
    slower = dataclasses.replace(deployment.compressed_prediction, latency_ms=9.0)
    found = with_speed(usability, dataclasses.replace(deployment, compressed_prediction=slower))
    assert found.headline.endswith("; predicted SLOWER than the original on rpi4")
    assert with_speed(usability, deployment) == usability


def test_one_file_is_never_called_faster_than_itself() -> None:
    report = synthetic_report()
    same = dataclasses.replace(
        report.deployment, compressed=report.deployment.original, latency_ratio=None, is_original=True
    )
    document = build_document(dataclasses.replace(report, deployment=same))
    assert dict(document.verdict)["speed"] == "the same file as the original's, so nothing was compared"
    (table,) = (t for t in document.tables if t.title == "Original and compressed")
    assert {row[3] for row in table.rows if row[0].startswith(("latency p", "CPU"))} == {""}


def test_the_original_built_as_a_candidate_is_not_told_twice() -> None:
    section = synthetic_default()
    itself = dataclasses.replace(section.original, name="candidate 5")
    section = dataclasses.replace(section, candidates=(*section.candidates, itself), chosen="candidate 5")
    rows = way_rows(section)
    assert [row[0] for row in rows] == ["original", *(f"candidate {i}" for i in range(1, 5))]
    assert rows[0][-1] == "delivered"
    assert "4 candidates" in default_line(section)


def test_time_is_a_sum_of_all_sessions_and_stages() -> None:
    report = synthetic_report()
    times = tuple(
        StageTime(stage=s, duration_s=d) for s, d in (("load", 1.0), ("prune", 2.0), ("prune", 3.0))
    )
    document = build_document(dataclasses.replace(report, stage_times=times, sessions=3))
    (table,) = (t for t in document.tables if t.title == "How it was done")
    assert dict(table.rows)["time"] == "6.00 s in 3 sessions (--resume): load 1.00 s, prune 5.00 s"


def test_escape_leaves_words_alone() -> None:
    assert escape("layer1.conv_2") == "layer1.conv_2"
    assert escape("__init__ a*b <x>") == "\\__init_\\_ a\\*b \\<x>"


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [(0.7, 0.9, "faster"), (0.9, 1.1, "no clear difference"), (1.1, 1.3, "SLOWER")],
)
def test_faster_is_said_only_where_the_interval_says_so(low: float, high: float, meaning: str) -> None:
    ratio = LatencyRatio(ratio=(low + high) / 2, low=low, high=high, confidence=0.95, pairs=9, threads=1)
    assert ratio_meaning(ratio) == meaning


def test_units() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 1536, 5 << 20)] == [
        "0 B",
        "1023 B",
        "1.00 KiB",
        "1.50 KiB",
        "5.00 MiB",
    ]
    assert [format_count(n) for n in (999, 1000, 999_499, 999_500, 40_800_000, 4_100_000_000)] == [
        "999",
        "1.00 k",
        "999 k",
        "1.00 M",
        "40.8 M",
        "4.10 G",
    ]
    assert [significant(x) for x in (0.0, 0.01234, 1.0, 12.345, 1234.5)] == [
        "0.00",
        "0.0123",
        "1.00",
        "12.3",
        "1234",
    ]
    assert [format_change(*pair) for pair in ((4, 3), (2, 3), (5, 5), (0, 3))] == [
        "-25.0%",
        "+50.0%",
        "no change",
        "",
    ]


def reachable(kind: object) -> list[type]:
    """Dataclasses in the fields of ``kind``, itself first."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        inner = [t for hint in typing.get_type_hints(kind).values() for t in reachable(hint)]
        return list(dict.fromkeys([kind, *inner]))
    return [t for part in typing.get_args(kind) for t in reachable(part)]


@pytest.mark.parametrize("kind", reachable(RunReport), ids=lambda kind: kind.__name__)
def test_every_field_of_the_schema_is_documented_and_nothing_else(kind: type) -> None:
    text = (ROOT / "docs" / "report-schema.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    assert kind.__name__ in sections, f"docs/report-schema.md has no section {kind.__name__}"
    described = re.findall(r"^\| `(\w+)` \| \S.* \| \S.* \|$", sections[kind.__name__], flags=re.MULTILINE)
    assert sorted(described) == sorted(f.name for f in dataclasses.fields(kind))


def test_the_documented_schema_version_is_the_current_one() -> None:
    text = (ROOT / "docs" / "report-schema.md").read_text(encoding="utf-8")
    assert f"schema version `{REPORT_SCHEMA_VERSION}`" in text
