"""Names of layers and files that command terminals, turn the writing or are very long, as they are shown."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from small_project import run_forked

from edgeprune.showing import escaped_json, plain, shown, shown_in_cell

CODE = r"""
import torch
from torch import nn

NAMES = ["\x1b[31mred\x9b2J", "\u202eturned\u2066\u200b", "long" * 300 + "end", "\U000e0041\xad\x7f\x07|`<b>"]
NAMES += ["class"]  # which no code can hold


class Named(nn.Module):
    '''Its layers have names of others.'''

    def __init__(self):
        super().__init__()
        for i, name in enumerate(NAMES):
            self.add_module(name, nn.Conv2d(1 if i == 0 else 6, 6, 3, padding=1))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        for name in NAMES:
            x = torch.relu(getattr(self, name)(x))
        return self.head(x.mean((2, 3)))


def named():
    torch.manual_seed(0)
    return Named()
"""
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
MODEL = ("model\x1b[7m.pt", "--arch", "named.py:named")
DATA = ("--calibration", "grey.npz", "--threads", "1")
LONG = "long" * 300 + "end"


def test_every_character_that_cannot_be_seen_is_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        unseen = unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"} and character not in "\t\n"
        found = plain(character)
        if unseen:
            assert found.isascii(), hex(code)
            assert found.startswith("\\"), hex(code)
            assert code < 0x20 or json.loads(escaped_json(f'"{character}"')) == character
        elif found != character:  # fillers, selectors of variants and others that take no room
            assert unicodedata.category(character) in {"Lo", "Mn", "Cn"}, hex(code)


@pytest.mark.parametrize("length", [81, 201, 5_000])
def test_cells_keep_both_ends_of_long_names(length: int) -> None:
    name = "a" + "b" * (length - 2) + "c"
    for found in (shown_in_cell(name), shown(name)):
        assert (found[0], found[-1]) == ("a", "c")
        assert len(found) <= 201
    assert len(shown_in_cell(f"{name} and {name}")) < 170


@pytest.fixture(scope="module")
def place(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    (folder / "grey.npz").symlink_to(project / "grey.npz")
    (folder / "named.py").write_text(CODE)
    space: dict[str, Any] = {"__name__": "named"}
    exec(compile(CODE, "named.py", "exec"), space)
    torch.save(space["named"]().state_dict(), folder / "model.pt")
    (folder / "model.pt").rename(folder / MODEL[0])
    return folder


def command(place: Path, *arguments: str) -> tuple[str, str]:
    """What a command that ends well printed and said."""
    done = run_forked(*arguments, cwd=place, scratch=place / "scratch")
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def is_harmless(text: str) -> None:
    assert UNSEEN.findall(text) == []


def is_short(text: str) -> None:
    assert LONG[:300] not in "".join(text.split())


@pytest.fixture(scope="module")
def ranked(place: Path) -> Path:
    said = "".join(command(place, "rank", *MODEL, *DATA, "--criterion", "l1", "-o", "ranked"))
    is_harmless(said)
    is_short(said)
    return place / "ranked"


def test_files_of_a_ranking(ranked: Path) -> None:
    for path in ranked.iterdir():
        text = path.read_text(encoding="utf-8")
        is_harmless(text)
        if path.suffix in {".html", ".svg"}:
            is_short(text)
        if path.suffix == ".svg":
            ET.fromstring(text)
        if path.suffix in {".html", ".csv"}:
            assert r"\x1b[31mred" in text
            assert r"\u202eturned" in text
            assert "<b>" not in text or path.suffix == ".csv"
    found = json.loads((ranked / "ranking.json").read_text())
    layers = {name for group in found["groups"] for name in group["layers"]}
    space: dict[str, Any] = {"__name__": "named"}
    exec(compile(CODE, "named.py", "exec"), space)
    assert set(space["NAMES"][:3]) <= layers  # whole, since compress goes by them


@pytest.mark.wide
def test_a_ranking_and_a_recipe_of_such_names_are_gone_by(ranked: Path, place: Path) -> None:
    from edgeprune import apply_surgery

    pruning = ("--ratio", "0.3", "--width-quantum", "1", "--target", "rpi4", "--effort", "quick")
    printed, said = command(place, "compress", *MODEL, *DATA, *pruning, "--ranking", "ranked", "-o", "out")
    for text in (printed, said):
        is_harmless(text)
        is_short(text)
    for name in ("report.md", "report.json", "surgery.json", "manifest.json"):
        is_harmless((place / "out" / name).read_text(encoding="utf-8"))
    is_short((place / "out" / "report.md").read_text())
    space: dict[str, Any] = {"__name__": "named"}
    exec(compile(CODE, "named.py", "exec"), space)
    seen, _ = command(place, "inspect", "out/model.pt2")  # in an archive of a program, names are plain
    is_harmless(seen)
    is_short(seen)
    assert "-x1b-" in seen
    pruned = apply_surgery(
        space["named"](), place / "out" / "surgery.json", place / "out" / "weights.safetensors"
    )
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in space["named"]().parameters())
    planned, _ = command(place, "compress", *MODEL, *DATA, *pruning, "--ranking", "ranked", "--dry-run")
    is_harmless(planned)
    is_short(planned)


@pytest.mark.parametrize("more", [(), ("--json",), ("--graph", "net.svg"), ("--graph", "net.html")])
def test_what_inspect_shows(more: tuple[str, ...], place: Path) -> None:
    printed, said = command(place, "inspect", *MODEL, "--input-shape", "1x8x8", *more)
    is_harmless(printed)
    is_harmless(said)
    assert r"\x1b[31m" in printed.replace(r"\\", "\\")
    if more != ("--json",):
        is_short(printed)
    for path in place.glob("net.*"):
        text = path.read_text(encoding="utf-8")
        is_harmless(text)
        is_short(text)


def test_names_in_the_tables_of_a_target(place: Path) -> None:
    from edgeprune.system.data import data_dir

    text = (data_dir("targets") / "rpi4.toml").read_text()
    name = json.dumps("\x1b[31m\u202e" + LONG)
    changed = re.sub(r"(?m)^display_name = .*$", lambda _: f"display_name = {name}", text)
    (place / "mine\u202e.toml").write_text(changed)
    printed, said = command(place, "targets", "show", "mine\u202e.toml")
    is_harmless(printed + said)
    is_short(printed)
    assert r"\x1b[31m\u202elonglong" in printed


def test_sentences_on_failures(place: Path) -> None:
    for name in ("no\x1b[2J\u202e.pt", LONG[:200] + ".pt", "a " * 2_000, "lone\udc80.pt"):
        done = run_forked("inspect", name, "--input-shape", "1x8x8", cwd=place, scratch=place / "scratch")
        assert done.returncode in {2, 3}, done.stderr
        is_harmless(done.stderr.replace("\n", ""))
        assert len(done.stderr) < 700


def test_keys_and_names_of_classes(place: Path) -> None:
    state = torch.load(place / MODEL[0])
    for key in ("\x1b[2J\x9b31m", "a\u202eb\u2066", "x" * 3_000, "line\nerror: another", "\udc80"):
        torch.save(state | {key: torch.zeros(2)}, place / "more.pt")
        done = run_forked(
            "inspect", "more.pt", *MODEL[1:], "--input-shape", "1x8x8", cwd=place, scratch=place / "scratch"
        )
        assert done.returncode == 3, done.stderr
        assert done.stderr.count("\n") == 1
        assert "1 unexpected" in done.stderr
        is_harmless(done.stderr.replace("\n", ""))
        assert len(done.stderr) < 700
    classes = ["\x1b[31mred", "\u202eturned", "c" * 200, "line\nerror: x"]
    for number, name in enumerate(classes):
        folder = place / "classes" / name
        folder.mkdir(parents=True)
        for index in range(3):
            (folder / f"{index}.pgm").write_bytes(b"P5 8 8 255\n" + bytes([60 * number + index]) * 64)
        (folder / "x\x1b[2J.pgm").write_bytes(b"P5 8 8 255\n" + bytes([60 * number]) * 64)
    dry = ("compress", *MODEL, "--calibration", "classes", "--target", "rpi4", "--ratio", "0.3", "--dry-run")
    printed, said = command(place, *dry, "--max-images", "12", "--threads", "1")
    is_harmless(printed + said)
    (place / "classes" / classes[0] / "x\x1b[2J.pgm").write_bytes(b"P5 8 8 255\n")
    done = run_forked(*dry, "-q", cwd=place, scratch=place / "scratch")
    assert done.returncode == 4, done.stderr
    assert r"\x1b[31mred/x\x1b[2J.pgm" in done.stderr
    is_harmless(done.stderr.replace("\n", ""))
