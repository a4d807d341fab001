"""Cases: an input format, a command that reads it, and the seed of what is changed."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fuzz_commands import COMMANDS, Inputs
from fuzz_containers import any_member, mutated_png, mutated_safetensors, mutated_state, mutated_zip
from fuzz_onnx import mutated_onnx
from fuzz_values import mutated_bytes, mutated_json, mutated_toml, odd_text
from safetensors.torch import load_file

from edgeprune.storage.records import write_record

Change = Callable[[random.Random, Path, Path, Inputs], Inputs]
"""Writes a changed copy of a seed (first folder) into the second, and puts it in place of the valid one."""


@dataclass(frozen=True)
class Case:
    """One line, ``FORMAT:COMMAND:SEED``, says all."""

    format: str
    command: str
    seed: int

    def __str__(self) -> str:
        return f"{self.format}:{self.command}:{self.seed}"

    @classmethod
    def parsed(cls, text: str) -> Case:
        """The case of a line.

        Raises:
            ValueError: there is no such format or command.
        """
        name, command, seed = text.split(":")
        if command not in FORMATS[name].commands:
            raise ValueError(f"{name} is not given to {command}")
        return cls(name, command, int(seed))


@dataclass(frozen=True)
class Format:
    """How a file of one format is changed, and which commands read it."""

    change: Change
    commands: tuple[str, ...]


def built(case: Case, seeds: Path, folder: Path) -> tuple[str, ...]:
    """The changed file in ``folder``, where the command is to run, and the command's arguments."""
    rng = random.Random(str(case))
    inputs = FORMATS[case.format].change(rng, seeds, folder, Inputs.of(seeds))
    return COMMANDS[case.command](rng, inputs)


def _pt2(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    name = rng.choice(("dynamic.pt2", "fixed.pt2"))
    data = (seeds / name).read_bytes()
    weights = rng.random() < 0.35

    def change(rng: random.Random, member: str, content: bytes) -> bytes:
        return any_member(rng, member, content)

    def only_weights(rng: random.Random, member: str, content: bytes) -> bytes:
        return any_member(rng, member, content) if "/data/weights/weight" in member else content

    (folder / "model.pt2").write_bytes(mutated_zip(rng, data, only_weights if weights else change))
    return replace(inputs, model=("model.pt2",))


def _checkpoint(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    """A state_dict in torch's archive or in its older format: changed in content or as a file."""
    old = rng.random() < 0.25
    if rng.random() < 0.5:
        written = io.BytesIO()
        state = mutated_state(rng, torch.load(seeds / "small.pt"))
        torch.save(state, written, _use_new_zipfile_serialization=not old)
        data = written.getvalue()
    elif old:
        data = mutated_bytes(rng, (seeds / "old.pt").read_bytes())
    else:
        data = mutated_zip(rng, (seeds / "small.pt").read_bytes(), any_member)
    name = rng.choice(("model.pt", "model.pth"))
    (folder / name).write_bytes(data)
    return replace(inputs, model=(name, *inputs.model[1:]))


def _safetensors(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    data = mutated_safetensors(rng, (seeds / "small.safetensors").read_bytes())
    (folder / "model.safetensors").write_bytes(data)
    return replace(inputs, model=("model.safetensors", *inputs.model[1:]))


def _onnx(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    data = mutated_onnx(rng, (seeds / "model.onnx").read_bytes())
    (folder / "model.onnx").write_bytes(data)
    return replace(inputs, onnx="model.onnx")


def _npz(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    (folder / "data.npz").write_bytes(mutated_zip(rng, (seeds / "grey.npz").read_bytes(), any_member))
    return replace(inputs, data=("--calibration", "data.npz"))


def _images(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    """Twelve images, flat or in folders of classes, of which some, or all, are changed."""
    place = folder / "images"
    by_class = rng.random() < 0.5
    changed = rng.choice((1, 1, 2, 12))
    for index, source in enumerate(sorted((seeds / "flat").iterdir())[:12]):
        part = place / (
            _file_name(rng, f"c{index % 3}") if by_class and rng.random() < 0.1 else f"c{index % 3}"
        )
        where = part if by_class else place
        where.mkdir(parents=True, exist_ok=True)
        name = _file_name(rng, source.name) if rng.random() < 0.1 else source.name
        data = source.read_bytes()
        (where / name).write_bytes(mutated_png(rng, data) if index < changed else data)
    if rng.random() < 0.1:
        (place / "link.png").symlink_to(rng.choice(("/dev/zero", "missing", ".", "/etc/passwd", "..")))
    if rng.random() < 0.1:
        (place / "more.txt").write_bytes(b"text")
    return replace(inputs, data=("--calibration", "images"))


def _file_name(rng: random.Random, otherwise: str) -> str:
    """A name that a file system takes, and that stays in its folder."""
    text = odd_text(rng).replace("\0", "").replace("/", "_")[:60].encode("utf-8", "replace").decode()
    return otherwise if text in ("", ".", "..") else f"{text}{Path(otherwise).suffix}"


def _card(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    (folder / "card.toml").write_bytes(mutated_toml(rng, (seeds / "card.toml").read_text()))
    return replace(inputs, data=(*inputs.data, "--card", "card.toml"))


def _config(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    for name in ("small.pt", "grey.npz", "nets.py"):
        shutil.copy(seeds / name, folder / name)
    (folder / "edgeprune.toml").write_bytes(mutated_toml(rng, (seeds / "edgeprune.txt").read_text()))
    return replace(inputs, model=("small.pt",), shape=(), data=(), target=(), ratio=())


def _target(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    (folder / "target.toml").write_bytes(mutated_toml(rng, (seeds / "target.toml").read_text()))
    return replace(inputs, target=("--target", "target.toml"))


def _ranking(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    shutil.copytree(seeds / "ranking", folder / "ranking")
    _change_one(rng, folder / "ranking", ("ranking.json", "ranking.json", "ranking.json", "manifest.json"))
    return replace(inputs, ranking=("--ranking", "ranking"))


CANDIDATES = "candidates/*/candidate.json"


def _search(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    shutil.copytree(seeds / "search", folder / "search")
    records = sorted(place.relative_to(folder / "search") for place in (folder / "search").glob(CANDIDATES))
    candidate = str(rng.choice(records))
    _change_one(rng, folder / "search", ("report.json", "report.json", candidate, "manifest.json"))
    return replace(inputs, search="search")


def _surgery(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    shutil.copytree(seeds / "search", folder / "surgery")
    _change_one(rng, folder / "surgery", ("surgery.json", "surgery.json", "weights.safetensors"))
    return replace(inputs, surgery="surgery")


def _budget(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    (folder / "budget.toml").write_bytes(mutated_toml(rng, (seeds / "budget.toml").read_text()))
    return replace(inputs, budget="budget.toml")


def _sweep(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    for name in ("small.pt", "grey.npz", "nets.py"):
        shutil.copy(seeds / name, folder / name)
    (folder / "sweep.toml").write_bytes(mutated_toml(rng, (seeds / "sweep.toml").read_text()))
    return inputs


def _swept(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    shutil.copytree(seeds / "swept", folder / "swept")
    _change_one(rng, folder / "swept", ["sweep.json"])
    return inputs


def _result(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    (folder / "result.json").write_bytes(mutated_json(rng, (seeds / "result.json").read_bytes()))
    return replace(inputs, result="result.json")


def _journal(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    place = folder / "out.journal"
    shutil.copytree(seeds / "stopped.journal", place)
    names = sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())
    _change_one(rng, place, names)
    return inputs


def _options(rng: random.Random, seeds: Path, folder: Path, inputs: Inputs) -> Inputs:
    return replace(inputs, odd_options=True)


def _change_one(rng: random.Random, folder: Path, names: Sequence[str]) -> None:
    path = folder / rng.choice(names)
    data = path.read_bytes()
    if path.suffix == ".json":
        path.write_bytes(mutated_json(rng, data))
        if b'"content"' in data and rng.random() < 0.5:
            _record_again(path)
    elif path.suffix == ".safetensors":
        path.write_bytes(mutated_safetensors(rng, data))
    elif path.suffix == ".npz":
        path.write_bytes(mutated_zip(rng, data, any_member))
    else:
        path.write_bytes(mutated_bytes(rng, data))


def _record_again(path: Path) -> None:
    """Give a changed record the checksum of what it holds now, as its maker could."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        write_record(path, json.loads(path.read_bytes()).get("content"))


_MODEL_COMMANDS = ("inspect", "compress", "rank", "verify-models")
FORMATS: dict[str, Format] = {
    "pt2": Format(_pt2, _MODEL_COMMANDS),
    "checkpoint": Format(_checkpoint, _MODEL_COMMANDS),
    "safetensors": Format(_safetensors, ("inspect", "compress", "search", "rank")),
    "onnx": Format(_onnx, ("quantize", "profile", "verify", "inspect-onnx", "import", "compare")),
    "npz": Format(_npz, ("inspect", "compress", "rank", "quantize", "verify")),
    "images": Format(_images, ("inspect", "compress", "rank", "quantize", "verify")),
    "card": Format(_card, ("compress", "quantize", "verify")),
    "config": Format(_config, ("inspect", "compress", "rank")),
    "target": Format(_target, ("targets", "compress", "quantize", "profile")),
    "ranking": Format(_ranking, ("compress",)),
    "search": Format(_search, ("pick", "check", "compare")),
    "budget": Format(_budget, ("check",)),
    "sweep": Format(_sweep, ("sweep",)),
    "swept": Format(_swept, ("check-sweep", "compare-sweeps")),
    "result": Format(_result, ("recorded",)),
    "surgery": Format(_surgery, ("apply",)),
    "journal": Format(_journal, ("resume",)),
    "options": Format(
        _options,
        (
            *("inspect", "compress", "search", "rank", "quantize", "profile", "verify", "pick", "targets"),
            *("check", "compare"),
        ),
    ),
}
PAIRS: tuple[tuple[str, str], ...] = tuple((n, c) for n, f in FORMATS.items() for c in f.commands)


def state_of(path: Path) -> dict[str, torch.Tensor]:
    """Weights in a safetensors file."""
    return dict(load_file(path))
