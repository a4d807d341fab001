"""Pages of ``docs/`` can be found, and links between Markdown files lead somewhere; needs no mkdocs."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
LINK = re.compile(
    r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)|!\[[^\]]*\]\(([^)\s]+)[^)]*\)"
)
CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$|^(?: {4}|\t).*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
FOLDERS = {".git", ".venv", "out", "demo-out", "site", "build", "dist", "fuzz-findings", "node_modules"}


def markdown_files() -> list[Path]:
    found = ROOT.rglob("*.md")
    return sorted(
        p for p in found if not FOLDERS & set(p.relative_to(ROOT).parts) and "golden" not in p.parts
    )


def links(text: str) -> list[str]:
    """Targets of links, but for those in code."""
    return [a or b for a, b in LINK.findall(CODE.sub(_without_code, text))]


def _without_code(found: re.Match[str]) -> str:
    return "code" if found[0].startswith("`") and not found[1] else ""


def anchors(text: str) -> set[str]:
    """Names that headings get on the site and on GitHub, as far as both agree."""
    names: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^(```).*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        names.add(re.sub(r"\s+", "-", plain))
    return names


def broken(page: Path, text: str) -> list[str]:
    wrong = []
    for link in links(text):
        if ELSEWHERE.match(link) or link.startswith("//"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target.is_relative_to(ROOT) and (
            target.is_relative_to(DOCS) or not page.is_relative_to(DOCS)
        )
        if link.startswith("/") or not inside or not target.exists():
            wrong.append(link)
        elif anchor and target.suffix == ".md":
            of_target = text if target == page else target.read_text(encoding="utf-8")
            wrong += [link] if anchor not in anchors(of_target) else []
    return wrong


def of_site(name: str) -> list[str]:
    """Entries of a list of ``mkdocs.yml``, in order; ``nav`` gives its pages."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    part = re.search(rf"^{name}:.*\n((?:[ ].*\n|\n|#.*\n)*)", text, re.MULTILINE)
    assert part, f"mkdocs.yml has no {name}"
    lines = [line.split(" #")[0].strip().removeprefix("- ") for line in part[1].splitlines()]
    entries = [line.rpartition(": ")[2] for line in lines if line and not line.startswith("#")]
    return [e for e in entries if e.endswith(".md")] if name == "nav" else entries


def test_every_page_is_in_the_navigation_or_in_a_folder_that_has_an_index_there() -> None:
    pages, folders = of_site("nav"), of_site("not_in_nav")
    assert len(pages) == len(set(pages))
    for folder in folders:
        assert f"{folder.strip('/')}/README.md" in pages
    lost = [
        name
        for path in sorted(DOCS.rglob("*.md"))
        if (name := path.relative_to(DOCS).as_posix()) not in pages
        and not any(f"/{name}".startswith(folder) for folder in folders)
    ]
    assert not lost, "give them a line in nav of mkdocs.yml"
    assert not [page for page in pages if not (DOCS / page).is_file()]


@pytest.mark.parametrize("folder", ["decisions", "benchmarks"])
def test_an_index_has_every_page_of_its_folder_once(folder: str) -> None:
    index = links((DOCS / folder / "README.md").read_text(encoding="utf-8"))
    pages = {path.name for path in (DOCS / folder).glob("*.md")} - {"README.md"}
    assert pages <= set(index), f"give them a line in docs/{folder}/README.md: {sorted(pages - set(index))}"


@pytest.mark.parametrize("page", markdown_files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    assert not broken(page, page.read_text(encoding="utf-8"))


def test_the_usual_files_are_looked_at() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in markdown_files()}
    wanted = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/index.md"}
    assert found >= {*wanted, "docs/architecture.md"}


@pytest.mark.parametrize("page", DECISIONS, ids=lambda p: p.stem)
def test_a_decision_has_number_date_parts_and_its_line_in_the_index(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    head = re.match(r"# (\d+)\. (.+)\n\nDate: (\d{4}-\d{2}-\d{2})\b", text)
    assert head, "a page begins with '# NUMBER. TITLE', an empty line and 'Date: YYYY-MM-DD'"
    number, title, date = head.groups()
    assert page.name.startswith(f"{int(number):04}-")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Measurement",
        "Consequences",
    ]
    line = f"| [{int(number):04}]({page.name}) | {date} | {title} |"
    assert line in (page.parent / "README.md").read_text(encoding="utf-8").splitlines()


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_architecture_stays_short() -> None:
    lines = (DOCS / "architecture.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](criteria.md) [b](https://example.org/x) [c](#here) <https://example.org>\n\n## Here\n", []),
        ("[a](nothing.md) and ![b](nothing.png)", ["nothing.md", "nothing.png"]),
        ("[a](criteria.md#no-such-heading)", ["criteria.md#no-such-heading"]),
        ("[a](../README.md) [b](/docs/criteria.md)", ["../README.md", "/docs/criteria.md"]),
        ("[`a`](nothing.md)", ["nothing.md"]),
        ("`[a](nothing.md)`\n\n    [a](nothing.md)\n\n```\n[a](nothing.md)\n```\n", []),
    ],
)
def test_what_leads_nowhere_is_found(text: str, wrong: list[str]) -> None:
    assert broken(DOCS / "index.md", text) == wrong
