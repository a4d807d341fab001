"""``edgeprune compress --criterion``: any criterion of ``rank``, and those of the user, decide what goes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_project import sentence, snapshot

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("small.pt", "--arch", "nets.py:small", "--calibration", "grey.npz", "--threads", "1")
QUICK = (*SMALL, "--effort", "quick")
WEIGHTS = ("model.onnx", "weights.safetensors", "surgery.json")

OWN = """
import numpy as np
from edgeprune.importance.combining import make_ranking

class Own:
    name, summary = "own", "made up"
    def passes(self, context):
        return 0
    def score(self, context, *, rng, advance):
        {body}
        return make_ranking(self.name, values, started=0.0, choice="as the file says")
"""


def own(folder: Path, body: str) -> str:
    path = folder / "own_criterion.py"
    path.write_text(OWN.format(body=body))
    return f"{path}:Own"


def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize(
    "name", ["l1", *(pytest.param(name, marks=pytest.mark.wide) for name in ("taylor", "random"))]
)
def test_it_prunes_as_by_the_ranking_of_that_criterion(name: str, tmp_path: Path, edgeprune: Any) -> None:
    ranked = edgeprune("rank", *QUICK, "--criterion", name, "-o", str(tmp_path / "ranking"))
    assert ranked.returncode == 0, ranked.stderr
    given = ("--ranking", str(tmp_path / "ranking"))
    for folder, more in (("made", ()), ("given", given)):
        asked = ("--criterion", name, "--ratio", "0.25", "-o", str(tmp_path / folder))
        done = edgeprune("compress", *QUICK, *more, *asked)
        assert done.returncode == 0, done.stderr
    made, taken = (snapshot(tmp_path / folder) for folder in ("made", "given"))
    assert {n: made[n] for n in WEIGHTS} == {n: taken[n] for n in WEIGHTS}
    ranking = report(tmp_path / "made")["ranking"]
    assert (ranking["criterion"], ranking["origin"]) == (name, None)
    assert ranking["methods"] == {name: ranking["groups"]}
    assert f"by {name}" in (tmp_path / "made" / "report.md").read_text()


def test_the_documented_criterion_prunes_and_searches_straight_from_its_file(
    tmp_path: Path, edgeprune: Any
) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "criteria.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "peak.py").write_text(example[1])
    asked = ("--criterion", f"{tmp_path / 'peak.py'}:Peak")
    done = edgeprune("compress", *SMALL, *asked, "--ratio", "0.4", "-o", str(tmp_path / "deep"))
    assert done.returncode == 0, done.stderr
    ranking = report(tmp_path / "deep")["ranking"]
    assert (ranking["criterion"], ranking["rounds"]) == ("peak", [0.25])
    done = edgeprune("compress", *SMALL, *asked, "--max-size", "90%", "-o", str(tmp_path / "searched"))
    assert done.returncode in (0, 2), done.stderr
    ranked = edgeprune("rank", *SMALL, *asked, "--criterion", "l1", "-o", str(tmp_path / "ranking"))
    assert ranked.returncode == 0, ranked.stderr
    assert "peak" in ranked.stdout


BROKEN = {
    "raises": ("raise RuntimeError('no weights here')", "RuntimeError (no weights here)"),
    "ends the process": ("import sys; sys.exit(0)", "SystemExit"),
    "wrong shape": ("values = np.zeros(3)", "did not give a finite value for each of the"),
    "not a number": (
        "values = np.full(context.coupling.num_players, np.nan)",
        "did not give a finite value for each of the",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("command", ["compress", "rank"])
def test_a_criterion_that_fails_is_one_sentence(
    case: str, command: str, tmp_path: Path, edgeprune: Any
) -> None:
    body, told = BROKEN[case]
    done = edgeprune(command, *SMALL, "--criterion", own(tmp_path, body), "-o", str(tmp_path / "out"))
    said = sentence(done, 2)
    assert told in said
    assert "'own'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("L1", "there is no criterion 'L1'; did you mean 'l1'?"),
        ("nowhere.py:Own", "'nowhere.py', which does not exist"),
        ("nets.py:small", "lacks name, summary, passes, score"),
        ("nets.py:missing", "'missing', which is no function"),
    ],
)
def test_an_unknown_one_is_told_before_the_model_is_loaded(
    name: str, told: str, tmp_path: Path, edgeprune: Any
) -> None:
    done = edgeprune("compress", "none.pt", *SMALL[1:], "--criterion", name, "-o", str(tmp_path / "out"))
    assert told in sentence(done, 2)
