"""report.html: every section filled or saying why not, facts without scripts, nothing from the network."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_page import synthetic_contents
from synthetic_report import candidate, ruined_report, synthetic_budget, synthetic_report

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.illustrations import Illustrations
from edgeprune.artifacts.report import RunReport
from edgeprune.commands.pick.picking import pick_candidate
from edgeprune.commands.report.page_file import rebuild_page
from edgeprune.errors import UsageError
from edgeprune.options.quantities import parse_budget
from edgeprune.reporting.json_report import read_json, write_json
from edgeprune.reporting.web.facts import PageContents
from edgeprune.reporting.web.page import render_page
from edgeprune.reporting.web.picks import pick_limits
from edgeprune.storage.outputs import read_manifest, sha256_file, write_manifest

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
SECTIONS = (
    "sizes", "candidates", "widths", "importance", "coalitions", "removal", "accuracy", "operators",
    "precision", "parity", "maps", "saliency", "changed", "fallbacks", "repeat",
)  # fmt: skip
HOSTILE = '</style></script><img src="//x" onerror="alert(1)">&\'\x1b[31m\u202e'
_VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Text of every element by section, without drawings and scripts; and the tree's shape."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.section = ""
        self.lines: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.headings: list[int] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given[k] or "" for k in ("src", "href", "xlink:href") if k in given]
        if tag == "section":
            self.section = given["id"] or ""
            self.lines.append(f"[{self.section}]")
        if tag == "img":
            self.images.append(given)
            self.lines.append(f"picture: {given['alt']}")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"svg", "style", "script"} & set(self.open):
            self.lines.append(" ".join(data.split()))

    def of(self, section: str) -> str:
        """Text of one section."""
        rest = self.lines[self.lines.index(f"[{section}]") + 1 :]
        end = next((i for i, line in enumerate(rest) if line.startswith("[")), len(rest))
        return "\n".join(rest[:end])


def drawings(page: str) -> Iterator[ElementTree.Element]:
    for text in re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL):
        yield ElementTree.fromstring(text)


def of_report(report: RunReport) -> PageContents:
    return PageContents(report=report, folder="out", illustrations=Illustrations(missing={}))


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(synthetic_contents())


@pytest.fixture(scope="module")
def plain_page() -> str:
    return render_page(of_report(synthetic_report()))


def test_golden_facts(page: str, golden: Any) -> None:
    golden(GOLDEN / "report.html.txt", "\n".join(Reader(page).lines) + "\n")


def test_every_section_shows_something(page: str) -> None:
    read = Reader(page)
    assert read.open == []
    assert tuple(line[1:-1] for line in read.lines if line.startswith("[")) == SECTIONS
    assert 'class="empty"' not in page
    assert all(len(read.of(section).splitlines()) > 1 for section in SECTIONS)


def test_a_section_with_nothing_to_show_says_why(plain_page: str) -> None:
    read = Reader(plain_page)
    said = {section: read.of(section) for section in SECTIONS}
    assert "Nothing was searched: how much goes was given (--ratio)" in said["candidates"]
    assert "'edgeprune rank' finds it" in said["coalitions"]
    assert "'edgeprune rank' finds it" in said["removal"]
    assert "32 bits: --precision int8" in said["precision"]
    for section in ("maps", "saliency", "changed"):
        assert "No pictures are kept in report.json" in said[section]
    assert all(len(text.splitlines()) > 1 for text in said.values())


def test_the_same_contents_give_the_same_small_page(page: str) -> None:
    assert render_page(synthetic_contents()) == page
    assert len(page.encode()) < 1_500_000


def test_it_asks_nothing_of_the_network(page: str) -> None:
    addresses = Reader(page).addresses
    assert addresses
    assert all(each.startswith(("#", "data:image/png;base64,")) for each in addresses)
    assert "default-src 'none'" in page
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", page)


def test_it_can_be_read_without_seeing_it(page: str) -> None:
    read = Reader(page)
    assert all(image["alt"] for image in read.images)
    assert read.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(read.headings, read.headings[1:], strict=False))
    assert '<html lang="en">' in page
    bodies = re.findall(r"<tbody>(.*?)</tbody>", page, flags=re.DOTALL)
    assert all(row.startswith('<th scope="row"') for body in bodies for row in body.split("<tr>")[1:])
    for drawing in drawings(page):
        assert drawing.get("aria-label")
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_the_colours_of_both_schemes_can_be_told_apart(page: str) -> None:
    for block in re.findall(
        r":root\{color-scheme:light dark;(.*?)\}|dark\)\{:root\{(.*?)\}", page, re.DOTALL
    ):
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", "".join(block)))
        for text in ("ink", "soft", "after"):
            for ground in ("paper", "card"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for mark in ("gone", "chosen", "good", "doubtful", "bad"):
            assert contrast(colours[mark], colours["paper"]) >= 3, mark


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2, definition of contrast ratio)."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_verdict_comes_first_and_its_tone_is_seen() -> None:
    page = render_page(of_report(ruined_report()))
    assert "<h1>Loses 92 of 100 answers: not usable" in page
    assert '<header class="bad">' in page


def test_names_of_others_become_neither_markup_nor_instructions(plain_page: str) -> None:
    report = synthetic_report()
    layers = tuple(dataclasses.replace(row, layer=HOSTILE) for row in report.pruning.layers)
    groups = tuple(dataclasses.replace(group, group=HOSTILE) for group in report.importance)
    stages = tuple(dataclasses.replace(figure, stage=HOSTILE) for figure in report.accuracy)
    hostile = render_page(
        of_report(
            dataclasses.replace(
                report,
                importance=groups,
                accuracy=stages,
                pruning=dataclasses.replace(report.pruning, layers=layers),
            )
        )
    )
    outside = re.compile(r"<svg .*?</svg>", flags=re.DOTALL)
    tags = [re.findall(r"</?[a-z0-9]+", outside.sub("", text)) for text in (hostile, plain_page)]
    assert tags[0] == tags[1]
    assert all(len(list(drawing)) for drawing in drawings(hostile))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", hostile)


shares = st.integers(200, 1200).map(lambda thousandths: thousandths / 999)
tried = st.lists(st.tuples(shares, st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=6)


@settings(max_examples=40)
@given(tried)
def test_the_command_of_a_candidate_picks_it(
    tmp_path_factory: pytest.TempPathFactory, figures: list[tuple[float, int, int]]
) -> None:
    candidates = tuple(
        candidate(f"candidate {i}", share, 1000 * size, drop=0.5 * drop)
        for i, (share, size, drop) in enumerate(figures, start=1)
    )
    section = dataclasses.replace(synthetic_budget(), candidates=candidates, chosen="candidate 1")
    folder = tmp_path_factory.mktemp("searched")
    write_json(dataclasses.replace(synthetic_report(), budget=section), folder / "report.json")
    for each in candidates:
        limits = pick_limits(each, section)
        if limits:
            options = dict(zip(limits[::2], limits[1::2], strict=True))
            budget = parse_budget(options["--max-latency"], options["--max-size"], None, None)
            found = pick_candidate(folder, budget, output=None, overwrite=False, command="edgeprune pick")
            assert found.budget.chosen == each.name
        else:
            assert any(_as_good(other, each) for other in candidates if other.name != each.name)


def _as_good(other: Candidate, each: Candidate) -> bool:
    """Whether it loses no more and is as small and, to a thousandth, as fast."""
    sooner = other.latency_share <= each.latency_share + 0.001
    lost = (other.drop_points or 0.0) <= (each.drop_points or 0.0)
    return sooner and lost and other.size_bytes <= each.size_bytes


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3", "1.4", "1.5"])
def test_the_page_of_an_older_report(tmp_path: Path, version: str) -> None:
    shutil.copyfile(GOLDEN / f"report-{version}.json", tmp_path / "report.json")
    written = rebuild_page(tmp_path)
    read = Reader(written.read_text(encoding="utf-8"))
    assert "edgeprune that did not keep this" in read.of("importance")
    assert "edgeprune that did not keep this" in read.of("operators")
    assert read_json(tmp_path / "report.json").schema_version == version


def test_the_page_of_a_report_from_before_curves(tmp_path: Path) -> None:
    shutil.copyfile(GOLDEN / "report-1.6.json", tmp_path / "report.json")
    read = Reader(rebuild_page(tmp_path).read_text(encoding="utf-8"))
    for section in ("coalitions", "removal"):
        assert "'edgeprune rank' finds it" in read.of(section)


def test_the_manifest_lists_the_page_that_was_written_anew(tmp_path: Path) -> None:
    shutil.copyfile(GOLDEN / "report.json", tmp_path / "report.json")
    write_manifest(tmp_path, inputs={}, seed=3, command="edgeprune compress", versions={})
    (tmp_path / "own.txt").write_text("not edgeprune's")
    for _ in range(2):
        page = rebuild_page(tmp_path)
        manifest = read_manifest(tmp_path)
        assert manifest is not None
        assert [file.path for file in manifest.outputs] == ["report.html", "report.json"]
        assert manifest.outputs[0].sha256 == sha256_file(page)
        assert (manifest.seed, manifest.command) == (3, "edgeprune compress")


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no report\.json; give the output folder"):
        rebuild_page(tmp_path)


def test_a_browser_shows_it_without_a_complaint(page: str, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs the browser Chromium: apt install chromium")
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    # What the script made of the chart: one button a candidate whose loss is known.
    assert done.stdout.count('role="button"') == 2
    assert all(f'id="{section}"' in done.stdout for section in SECTIONS)
