"""Plain progress lines: what they say and when, and that nothing of them outlives its block."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edgeprune.system import progress
from edgeprune.system.progress import Display, LineProgress


class Clock:
    """Goes on when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Lines written, by a display with a clock of the test's own."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.display = LineProgress(self.lines.append, clock=self.clock)

    def after(self, seconds: float) -> list[str]:
        """Lines that come once so many seconds have gone by."""
        self.clock.now += seconds
        before = len(self.lines)
        self.display.tick()
        return self.lines[before:]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(autouse=True)
def _silent_afterwards() -> Iterator[None]:
    before = threading.active_count()
    yield
    progress.show(Display.NOTHING)
    assert threading.active_count() == before


def test_a_stage_is_a_line_with_the_time_since_the_start(told: Told) -> None:
    with told.display.stage("load"):
        told.clock.now += 65.4
    told.clock.now += 3600
    with told.display.stage("rank"):
        pass
    assert told.lines == ["[0:00] load", "[1:01:05] rank"]


def test_a_stage_that_follows_itself_is_one_line(told: Told) -> None:
    for _ in range(3):
        with told.display.stage("measuring on board"):
            told.after(1.0)
    with told.display.stage("export"):
        told.after(1.0)
    with told.display.stage("measuring on board"):
        told.after(1.0)
    assert [line.split("] ")[1] for line in told.lines] == [
        "measuring on board",
        "export",
        "measuring on board",
    ]


def test_a_long_stage_says_every_30_s_that_it_goes_on(told: Told) -> None:
    with told.display.stage("export"):
        assert told.after(29.9) == []
        assert told.after(0.2) == ["[0:30] export: goes on, 0:30 so far"]
        assert told.after(29) == []
        assert told.after(1.5) == ["[1:00] export: goes on, 1:00 so far"]
    assert told.after(100) == []


def test_a_task_tells_how_far_it_is_and_the_time_left(told: Told) -> None:
    with told.display.stage("rank"), told.display.task("ranking channels", 100) as advance:
        assert told.after(30) == ["[0:30] rank: ranking channels, 0 of 100"]
        advance(10)
        assert told.after(30) == ["[1:00] rank: ranking channels, 10 of 100"]
        advance(20)
        told.clock.now += 10
        advance(30)
        assert told.after(20) == ["[1:30] rank: ranking channels, 60 of 100, about 0:48 left"]


def test_units_that_were_done_before_do_not_count_as_speed(told: Told) -> None:
    with told.display.stage("rank"), told.display.task("ranking channels", 1000) as advance:
        advance(900)
        told.clock.now += 40
        advance(20)
        (line,) = told.after(0)
    assert line == "[0:40] rank: ranking channels, 920 of 1000, about 2:40 left"


def test_a_task_outside_of_a_stage_is_only_told_when_it_is_long(told: Told) -> None:
    told.clock.now += 300
    with told.display.task("reading images", 500) as advance:
        advance(5)
        assert told.after(20) == []
        assert told.after(11) == ["[5:31] reading images: 5 of 500"]


def test_the_innermost_stage_tells_and_then_the_outer_one_again(told: Told) -> None:
    with told.display.stage("candidate 1"):
        with told.display.stage("quantize"):
            assert told.after(31) == ["[0:31] quantize: goes on, 0:31 so far"]
        assert told.after(31) == ["[1:02] candidate 1: goes on, 1:02 so far"]


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, RuntimeError, GeneratorExit])
def test_nothing_is_written_after_an_exception_and_no_thread_is_left(stopped: type[BaseException]) -> None:
    lines: list[str] = []
    threads = threading.active_count()

    def stopped_after_three_lines() -> None:
        display = LineProgress(lines.append, every_s=0.02)
        with display.stage("rank"), display.task("ranking", 10) as advance:
            advance(1)
            assert threading.active_count() == threads + 1
            deadline = time.monotonic() + 20
            while len(lines) < 3 and time.monotonic() < deadline:
                time.sleep(0.005)
            raise stopped

    with pytest.raises(stopped):
        stopped_after_three_lines()
    written = list(lines)
    assert written[0] == "[0:00] rank"
    assert written[1] == "[0:00] rank: ranking, 1 of 10"
    assert threading.active_count() == threads
    time.sleep(0.1)
    assert lines == written


def test_lines_go_to_stderr_alone(capsys: pytest.CaptureFixture[str]) -> None:
    progress.show(Display.LINES)
    with progress.stage("load"), progress.task("reading", 3) as advance:
        advance(3)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "[0:00] load\n")


def test_a_stderr_that_is_closed_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _text: str) -> None:
            raise BrokenPipeError

    progress.show(Display.LINES)
    monkeypatch.setattr("sys.stderr", Closed())
    with progress.stage("load"):
        done = True
    assert done


@pytest.mark.parametrize("display", [Display.NOTHING, Display.BARS])
def test_only_lines_tell_stages(display: Display, capsys: pytest.CaptureFixture[str]) -> None:
    progress.show(display)
    with progress.stage("load"):
        pass
    assert capsys.readouterr() == ("", "")


def test_the_python_api_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody asked for a display, as in a program that imports edgeprune."""
    with progress.stage("load"), progress.task("reading", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")
