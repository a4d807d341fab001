"""Readers of documents, called directly with hundreds of changed ones each, fail in edgeprune's own way."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz_cases import FORMATS
from fuzz_commands import Inputs
from fuzz_containers import any_member, mutated_zip
from fuzz_seeds import CARD, CONFIG
from fuzz_values import CANARY, mutated_json, mutated_toml
from small_project import CHECKOUT, DIGITS, DIGITS_DATA

from edgeprune.artifacts.budget import Budget
from edgeprune.calibration import load_calibration
from edgeprune.commands.pick.picking import pick_candidate
from edgeprune.commands.run.given_rankings import read_given
from edgeprune.commands.search.candidate_records import read_record
from edgeprune.commands.sweep.cells import cells_of
from edgeprune.errors import EdgepruneError
from edgeprune.importance.journals import read_about
from edgeprune.loading import load_model
from edgeprune.options.cards import read_card
from edgeprune.options.project_file import load_config
from edgeprune.options.runs import CompressOptions
from edgeprune.options.sweep.sweep_file import EXAMPLE, read_sweep
from edgeprune.reporting.json_report import read_json, report_to_json
from edgeprune.reporting.ranking.files import read_ranking
from edgeprune.shapley.checkpoint import FileCheckpoint
from edgeprune.storage.outputs import read_manifest
from edgeprune.storage.records import write_record
from edgeprune.targets import load_target

COUNT = 300
FILES = {"checkpoint": 500, "safetensors": 500, "npz": 300, "images": 60}
"""How many of each; folders of images take longer."""
TARGET = (CHECKOUT / "targets" / "rpi4.toml").read_text().replace('"rpi4"', '"own"')
SWEEP = EXAMPLE.replace('model = "', f'model = "{DIGITS}/').replace("digits.npz", DIGITS_DATA)


def _reported(path: Path) -> None:
    report_to_json(read_json(path))


def _picked(path: Path) -> None:
    pick_candidate(path.parent, Budget(max_drop_points=100.0), output=None, overwrite=False, command="")


def _recorded(path: Path) -> None:
    """A changed record whose maker made the checksum anew."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        write_record(path, json.loads(path.read_bytes()).get("content"))
    read_record(path)


def _options(ranking: Path) -> CompressOptions:
    return CompressOptions(model="small.pt", calibration="grey.npz", ranking=ranking)


JSON: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "report": ("search/report.json", _reported),
    "search": ("search/report.json", _picked),
    "record": ("search/candidates/candidate-1/candidate.json", _recorded),
    "manifest": ("search/manifest.json", lambda path: read_manifest(path.parent)),
    "ranking": ("ranking/ranking.json", read_ranking),
    "given ranking": ("ranking/ranking.json", lambda path: read_given(_options(path))),
    "journal": ("stopped.journal/journal.json", lambda path: read_about(path.parent)),
}
TOML: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "card": (CARD, read_card),
    "project file": (CONFIG, load_config),
    "target": (TARGET, lambda path: load_target(str(path))),
    "sweep": (SWEEP, lambda path: cells_of(read_sweep(path), "")),
}


def read_or_refused(read: Callable[[Path], Any], path: Path) -> bool:
    """Whether a document was accepted; anything else than a failure of edgeprune's own is raised."""
    try:
        read(path)
    except EdgepruneError:
        return False
    return True


@pytest.mark.parametrize("kind", JSON)
def test_changed_json_is_read_or_refused(kind: str, seeds: Path, tmp_path: Path) -> None:
    name, read = JSON[kind]
    data, rng = (seeds / name).read_bytes(), random.Random(kind)
    path = tmp_path / Path(name).name
    path.write_bytes(data)
    assert read_or_refused(read, path)
    found = []
    for _ in range(COUNT):
        path.write_bytes(mutated_json(rng, data))
        found.append(read_or_refused(read, path))
    assert set(found) == {True, False} or kind in ("manifest", "journal")


@pytest.mark.parametrize("kind", TOML)
def test_changed_toml_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    text, read = TOML[kind]
    path, rng = tmp_path / "own.toml", random.Random(kind)
    path.write_text(text)
    assert read_or_refused(read, path)
    found = []
    for _ in range(COUNT):
        path.write_bytes(mutated_toml(rng, text))
        found.append(read_or_refused(read, path))
    assert set(found) == {True, False}


def _loaded(inputs: Inputs) -> None:
    load_model(inputs.model[0], architecture=inputs.model[2])


def _calibrated(inputs: Inputs) -> None:
    load_calibration(inputs.data[1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FILES)
def test_changed_archives_and_images_are_read_or_refused(
    kind: str, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = _calibrated if kind in ("npz", "images") else _loaded
    found = []
    for number in range(FILES[kind]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        inputs = FORMATS[kind].change(random.Random(f"{kind} {number}"), seeds, folder, Inputs.of(seeds))
        try:
            read(inputs)
            found.append(True)
        except EdgepruneError:
            found.append(False)
        assert not (folder / CANARY).exists(), number
    assert set(found) == {True, False}


def test_a_changed_checkpoint_of_an_estimate_is_read_or_refused(seeds: Path, tmp_path: Path) -> None:
    (source,) = (seeds / "stopped.journal").glob("*-values.npz")
    data, rng, path = source.read_bytes(), random.Random(0), tmp_path / "changed.npz"
    for _ in range(COUNT):
        path.write_bytes(mutated_zip(rng, data, any_member))
        with contextlib.suppress(EdgepruneError):
            FileCheckpoint(path, fingerprint="another")
