"""``edgeprune compress`` within a budget, as typed."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small_project import DIGITS_DATA, DIGITS_MODEL, networks, sentence, signalled

from edgeprune import apply_surgery
from edgeprune.errors import SurgeryError

SMALL = (
    "compress", "small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1",
    "--width-quantum", "1", "--effort", "quick",
)  # fmt: skip


def search_in(edgeprune: Any, folder: Path, *command: str) -> dict[str, Any]:
    done = edgeprune(*command, "--json", "-o", str(folder))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.wide
def test_three_limits_at_once_hold_on_the_artefact(edgeprune: Any, tmp_path: Path) -> None:
    report = search_in(
        edgeprune, tmp_path / "out", "compress", *DIGITS_MODEL, "--calibration", DIGITS_DATA,
        "--max-images", "80", "--threads", "1", "--target", "rpi4", "--effort", "quick",
        "--max-latency", "80%", "--max-size", "150kB", "--max-drop", "50",
    )  # fmt: skip
    search, deployment = report["budget"], report["deployment"]
    chosen = next(c for c in search["candidates"] if c["name"] == search["chosen"])
    assert chosen["exceeded"] == []
    assert 0.5 < chosen["latency_share"] <= 0.8
    assert deployment["compressed_prediction"]["latency_ms"] == pytest.approx(chosen["latency_ms"])
    assert deployment["compressed"]["size_bytes"] == chosen["size_bytes"] <= 150_000
    quality = [figure["value"] for figure in report["accuracy"]]
    assert chosen["drop_points"] == pytest.approx(100 * (quality[0] - quality[2]))
    assert report["pruning"]["macs_removed_share"] == pytest.approx(1 - chosen["macs_share"])
    assert any(
        abs(share - 1) < 0.03 for share in (chosen["latency_share"] / 0.8, chosen["size_bytes"] / 150_000)
    )


def test_on_this_host_latency_is_measured(edgeprune: Any, tmp_path: Path) -> None:
    # Half of the MACs of so small a network may take any time on a busy machine; what counts is who says so.
    command = (*SMALL, "--max-latency", "400%", "--ratio", "0.5")
    search = search_in(edgeprune, tmp_path / "out", *command)["budget"]
    chosen = next(c for c in search["candidates"] if c["name"] == search["chosen"])
    assert chosen["latency_provenance"] == "measured on this host"
    share = chosen["latency_ms"] / search["original"]["latency_ms"]
    assert chosen["latency_share"] == pytest.approx(share, rel=1e-12)  # a product, divided again
    assert chosen["latency_share"] <= 4.0
    assert chosen["macs_share"] <= 0.5


@pytest.mark.wide
def test_a_killed_search_goes_on_and_ends_the_same(project: Path, edgeprune: Any, tmp_path: Path) -> None:
    asked = (*SMALL, "--target", "rpi4", "--max-size", "3000B")
    journal = tmp_path / "out.journal"
    killed = signalled(
        *asked, "-o", str(tmp_path / "out"), cwd=project, scratch=tmp_path / "killed",
        by=signal.SIGKILL, when=lambda _said: (journal / "candidates" / "candidate-1").exists(),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    built = (journal / "candidates" / "candidate-1" / "candidate.json").stat().st_mtime_ns
    assert "add --resume" in sentence(edgeprune(*asked, "-o", str(tmp_path / "out")), 2)
    assert "begun with another budget" in sentence(
        edgeprune(*asked, "--max-drop", "9", "--resume", "-o", str(tmp_path / "out")), 2
    )
    resumed = search_in(edgeprune, tmp_path / "out", *asked, "--resume")
    assert not journal.exists()
    straight = search_in(edgeprune, tmp_path / "straight", *asked)
    assert resumed["budget"] == straight["budget"]
    assert len(resumed["budget"]["candidates"]) > 1
    first = tmp_path / "out" / "candidates" / "candidate-1" / "candidate.json"
    assert first.stat().st_mtime_ns == built
    for name in ("weights.safetensors", "surgery.json", "model.onnx"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    picked = edgeprune("pick", str(tmp_path / "out"), "--max-drop", "100", "--json")
    assert json.loads(picked.stdout)["budget"]["chosen"] in {
        c["name"] for c in resumed["budget"]["candidates"]
    }


def test_out_of_reach_says_what_binds_and_what_comes_nearest(edgeprune: Any, tmp_path: Path) -> None:
    done = edgeprune(*SMALL, "--target", "rpi4", "--max-size", "1kB", "-o", str(tmp_path / "out"))
    assert "the budget is out of reach" in sentence(done, 12)
    assert {path.name for path in tmp_path.iterdir()} == {"scratch"}


def test_a_dry_run_predicts_the_costs_of_the_first_plan(edgeprune: Any) -> None:
    asked = (*SMALL, "--target", "rpi4", "--max-size", "4kB", "--dry-run")
    done = edgeprune(*asked, "--max-drop", "5", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    (size,) = plan["predicted"]
    assert size["cost"] == "size"
    assert 0.8 * size["limit_share"] < size["share"] <= size["limit_share"] < 1
    assert plan["macs_after"] < plan["macs_before"]
    assert any("what is lost is not predicted" in note for note in plan["notes"])
    held = edgeprune(*SMALL, "--target", "rpi4", "--max-latency", "100%", "--dry-run")
    assert "latency: 100.0% of the original predicted, 100.0% allowed" in held.stdout
    assert "note: the original already holds the budget, so nothing would be removed" in held.stdout


@pytest.mark.wide
def test_a_block_that_hardly_adds_anything_goes_as_a_whole(
    edgeprune: Any, project: Path, tmp_path: Path
) -> None:
    asked = (
        "compress", "blocks.pt", "--arch", "nets.py:blocks", "--calibration", "flat", "--threads", "1",
        "--width-quantum", "4", "--target", "rpi4", "--effort", "quick", "--max-latency", "85%",
    )  # fmt: skip
    report = search_in(edgeprune, tmp_path / "out", *asked)
    chosen = next(c for c in report["budget"]["candidates"] if c["name"] == report["budget"]["chosen"])
    assert report["pruning"]["blocks_dropped"] == chosen["dropped"] == ["blocks.1"]
    widths = {row["layer"]: row["channels_after"] for row in report["pruning"]["layers"]}
    assert (widths["blocks.1.0"], widths["blocks.1.2"]) == (0, 0)
    assert widths["blocks.2.0"] > 0
    assert "blocks dropped" in [figure["candidate"] for figure in report["parity"]]
    assert report["pruning"]["macs_removed_share"] == pytest.approx(1 - chosen["macs_share"])
    recipe = json.loads((tmp_path / "out" / "surgery.json").read_text())
    assert (recipe["schema_version"], recipe["dropped_blocks"]) == ("1.3", ["blocks.1"])
    assert not any(
        name.startswith("blocks.1.") for name in load_file(tmp_path / "out" / "weights.safetensors")
    )
    with pytest.raises(SurgeryError, match=r"drops whole residual blocks \('blocks.1'\)"):
        apply_surgery(networks(project).blocks().eval(), tmp_path / "out" / "surgery.json")
    kept = edgeprune(*asked, "--mean", "0", "--std", "1", "--keep-blocks", "-o", str(tmp_path / "kept"))
    assert "latency binds: the nearest of 3 candidates" in sentence(kept, 12)


@pytest.mark.wide
def test_blocks_go_where_only_the_drop_is_limited(edgeprune: Any, tmp_path: Path) -> None:
    asked = (
        "compress", "blocks.pt", "--arch", "nets.py:blocks", "--calibration", "flat", "--threads", "1",
        "--width-quantum", "4", "--target", "rpi4", "--effort", "quick", "--max-drop", "4",
    )  # fmt: skip
    report = search_in(edgeprune, tmp_path / "out", *asked)
    kept = search_in(edgeprune, tmp_path / "kept", *asked, "--keep-blocks")

    def chosen(found: Any) -> Any:
        return next(c for c in found["budget"]["candidates"] if c["name"] == found["budget"]["chosen"])

    assert "blocks.1" in chosen(report)["dropped"]
    assert chosen(kept)["dropped"] == []
    assert chosen(report)["latency_share"] < chosen(kept)["latency_share"] < 1
    for found in (report, kept):
        allowed = [c for c in found["budget"]["candidates"] if c["drop_points"] <= 4]
        assert chosen(found)["latency_share"] == min(c["latency_share"] for c in allowed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-latency", "40"), "--max-latency 40 was given"),
        (("--max-size", "4"), "--max-size 4 was given"),
        (("--max-memory", "x"), "--max-memory x was given"),
        (("--max-drop", "-1%"), "--max-drop -1% was given"),
        (("--max-drop", "1", "--dry-run"), "a dry run was asked for with a limit on the drop alone"),
    ],
)
def test_bad_limits_are_refused(edgeprune: Any, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert said in sentence(edgeprune(*SMALL, *options, "-o", str(tmp_path / "out")), 2)
