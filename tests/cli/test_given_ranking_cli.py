"""``edgeprune compress --ranking``: the result of ``edgeprune rank`` instead of ranking again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_project import sentence, snapshot

from edgeprune.commands.run.given_rankings import read_given
from edgeprune.errors import UsageError
from edgeprune.options.runs import CompressOptions

MODEL = ("small.pt", "--arch", "nets.py:small")
DATA = ("--calibration", "grey.npz", "--threads", "1")
SMALL = (*MODEL, *DATA)
WEIGHTS = ("model.onnx", "weights.safetensors", "surgery.json")


@pytest.fixture(scope="module")
def ranking(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two criteria, of which hybrid is not the first."""
    from small_project import run_forked

    folder = tmp_path_factory.mktemp("given") / "ranking"
    criteria = ("--criterion", "l1", "--criterion", "hybrid")
    done = run_forked("rank", *SMALL, *criteria, "-o", str(folder), cwd=project, scratch=folder.parent / "s")
    assert done.returncode == 0, done.stderr
    return folder


def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.wide
def test_the_same_network_comes_out_as_from_ranking_again(
    ranking: Path, tmp_path: Path, edgeprune: Any
) -> None:
    before = snapshot(ranking)
    for name, more in (("again", ()), ("given", ("--ranking", str(ranking)))):
        done = edgeprune("compress", *SMALL, *more, "--ratio", "0.25", "-o", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
    assert "] rank\n" not in done.stderr
    again, given = (snapshot(tmp_path / name) for name in ("again", "given"))
    assert {name: given[name] for name in WEIGHTS} == {name: again[name] for name in WEIGHTS}
    found = report(tmp_path / "given")
    assert found["ranking"]["origin"] == {"path": str(ranking), "criterion": "hybrid"}
    assert found["ranking"]["methods"] == {"hybrid": found["ranking"]["groups"]}
    assert (found["ranking"]["q_low"], found["ranking"]["aggregate"]) == (None, None)
    assert not any("ranking" in note for note in found["notes"])
    assert report(tmp_path / "again")["ranking"]["origin"] is None
    told = (tmp_path / "given" / "report.md").read_text()
    assert f"those of hybrid in {ranking}" in told.replace("`", "")
    assert snapshot(ranking) == before


def test_another_criterion_of_the_folder_decides_what_goes(
    ranking: Path, project: Path, tmp_path: Path, edgeprune: Any
) -> None:
    asked = ("--ranking", str(ranking / "ranking.json"), "--criterion", "l1")
    done = edgeprune(
        "compress", *SMALL, *asked, "--ratio", "0.4", "--width-quantum", "1", "-o", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    found = report(tmp_path / "out")
    assert found["ranking"]["origin"]["criterion"] == "l1"
    kept = json.loads((tmp_path / "out" / "surgery.json").read_text())["kept_indices"]
    groups = json.loads((ranking / "ranking.json").read_text())
    (l1,) = (c for c in groups["criteria"] if c["name"] == "l1")
    for group, scores in zip(groups["groups"], l1["groups"], strict=True):
        stay = kept[f"{group['layers'][0]}.weight"].get("0", group["channels"])
        dearest = np.argsort(scores["removal_costs"])[::-1][: len(stay)]
        assert sorted(stay) == sorted(np.array(group["channels"])[dearest].tolist())
    assert "was made in one round" in " ".join(found["notes"])
    assert "coalition sizes follow" not in " ".join(found["notes"])


@pytest.mark.wide
def test_a_ranking_for_another_cut_or_precision_is_noted(
    ranking: Path, edgeprune: Any, tmp_path: Path
) -> None:
    asked = ("compress", *SMALL, "--ranking", str(ranking), "--ratio", "0.35", "--dry-run", "--json")
    notes = " ".join(json.loads(edgeprune(*asked).stdout)["notes"])
    assert "was made for a cut of 25%, which its coalition sizes follow" in notes
    assert "was made in one round" in notes
    fewer_bits = ("--ratio", "0.25", "--precision", "int8", "-o", str(tmp_path / "out"))
    done = edgeprune("compress", *SMALL, "--ranking", str(ranking), *fewer_bits)
    assert done.returncode == 0, done.stderr
    assert "was made with weights in 32 bits" in " ".join(report(tmp_path / "out")["notes"])


BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no folder": (("--ranking", "nowhere"), ("'nowhere'", "cannot be read")),
    "no ranking": (("--ranking", "flat"), ("ranking.json", "cannot be read")),
    "no such criterion": (
        ("--ranking", "RANKING", "--criterion", "l2"),
        ("--criterion l2", "has l1, hybrid", "accepted is one of these"),
    ),
    "other images": (
        ("--ranking", "RANKING", "--seed", "3"),
        ("other images of the same data", "its --seed was 0, here it is 3"),
    ),
    "another share held out": (
        ("--ranking", "RANKING", "--held-out", "0.4"),
        ("other images of the same data", "it ranked with ", "here they are ", "--held-out"),
    ),
    "other data": (
        ("--ranking", "RANKING", "--calibration", "flat", "--mean", "0", "--std", "1"),
        ("other calibration data or preprocessing (grey.npz)",),
    ),
    "other preprocessing": (
        ("--ranking", "RANKING", "--mean", "0.5", "--std", "1"),
        ("other calibration data or preprocessing (grey.npz)",),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_sentence(case: str, ranking: Path, tmp_path: Path, edgeprune: Any) -> None:
    options, parts = BAD[case]
    asked = [str(ranking) if word == "RANKING" else word for word in options]
    said = sentence(edgeprune("compress", *SMALL, "--ratio", "0.25", *asked, "-o", str(tmp_path / "out")), 2)
    for part in parts:
        assert part in said
    assert {p.name for p in tmp_path.iterdir()} <= {"scratch"}


def test_another_network_is_refused(ranking: Path, project: Path, tmp_path: Path, edgeprune: Any) -> None:
    import torch

    state = torch.load(project / "small.pt")
    state["head.bias"] = state["head.bias"] + 1e-6
    for name in ("nets.py", "grey.npz"):
        shutil.copy(project / name, tmp_path / name)
    torch.save(state, tmp_path / "small.pt")
    done = edgeprune("compress", *SMALL, "--ranking", str(ranking), "-o", "out", cwd=tmp_path)
    assert "another network or other weights (small.pt)" in sentence(done, 2)


def test_a_part_of_a_network_or_its_blocks_are_refused(ranking: Path, tmp_path: Path, edgeprune: Any) -> None:
    data = json.loads((ranking / "ranking.json").read_text())
    path = tmp_path / "ranking.json"

    def refused(**settings: object) -> str:
        path.write_text(json.dumps({**data, "settings": {**data["settings"], **settings}}))
        asked = ("compress", *SMALL, "--ranking", str(tmp_path), "-o", str(tmp_path / "out"))
        return sentence(edgeprune(*asked), 2)

    assert "the layers first alone" in refused(layers=["first"])
    assert "is one of blocks" in refused(players="blocks")
    assert "another choice of players" in refused(prune_normalized=True)
    assert "another choice of players" in refused(attention_unit="heads")
    data["criteria"][1]["groups"][0]["removal_costs"][2] = "NaN"
    assert "no finite figures of hybrid for some channels" in refused()
    data["schema_version"] = "1.1"
    assert "schema version '1.1'" in refused()


@pytest.mark.wide
def test_a_search_of_a_budget_goes_by_it_too(ranking: Path, project: Path, tmp_path: Path) -> None:
    import edgeprune
    from edgeprune.artifacts.budget import Budget

    found = edgeprune.compress(
        project / "small.pt",
        arch=f"{project / 'nets.py'}:small",
        calibration=project / "grey.npz",
        budget=Budget(max_drop_points=60.0),
        target="rpi4",
        ranking=ranking,
        criterion="l1",
        threads=1,
        output=tmp_path / "out",
    )
    assert found.ranking.origin is not None
    assert found.ranking.origin.criterion == "l1"
    assert not any(time.stage == "rank" for time in found.stage_times)


def damaged(data: Any) -> Any:
    """Names of damage and rankings of the right types that lack a figure or have one too many."""

    def scores(found: Any, group: int = 0) -> Any:
        return found["criteria"][0]["groups"][group]

    def emptied(found: Any) -> None:
        found["criteria"][-1]["groups"] = []

    changes: dict[str, Any] = {
        f"{how} {name}": lambda f, n=name, c=cut: scores(f).update({n: c(scores(f)[n])})
        for name in ("values", "removal_costs")
        for how, cut in (
            ("short", lambda x: x[:-1]),
            ("one", lambda x: x[:1]),
            ("no", lambda _x: []),
            ("long", lambda x: [*x, 0.5]),
        )
    }
    changes["a group fewer"] = lambda f: f["criteria"][0]["groups"].pop()
    changes["a group twice"] = lambda f: f["criteria"][0]["groups"].append(scores(f))
    changes["groups swapped"] = lambda f: f["criteria"][0]["groups"].reverse()
    changes["another name"] = lambda f: scores(f).update(group="elsewhere")
    changes["one error"] = lambda f: scores(f).update(standard_errors=[0.1])
    changes["no groups"] = emptied
    for name, change in changes.items():
        found = json.loads(json.dumps(data))
        change(found)
        yield name, found


def test_a_ranking_without_one_figure_a_channel_is_refused(
    ranking: Path, tmp_path: Path, edgeprune: Any
) -> None:
    path, names = tmp_path / "ranking.json", []
    for name, found in damaged(json.loads((ranking / "ranking.json").read_text())):
        path.write_text(json.dumps(found))
        with pytest.raises(UsageError, match=r"is damaged: .* has not one figure for each channel"):
            read_given(CompressOptions(model="small.pt", calibration=None, ranking=path))
        names.append(name)
    assert len(names) == 14
    done = edgeprune("compress", *SMALL, "--ranking", str(path), "-o", str(tmp_path / "out"))
    assert "is damaged" in sentence(done, 2)
