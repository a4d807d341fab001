"""``edgeprune rank`` as typed: files, figures that hold together, layers, criteria, refusals, Ctrl-C."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from small_project import (
    DIGITS_DATA,
    DIGITS_MODEL,
    interrupted,
    leftovers,
    run,
    sentence,
    snapshot,
)

CRITERIA = ("hybrid", "l1", "taylor-squared", "random")
SMALL = ("rank", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz")
FILES = {
    "coalition-sizes.svg",
    "manifest.json",
    "ranking.csv",
    "ranking.html",
    "ranking.json",
    "removal-curves-masked.svg",
    "removal-curves.svg",
}


def asked(*names: str) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(("--criterion", name) for name in names))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The digits example ranked by four criteria."""
    base = tmp_path_factory.mktemp("ranked")
    done = run(
        "rank", *DIGITS_MODEL, "--calibration", DIGITS_DATA, *asked(*CRITERIA), "--recover-at", "0.5",
        "--threads", "1", "-o", "out", cwd=base, scratch=base / "scratch",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return base / "out", done


@pytest.fixture(scope="module")
def report(ranked: Any) -> Any:
    return json.loads((ranked[0] / "ranking.json").read_text())


@pytest.mark.wide
def test_the_folder_holds_the_files_and_nothing_else_is_left(ranked: Any) -> None:
    folder, done = ranked
    assert {p.name for p in folder.iterdir()} == FILES | {f"values-{name}.svg" for name in CRITERIA}
    assert {p.name for p in folder.parent.iterdir()} == {"out", "scratch"}
    assert leftovers(folder.parent / "scratch") == []
    assert "written to out" in done.stderr
    for svg in folder.glob("*.svg"):
        ElementTree.fromstring(svg.read_text())
    page = (folder / "ranking.html").read_text()
    assert page.count("<svg") == len(list(folder.glob("*.svg")))
    listed = json.loads((folder / "manifest.json").read_text())["outputs"]
    assert {f["path"] for f in listed} == {p.name for p in folder.iterdir()} - {"manifest.json"}


@pytest.mark.wide
def test_the_json_follows_the_schema(ranked: Any, report: Any) -> None:
    from edgeprune.reporting.ranking.files import read_ranking

    assert read_ranking(ranked[0] / "ranking.json").settings.criteria == CRITERIA
    assert report["schema_version"] == "2.0"
    assert report["settings"]["ratio"] == 0.25
    assert report["removal"]["quality_kind"] == "top-1 accuracy"
    assert report["removal"]["axis"] == "MACs"
    assert report["loss"] == "cross-entropy with the labels"
    assert sum(len(g["channels"]) for g in report["groups"]) == report["players"] == 224
    assert {"capture", "rank by hybrid", "rank by l1", "coalition sizes", "removal curves"} <= set(
        report["durations_s"]
    )


@pytest.mark.wide
def test_every_player_has_a_row_for_every_criterion(ranked: Any, report: Any) -> None:
    rows = list(csv.DictReader((ranked[0] / "ranking.csv").read_text().splitlines()))
    assert Counter(r["criterion"] for r in rows) == dict.fromkeys(CRITERIA, 224)
    for found in report["criteria"]:
        own = [r for r in rows if r["criterion"] == found["name"]]
        assert sorted(int(r["rank_in_network"]) for r in own) == list(range(1, 225))
        for group, figures in zip(report["groups"], found["groups"], strict=True):
            part = [r for r in own if r["group"] == group["name"]]
            assert [int(r["channel"]) for r in part] == group["channels"]
            assert [float(r["value"]) for r in part] == figures["values"]
            costs = [float(r["removal_cost"]) for r in part]
            assert costs == figures["removal_costs"]
            by_rank = [costs[i] for i in np.argsort([int(r["rank_in_group"]) for r in part])]
            assert by_rank == sorted(costs, reverse=True)
            errors = [float(r["standard_error"]) if r["standard_error"] else None for r in part]
            assert errors == (figures["standard_errors"] or [None] * len(part))
    assert all(r["standard_error"] for r in rows if r["criterion"] == "hybrid")
    assert not any(r["standard_error"] for r in rows if r["criterion"] == "l1")


@pytest.mark.wide
def test_over_the_network_the_cost_of_a_mac_decides(report: Any) -> None:
    for found in report["criteria"]:
        ranks, prices = [], []
        for group, figures in zip(report["groups"], found["groups"], strict=True):
            ranks += figures["ranks_in_network"]
            prices += [cost / group["macs_of_channel"] for cost in figures["removal_costs"]]
        assert np.array_equal(np.array(prices)[np.argsort(ranks)], sorted(prices, reverse=True))


@pytest.mark.wide
@pytest.mark.parametrize("absent", ["reconstructed", "masked"])
def test_the_areas_follow_from_the_points(report: Any, absent: str) -> None:
    curves = report["removal"][absent]
    assert [c["criterion"] for c in curves] == list(CRITERIA)
    for curve in curves:
        points = curve["points"]
        assert 9 <= len(points) <= 12
        assert (points[0]["removed"], points[-1]["removed"]) == (0, 224 - len(report["groups"]))
        assert points[0]["quality"] == curves[0]["points"][0]["quality"] > 0.9
        shares = np.array([p["macs_removed_share"] for p in points])
        assert (np.diff(shares) > 0).all()
        for measure in ("quality", "loss"):
            heights = np.array([p[measure] for p in points])
            mean = float(
                (np.diff(shares) * (heights[1:] + heights[:-1]) / 2).sum() / (shares[-1] - shares[0])
            )
            assert curve[f"{measure}_auc"] == pytest.approx(mean, rel=1e-9)
            assert 0 < curve[f"{measure}_auc_standard_error"] < 0.2 * max(1.0, mean)
    assert len({c["points"][-1]["macs_removed_share"] for c in curves}) == 1, "areas over the same range"


@pytest.mark.wide
def test_both_treatments_follow_the_same_removals(report: Any) -> None:
    removal = report["removal"]
    assert removal["reconstructing_points"] == removal["mask_points"] == 5
    for rebuilt, masked in zip(removal["reconstructed"], removal["masked"], strict=True):
        assert rebuilt["criterion"] == masked["criterion"]
        for a, b in zip(rebuilt["points"], masked["points"], strict=True):
            assert (a["removed"], a["macs_removed_share"]) == (b["removed"], b["macs_removed_share"])
        assert rebuilt["points"][0]["quality"] == masked["points"][0]["quality"]
        assert rebuilt["points"][0]["loss"] == pytest.approx(masked["points"][0]["loss"], rel=1e-3)
        assert rebuilt["quality_auc"] > masked["quality_auc"] + 0.1


@pytest.mark.wide
def test_the_network_is_recovered_at_the_cut_asked_for(report: Any) -> None:
    removal = report["removal"]
    assert report["settings"]["recover_at"] == [0.5]
    assert [r["criterion"] for r in removal["recovered"]] == list(CRITERIA)
    for found, curve in zip(removal["recovered"], removal["reconstructed"], strict=True):
        (network,) = found["points"]
        assert 0.5 <= network["macs_removed_share"] < 0.53
        beyond = next(p for p in curve["points"] if p["macs_removed_share"] >= 0.5)
        assert network["removed"] <= beyond["removed"]
        assert network["loss"] < beyond["loss"]
        assert network["quality"] > 0.95
    assert report["durations_s"]["recover"] > 0


@pytest.mark.wide
def test_ours_leads_by_what_is_delivered_on_the_example(report: Any) -> None:
    """By more than three standard errors of the difference, were the errors independent."""
    ours, *others = report["removal"]["reconstructed"]
    assert ours["criterion"] == "hybrid"
    for other in others:
        for measure, sign in (("quality", 1), ("loss", -1)):
            error = sum(c[f"{measure}_auc_standard_error"] ** 2 for c in (ours, other)) ** 0.5
            assert sign * (ours[f"{measure}_auc"] - other[f"{measure}_auc"]) > 3 * error, other["criterion"]


@pytest.mark.wide
def test_coalition_sizes_go_from_nobody_to_everybody(report: Any) -> None:
    (curve,) = report["coalition_sizes"]
    points = curve["points"]
    assert [p["present"] for p in points] == [round(s * 22.4) for s in range(11)]
    assert (points[0]["coalitions"], points[-1]["coalitions"]) == (1, 1)
    assert all(p["coalitions"] == 16 for p in points[1:-1])
    assert all(p["lowest"] <= p["mean"] <= p["highest"] for p in points)
    assert points[-1]["mean"] > points[0]["mean"]


@pytest.mark.wide
def test_the_terminal_shows_layers_and_areas(ranked: Any, report: Any) -> None:
    text = ranked[1].stdout
    for group in report["groups"]:
        assert group["name"] in text
    assert "leaves first" in text
    assert text.index("Recovered networks") < text.index("Absent channels reconstructed: ")
    recovered = text[text.index("Recovered networks") : text.index("Absent channels reconstructed: ")]
    shown = [line.split()[1] for line in recovered.splitlines() if " ± 0." in line]
    best = sorted(report["removal"]["recovered"], key=lambda r: r["points"][0]["loss"])
    assert shown == [r["criterion"] for r in best]
    leading, masked = text.split("Absent channels masked: ")
    leading = leading.split("Absent channels reconstructed: ")[1]
    for table, curves in ((leading, "reconstructed"), (masked, "masked")):
        shown = [line.split()[0] for line in table.splitlines() if " ± 0." in line]
        best = sorted(report["removal"][curves], key=lambda c: -c["quality_auc"])
        assert shown == [c["criterion"] for c in best]
        for curve in best:
            assert f"{curve['quality_auc']:.3f} ± " in table
            assert f"{curve['loss_auc']:.3f} ± " in table


@pytest.mark.wide
def test_hybrid_ranks_as_compress_does(report: Any) -> None:
    """The same evidence and random state: what ``compress`` removes first stands last here."""
    import edgeprune
    from edgeprune.commands.run import stages
    from edgeprune.commands.run.state import Run
    from edgeprune.options.runs import CompressOptions

    path, _, architecture = DIGITS_MODEL
    options = CompressOptions(model=path, calibration=DIGITS_DATA, arch=architecture)
    started = Run(options=options)
    prepared = stages.prepare(started)
    costs = stages.plan(started, prepared).ranking.removal_costs
    found = next(c for c in report["criteria"] if c["name"] == "hybrid")
    for group, figures in zip(prepared.coupling.groups, found["groups"], strict=True):
        assert figures["removal_costs"] == pytest.approx(costs[list(group.players)], rel=1e-5)
    assert callable(edgeprune.rank)


def test_the_same_seed_gives_the_same_bytes_and_json_is_the_report(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    command = (*SMALL, *asked("hybrid", "random"), "--threads", "1", "--effort", "quick")
    first = edgeprune(*command, "-o", str(tmp_path / "a"), "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == json.loads((tmp_path / "a" / "ranking.json").read_text())
    again = edgeprune(*command, "-o", str(tmp_path / "b"), "-q")
    assert (again.returncode, again.stderr) == (0, "")
    other = edgeprune(*command, "-o", str(tmp_path / "c"), "-q", "--seed", "1")
    assert other.returncode == 0

    def written(name: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.suffix != ".json"}

    def figures(name: str) -> Any:
        found = json.loads((tmp_path / name / "ranking.json").read_text())
        assert found.pop("durations_s")
        return found

    assert written("a") == written("b")
    assert figures("a") == figures("b")
    assert written("a")["values-random.svg"] != written("c")["values-random.svg"]
    assert set(figures("a")["versions"]) == {"edgeprune", "numpy", "python", "torch"}


def test_a_layer_alone(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    """Unlabelled images, no --output: the folder is named after the model."""
    for name in ("nets.py", "small.pt"):
        (tmp_path / name).write_bytes((project / name).read_bytes())
    done = edgeprune(
        "rank", "small.pt", "--arch", "nets.py:small", "--calibration", str(project / "flat"),
        *asked("l2", "l2"), "--layer", "second", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "small-ranking" / "ranking.json").read_text())
    assert [g["layers"] for g in found["groups"]] == [["second"]]
    assert found["settings"]["layers"] == ["second"]
    assert [c["name"] for c in found["criteria"]] == ["l2"], "asked twice, given once"
    assert (found["players"], found["removal"]["filters"]) == (16, 8)
    assert found["removal"]["axis"] == "filters"
    assert found["removal"]["quality_kind"] == "top-1 agreement with the original"
    (curve,) = found["removal"]["reconstructed"]
    assert [p["removed"] for p in curve["points"]] == list(range(8))
    assert curve["points"][0]["quality"] == 1.0
    assert [(c["scope"], c["players"]) for c in found["coalition_sizes"]] == [("second", 8)]
    assert "8 of 16 prunable channels" in done.stdout


BAD = {
    "unknown layer": (("--layer", "secnd"), 2, ("no layer 'secnd'", "did you mean 'second'", "Accepted are")),
    "layer that stays": (("--layer", "head"), 2, ("no channel of layer 'head'", "output of the model")),
    "unknown criterion": (("--criterion", "hybird"), 2, ("no criterion 'hybird'", "did you mean 'hybrid'")),
    "too few evaluations": (("--max-evaluations", "1"), 2, ("max_evaluations=1", "too few", "need 3")),
    "no share to recover at": (("--recover-at", "1.5"), 2, ("--recover-at 1.5", "between 0 and 1")),
    "more than there is to remove": (("--recover-at", "0.999"), 2, ("--recover-at 0.999", "up to that")),
    "ratio": (("--ratio", "2"), 2, ("ratio 2 is not accepted", "between 0 and 1")),
    "no such data": (("--calibration", "nowhere"), 4, ("nowhere",)),
    "no such model": (("--arch", "nets.py:colour"), 3, ("do not fit",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(
    case: str, project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    options, status, parts = BAD[case]
    before = snapshot(project)
    said = sentence(edgeprune(*SMALL, *options, "-o", str(tmp_path / "out")), status)
    for part in parts:
        assert part in said
    assert not (tmp_path / "out").exists()
    assert snapshot(project) == before


def test_nothing_to_rank(project: Path, tmp_path: Path, edgeprune: Any) -> None:
    said = sentence(
        edgeprune(
            "rank", "linear.pt", "--arch", "nets.py:linear", "--calibration", "grey.npz",
            "-o", str(tmp_path / "out"),
        ),
        6,
    )  # fmt: skip
    assert "nothing to rank" in said


def test_an_existing_output_is_replaced_only_on_request(tmp_path: Path, edgeprune: Any) -> None:
    command = (*SMALL, *asked("l1"), "-o", str(tmp_path / "out"))
    assert edgeprune(*command).returncode == 0
    before = snapshot(tmp_path / "out")
    assert "--overwrite" in sentence(edgeprune(*command), 7)
    assert snapshot(tmp_path / "out") == before
    (tmp_path / "out" / "of mine").write_text("x")  # which no manifest lists
    done = edgeprune(*SMALL, *asked("l2"), "-o", str(tmp_path / "out"), "--overwrite")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES | {"values-l2.svg", "of mine"}


def test_ctrl_c_leaves_nothing(project: Path, tmp_path: Path) -> None:
    before = snapshot(project)
    options = (*SMALL, "--criterion", "l1", "-o", str(tmp_path / "a" / "out"))
    done = interrupted(project, tmp_path / "scratch", "coalition sizes", *options, delay_s=0.02)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "interrupted: nothing was written"
    assert not (tmp_path / "a").exists()
    assert snapshot(project) == before
    assert leftovers(tmp_path / "scratch") == []


def test_the_python_api_writes_only_where_it_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeprune
    from edgeprune.errors import UsageError

    monkeypatch.chdir(project)
    before = snapshot(project)
    given: dict[str, Any] = {
        "calibration": project / "grey.npz",
        "arch": "nets.py:small",
    }
    found = edgeprune.rank(project / "small.pt", criteria=("l1",), **given)
    assert [c.name for c in found.criteria] == ["l1"]
    assert len(found.groups) == 2
    assert snapshot(project) == before
    with pytest.raises(UsageError, match="no criterion was given"):
        edgeprune.rank(project / "small.pt", criteria=(), **given)
    with pytest.raises(UsageError, match="--max-evaluations 0"):
        edgeprune.rank(project / "small.pt", max_evaluations=0, **given)
