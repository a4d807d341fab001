"""``edgeprune sweep`` and ``edgeprune cache`` on the real process, with real cells."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from small_project import other_lines, sentence, signalled

from edgeprune.storage.outputs import MANIFEST_NAME

SWEEP = """
targets = ["rpi4", "n100"]
[[models]]
model = "{project}/small.pt"
arch = "{project}/nets.py:small"
calibration = "{project}/grey.npz"
[[budgets]]
name = "quarter"
ratio = 0.25
[options]
effort = "quick"
pictures = false
"""
WEIGHTS = ("model.onnx", "weights.safetensors", "surgery.json")
NAMES = ("small_rpi4_quarter_fp32", "small_n100_quarter_fp32")
ALONE = ("--effort", "quick", "--threads", "1", "--no-pictures", "--ratio", "0.25")


ASKED = ("sweep", "s.toml", "-o", "out", "--cache", "cache", "--max-parallel", "1")


def same_bytes(one: Path, two: Path) -> bool:
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in WEIGHTS)


@pytest.fixture(scope="module")
def swept(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a sweep of one cell, and its report."""
    from small_project import run_forked

    folder = tmp_path_factory.mktemp("swept")
    (folder / "s.toml").write_text(SWEEP.format(project=project).replace('"rpi4", ', ""))
    done = run_forked(*ASKED, "--json", cwd=folder, scratch=folder / "scratch")
    assert done.returncode == 0, done.stderr
    assert other_lines(done.stderr) == ["written to out"]
    assert f"cell {NAMES[1]} (1 of 1): done in" in done.stderr
    return folder, json.loads(done.stdout)


def test_a_cell_is_what_compress_gives_byte_for_byte(
    swept: tuple[Path, Any], project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    folder, report = swept
    assert [cell["name"] for cell in report["cells"]] == [NAMES[1]]
    assert json.loads((folder / "out" / "sweep.json").read_text()) == report
    counts = {shared["stage"]: (shared["computed"], shared["taken"]) for shared in report["shared"]}
    assert counts == {"statistics": (1, 1), "ranking": (1, 0), "recovery": (1, 0), "curves": (1, 0)}
    assert not (folder / "out.journal").exists()
    model = ("small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", *ALONE)
    done = edgeprune("compress", *model, "--target", "n100", "-o", str(tmp_path / "alone"))
    assert done.returncode == 0, done.stderr
    assert same_bytes(tmp_path / "alone", folder / "out" / report["cells"][0]["folder"])


@pytest.mark.wide
def test_a_stopped_sweep_goes_on_behind_its_finished_cell_and_shares_its_ranking(
    swept: tuple[Path, Any], project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    folder, report = swept
    (tmp_path / "s.toml").write_text(SWEEP.format(project=project))
    stopped = signalled(
        *ASKED, cwd=tmp_path, scratch=tmp_path / "stopped", by=signal.SIGINT,
        when=lambda said: f"cell {NAMES[1]} begins" in said, delay_s=0.3,
    )  # fmt: skip
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == (
        f"interrupted: 1 finished cell kept in {tmp_path}/out.journal; run the same command with "
        "--resume to go on"
    )
    assert not (tmp_path / "out").exists()
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".edgeprune")]
    assert "add --resume" in sentence(edgeprune(*ASKED, cwd=tmp_path), 2)
    done = edgeprune(*ASKED, "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"cell {NAMES[0]} (1 of 2): done before" in done.stderr
    resumed = json.loads(done.stdout)
    assert [cell["attempts"] for cell in resumed["cells"]] == [0, 1]
    assert {shared["stage"]: shared["computed"] for shared in resumed["shared"]} == dict.fromkeys(
        ("statistics", "ranking", "recovery", "curves"), 1
    )
    cell = report["cells"][0]["folder"]
    assert same_bytes(tmp_path / "out" / cell, folder / "out" / cell)


def test_the_cache_of_a_sweep_is_listed_checked_and_emptied(swept: tuple[Path, Any], edgeprune: Any) -> None:
    folder = swept[0]
    listed = edgeprune("cache", "list", "--cache", str(folder / "cache"))
    assert f"4 entries of {folder}/cache" in listed.stdout
    assert "criterion hybrid" in listed.stdout
    whole = edgeprune("cache", "verify", "--cache", str(folder / "cache"))
    assert (whole.returncode, whole.stderr) == (
        0, f"all 4 entries of {folder}/cache are as they were written\n",
    )  # fmt: skip
    (value,) = (folder / "cache").rglob("ranking.json")
    value.write_text(value.read_text().replace("1", "2", 1))
    bad = edgeprune("cache", "verify", "--cache", str(folder / "cache"))
    assert bad.returncode == 2
    assert "DAMAGED" in bad.stdout
    assert "1 of 4 entries of the cache" in bad.stderr
    gone = edgeprune("cache", "prune", "--cache", str(folder / "cache"), "--json")
    left = [entry["stage"] for entry in json.loads(gone.stdout)["left"]["entries"]]
    assert sorted(left) == ["curves", "recovery", "statistics"]
    refused = edgeprune("cache", "prune", "--all", "--max-age", "1h")
    assert "--all was given with --max-age" in sentence(refused, 2)


def test_a_cell_that_fails_ends_the_sweep_with_its_own_status(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    """A network whose weights are no numbers, beside nothing else."""
    text = SWEEP.format(project=project).replace("small.pt", "nan.pt").replace(', "n100"', "")
    (tmp_path / "s.toml").write_text(text)
    done = edgeprune("sweep", "s.toml", "--cache", "cache", "--max-parallel", "1", cwd=tmp_path)
    assert done.returncode == 15
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: 1 of 1 cells failed, the first of them nan_rpi4_quarter_fp32: ")
    assert last.endswith("the same command with --resume --overwrite tries these again")
    assert "FAILED" in done.stdout
    assert (tmp_path / "s-sweep" / MANIFEST_NAME).exists()
    assert (tmp_path / "s-sweep.journal").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("ratio = 0.25", "ratoi = 0.25"), "has the unknown key 'budgets[0].ratoi'; did you mean 'ratio'?"),
        (("small.pt", "smal.pt"), "and there is no such file"),
        (('"rpi4", ', '"rpi44", '), "rpi44"),
    ],
)
def test_a_bad_file_is_one_sentence_before_any_work(
    change: tuple[str, str], told: str, project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    (tmp_path / "s.toml").write_text(SWEEP.format(project=project).replace(*change))
    done = edgeprune("sweep", "s.toml", cwd=tmp_path)
    assert told in sentence(done, 9 if told == "rpi44" else 2)
    assert os.listdir(tmp_path) in (["s.toml", "scratch"], ["scratch", "s.toml"])


def test_rank_takes_the_rankings_of_each_criterion_from_the_cache(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    model = ("small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1")
    asked = ("rank", *model, "--effort", "quick", "--cache", str(tmp_path / "cache"))

    def scores(name: str, *more: str) -> Any:
        done = edgeprune(*asked, *more, "-o", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / name / "ranking.json").read_text())["criteria"]

    both = ("--criterion", "hybrid", "--criterion", "l1")
    first = scores("first", *both)
    entries = sorted((tmp_path / "cache" / "ranking").glob("*/*"))
    assert len(entries) == 2
    assert scores("second", *both) == first
    assert sorted((tmp_path / "cache" / "ranking").glob("*/*")) == entries
    scores("layer", "--layer", "second")
    assert len(list((tmp_path / "cache" / "ranking").glob("*/*"))) == 3


def test_a_device_out_of_reach_is_one_sentence_before_any_work(
    project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    text = SWEEP.format(project=project) + '[[devices]]\nname = "pi"\nssh = "nobody@127.0.0.1:1"\n'
    (tmp_path / "s.toml").write_text(text)
    done = edgeprune("sweep", "s.toml", "--cache", "cache", cwd=tmp_path)
    assert done.returncode == 14
    last = other_lines(done.stderr)[-1]
    assert last.startswith("error: ")
    assert "127.0.0.1:1" in last
    assert sorted(os.listdir(tmp_path)) == ["s.toml", "scratch"]
