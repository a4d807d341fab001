"""Curves that ``compress`` reports of its own ranking: those of ``rank``, on images that judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_project import DIGITS_DATA, DIGITS_MODEL

import edgeprune
from edgeprune.commands.report import ranking_curves
from edgeprune.reporting.json_report import read_json
from edgeprune.reporting.ranking.files import read_ranking

WEIGHTS, _, ARCH = DIGITS_MODEL
FAST: dict[str, Any] = {
    "target": "rpi4",
    "ratio": 0.2,
    "threads": 1,
    "criterion": "l1",
    "effort": edgeprune.Effort.QUICK,
}


def compressed(folder: Path, **more: Any) -> edgeprune.RunReport:
    return edgeprune.compress(WEIGHTS, arch=ARCH, calibration=DIGITS_DATA, output=folder, **{**FAST, **more})


def ranked_by_l1(folder: Path) -> edgeprune.RankingReport:
    return edgeprune.rank(
        WEIGHTS,
        arch=ARCH,
        calibration=DIGITS_DATA,
        criteria=("l1",),
        effort=edgeprune.Effort.QUICK,
        output=folder,
    )


@pytest.fixture(scope="module")
def folder_of_rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked") / "rank"
    ranked_by_l1(folder)
    return folder


def test_they_are_those_of_rank_and_stand_in_the_report_and_on_the_page(
    folder_of_rank: Path, tmp_path: Path
) -> None:
    ranked = read_ranking(folder_of_rank / "ranking.json")
    report = compressed(tmp_path / "out")
    curves = report.curves
    assert curves is not None
    assert (curves.loss, curves.layers) == (ranked.loss, ())
    assert curves.removal == ranked.removal
    (sizes,), (of_rank,) = curves.coalition_sizes, ranked.coalition_sizes
    assert (sizes.players, sizes.groups) == (of_rank.players, of_rank.groups)
    assert sizes.images < of_rank.images, "a part of the effort"
    assert read_json(tmp_path / "out" / "report.json") == report
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Coalition size against value" in page
    assert "What is lost while filters go, absent channels reconstructed" in page


def test_a_ranking_that_was_given_has_its_own(folder_of_rank: Path, tmp_path: Path) -> None:
    report = compressed(tmp_path / "out", criterion=None, ranking=folder_of_rank)
    assert report.curves is None
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Coalition size against value" in page
    assert "not valued in this run" not in page


def test_large_networks_are_followed_on_fewer_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_curves, "_REMOVAL_MACS", 1.0)
    curves = compressed(tmp_path / "out").curves
    assert curves is not None
    assert curves.removal.images == 32
    assert np.isfinite([point.loss for point in curves.removal.masked[0].points]).all()
    values = [point.mean for point in curves.coalition_sizes[0].points]
    assert values[-1] == max(values)
    assert values[0] < values[-1], "nobody is worth less than all"


def test_without_time_they_are_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking_curves, "time_left_s", lambda _run: 0.0)
    report = compressed(tmp_path / "out", max_time_s=600.0)
    assert report.curves is None
    assert any("--max-time: curves of coalition sizes" in note for note in report.notes)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "not valued in this run" in page


def test_a_run_is_delivered_without_curves_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("not enough memory: you tried to allocate 5 bytes")

    monkeypatch.setattr(ranking_curves, "size_curves", failing)
    report = compressed(tmp_path / "out")
    assert report.curves is None
    assert any("could not be followed for the report (not enough memory" in note for note in report.notes)
    assert (tmp_path / "out" / "report.html").is_file()
