"""``edgeprune compare`` and ``edgeprune check`` as a person and a pipeline run them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gate_files import open_onnx, tiny_onnx, tiny_output

import edgeprune
from edgeprune.cli import main
from edgeprune.errors import ProfileError
from edgeprune.gate.outcomes import Decision, GateLimits
from edgeprune.reporting.json_report import read_json, write_json
from edgeprune.system.host import machine_description

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
REPORTS = [
    GOLDEN / f"report{version}.json" for version in ("", "-1.1", "-1.2", "-1.3", "-1.4", "-1.5", "-1.6")
]


def budget(folder: Path, text: str) -> str:
    path = folder / "budget.toml"
    path.write_text(text)
    return str(path)


def checked(capsys: Any, *arguments: str) -> tuple[int, dict[str, str]]:
    """Exit status, and the decision of every check."""
    status = main(["check", *arguments, "--json", "--threads", "1", "-q"])
    out = capsys.readouterr().out
    found = json.loads(out) if out else {"result": {"checks": []}}
    return status, {check["key"]: check["decision"] for check in found["result"]["checks"]}


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=repository, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_pipeline_from_baseline_to_regression_to_new_baseline(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline is committed; a worse change fails by name; committed as the baseline, it passes."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    tiny_output(tmp_path / "baseline")
    limits = budget(tmp_path, "max_size_ratio = 1.02\nmax_drop_points = 1.5\nmax_latency_ratio = 1.5\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "Baseline")
    against = ("--baseline", "baseline", "--budget", limits, "--time-limit", "2s")

    tiny_output(tmp_path / "out")
    assert checked(capsys, "out", *against)[0] == 0

    tiny_output(tmp_path / "out", width=2048, lost=80, seed=1)
    assert main(["check", "out", *against, "--annotations", "--summary", "summary.md"]) == 1
    shown = capsys.readouterr()
    # Lines break, and the larger network may be slower, too.
    told = " ".join(shown.out.split())
    assert "FAILED: ONNX file (max_size_ratio), quality (max_drop_points)" in told
    assert "::error title=edgeprune check%3A quality (max_drop_points)" in shown.err
    assert "❌ edgeprune check: FAILED: ONNX file" in (tmp_path / "summary.md").read_text()

    shutil.copytree(tmp_path / "out", tmp_path / "baseline", dirs_exist_ok=True)
    git(tmp_path, "add", "baseline")
    git(tmp_path, "commit", "-qm", "The larger network is wanted")
    assert checked(capsys, "out", *against)[0] == 0
    assert len(git(tmp_path, "log", "--oneline").splitlines()) == 2


@pytest.mark.parametrize("old", REPORTS, ids=lambda path: path.stem)
def test_reports_of_every_schema_compare_and_are_checked(old: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", str(REPORTS[0]), str(old), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {d["metric"] for d in found["differences"][0]} >= {"size", "latency", "memory", "quality"}
    limits = budget(tmp_path, 'max_size_bytes = "1 MB"\nmax_drop_points = 50\nmax_latency_ms = 100\n')
    assert checked(capsys, str(old), "--budget", limits)[0] == 0


def test_the_default_limits_against_a_report_alone(capsys: Any) -> None:
    status, decisions = checked(capsys, str(REPORTS[0]), "--baseline", str(REPORTS[0]))
    assert status == 3
    assert decisions["max_size_ratio"] == "passed"
    assert decisions["max_drop_points"] == "inconclusive"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("max_size_bytes = 10", 1),
        ("min_agreement = 0.5", 0),
        ("min_agreement = 0.9967", 3),
        ("max_drop_points = 0", 3),
        ("max_drop_points = 5", 0),
        ("max_memory_bytes = 100", 1),
        ("max_memory_ratio = 10", 2),
        ("max_latency_ms = '10 s'", 0),
        ("max_latency_ms = '1 us'", 1),
        ("max_latency_ratio = 5", 0),
        ("max_error = 1", 2),
        ("min_measure = 0.99", 3),
        ("max_siz = 1", 2),
    ],
)
def test_statuses(text: str, status: int, tmp_path: Path, capsys: Any) -> None:
    out = tiny_output(tmp_path / "out")
    given = ("--budget", budget(tmp_path, text), "--time-limit", "5s")
    assert checked(capsys, str(out), *given)[0] == status
    if status == 3:
        assert checked(capsys, str(out), *given, "--inconclusive", "pass")[0] == 0
        assert checked(capsys, str(out), *given, "--inconclusive", "fail")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no model was given"),
        (("OUT",), "nothing was given to check against"),
        (("OUT", "--baseline", "nowhere"), "'nowhere' does not exist; accepted are a folder"),
        (("EMPTY", "--baseline", "OUT"), "holds neither report.json nor model.onnx"),
        (("OUT", "--baseline", "BROKEN"), "is not valid ONNX|cannot be read|no valid ONNX"),
        (("OUT", "--baseline", "OUT", "--time-limit", "5"), "accepted is a time with its unit"),
        (("OUT", "--baseline", "OUT", "--junit", "no/such/folder.xml"), "cannot be written"),
    ],
)
def test_every_error_is_status_2(arguments: tuple[str, ...], told: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    places = {
        "OUT": str(tiny_output(tmp_path / "out")),
        "EMPTY": str(tmp_path / "empty"),
        "BROKEN": str(tmp_path / "broken.onnx"),
    }
    assert main(["check", *(places.get(each, each) for each in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert any(part in error for part in told.split("|")), error


def test_files_alone_are_measured_in_rounds(tmp_path: Path, capsys: Any) -> None:
    first, second = tiny_onnx(tmp_path / "a.onnx", 64), tiny_onnx(tmp_path / "b.onnx", 16384, seed=1)
    limits = GateLimits(max_latency_ratio=1.5)
    slower = edgeprune.check(second, baseline=first, budget=limits, time_limit_s=20, threads=1)
    rounds = slower.checks[0].rounds
    assert rounds is not None
    assert (slower.decision, rounds.decision) == (Decision.FAILED, Decision.FAILED)
    assert rounds.rounds >= 9
    assert rounds.low > 1.5
    same = edgeprune.check(first, baseline=first, budget=limits, threads=1)
    assert same.checks[0].rounds is None
    assert same.decision is Decision.PASSED


def test_files_of_open_sizes_are_measured_at_the_size_that_is_given(tmp_path: Path, capsys: Any) -> None:
    first, second = open_onnx(tmp_path / "a.onnx"), open_onnx(tmp_path / "b.onnx", channels=8)
    limits = budget(tmp_path, "max_size_ratio = 10\nmax_memory_ratio = 10\nmax_latency_ratio = 100\n")
    check = (str(second), "--baseline", str(first), "--budget", limits)
    assert main(["check", *check]) == 2
    assert "such as --input-shape 3x224x224" in capsys.readouterr().err
    status, decisions = checked(capsys, *check, "--input-shape", "3x12x10")
    assert (status, set(decisions.values())) == (0, {"passed"})

    compare = ("compare", str(first), str(second), "--threads", "1", "--json")
    assert main([*compare]) == 10
    assert "such as --input-shape 3x224x224" in capsys.readouterr().err
    assert main([*compare, "--input-shape", "3x12x10"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [model["size_bytes"] for model in found["models"]] == [p.stat().st_size for p in (first, second)]
    assert [model["macs"] for model in found["models"]] == [80 * 27 * channels for channels in (4, 8)]
    assert {"latency", "memory"} <= {each["metric"] for each in found["differences"][0]}
    assert found["notes"] == [f"Open sizes of images were fixed at 3x12x10: {first}, {second}."]
    with pytest.raises(ProfileError, match=r"--input-shape 3x12 was given; accepted are the"):
        edgeprune.compare((first, second), input_shape=(3, 12))


def test_time_that_is_up_is_inconclusive(tmp_path: Path) -> None:
    first, second = tiny_onnx(tmp_path / "a.onnx"), tiny_onnx(tmp_path / "b.onnx", seed=1)
    limits = GateLimits(max_latency_ratio=1.5)
    found = edgeprune.check(second, baseline=first, budget=limits, time_limit_s=0.01, threads=1)
    assert found.exit_status == 3
    assert found.checks[0].rounds is not None
    assert found.checks[0].rounds.rounds == 1


def test_points_of_different_measures_are_not_subtracted(tmp_path: Path, capsys: Any) -> None:
    out, other = tiny_output(tmp_path / "out"), tiny_output(tmp_path / "other", seed=1)
    report = read_json(other / "report.json")
    kinds = type(report.accuracy_kind)
    write_json(replace(report, accuracy_kind=kinds.MEAN_IOU), other / "report.json")
    assert main(["compare", str(out), str(other), "--no-measure"]) == 2
    assert "was judged by mean IoU" in capsys.readouterr().err


def test_reports_of_one_original_are_compared_through_it(tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        tiny_output(tmp_path / name)
    limits = budget(tmp_path, "max_latency_ratio = 3\nmax_drop_points = 3")
    given = [str(tmp_path / name / "report.json") for name in ("a", "b")]
    assert checked(capsys, given[0], "--baseline", given[1], "--budget", limits)[0] == 0


def test_compare_names_the_machine_that_a_file_alone_was_measured_on(tmp_path: Path, capsys: Any) -> None:
    """The word "host" beside the name of a machine would read as another machine."""
    tiny_onnx(tmp_path / "alone.onnx", width=8)
    out = str(tiny_output(tmp_path / "out"))
    assert main(["compare", out, str(tmp_path / "alone.onnx"), "--threads", "1", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models[1]["provenance"] == "measured on this host"
    assert models[1]["latency_of"] == machine_description()


def test_compare_writes_markdown_and_a_page(tmp_path: Path, capsys: Any) -> None:
    outputs = [str(tiny_output(tmp_path / name, width=width)) for name, width in (("a", 8), ("b", 32))]
    markdown, page = tmp_path / "c.md", tmp_path / "c.html"
    files = ("--markdown", str(markdown), "--html", str(page))
    assert main(["compare", *outputs, outputs[0], *files, "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Differences against A" in shown
    assert "interleaved pairs" in shown
    assert "the same file" in shown
    assert markdown.read_text().startswith("# Models compared")
    assert "<table>" in page.read_text()
    assert main(["compare", outputs[0]]) == 2
    assert "two or more folders" in capsys.readouterr().err


def test_init_writes_an_example_that_is_not_replaced(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--init"]) == 0
    text = (tmp_path / "budget.toml").read_text()
    assert main(["check", "--init"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "budget.toml").read_text() == text
