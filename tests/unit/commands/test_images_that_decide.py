"""Each count of images that would decide something names what it would decide."""

from __future__ import annotations

from edgeprune.artifacts.quality import AccuracyKind
from edgeprune.artifacts.report import AnswerCounts
from edgeprune.commands.run.state import Run
from edgeprune.commands.run.usability import more_to_judge
from edgeprune.commands.search.default_goal import caution_about_a_point
from edgeprune.options.runs import CompressOptions


def test_more_images_would_decide_the_grade() -> None:
    counts = AnswerCounts(images=20, kept_from=20, lost=1, gained=0)
    advice = more_to_judge(counts, AccuracyKind.TOP1)
    assert advice.startswith("judge by more images, about ")
    assert "held out would decide the grade (--calibration, --held-out)" in advice


def test_few_images_cannot_show_a_point_at_all() -> None:
    run = Run(options=CompressOptions(model="net.pt", calibration="images"))
    caution_about_a_point(run, 40)
    assert run.notes == [
        "one of 40 held-out images is 2.5 points, so 1 point allows no loss at all; 100 held-out images are "
        "the fewest that can show a loss of 1 point at all (--calibration, --held-out)"
    ]
    caution_about_a_point(run, 100)
    assert len(run.notes) == 1
