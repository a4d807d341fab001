"""Units on this machine: results, failures of every kind, budgets, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import executor_units as work
import pytest
from executor_units import unit

from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.resources import Room, room_here, usable_cores
from edgeprune.executors.units import Failure, FailureKind, Outcome, Unit, Watcher

GIB = 1 << 30


def executor(most_units: int = 2, memory_bytes: int | None = None) -> LocalExecutor:
    return LocalExecutor(Room(most_units=most_units, cores=most_units, memory_bytes=memory_bytes))


class Told(Watcher):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def began(self, unit: Unit, attempt: int) -> None:
        self.lines.append(f"{unit.name} {attempt}")

    def tries_again(self, unit: Unit, failure: Failure) -> None:
        self.lines.append(f"{unit.name} again: {failure.sentence}")

    def ended(self, outcome: Outcome) -> None:
        self.lines.append(f"{outcome.unit.name} ended")


def draws(pauses: tuple[float, ...]) -> list[Unit]:
    return [
        unit(work.drawn, f"draw {seed}", seed=seed, payload={"pause_s": pause})
        for seed, pause in enumerate(pauses)
    ]


def test_results_depend_neither_on_workers_nor_on_order() -> None:
    units = draws((0.2, 0.0, 0.1, 0.0))
    one = [o.result for o in executor(1).run(units)]
    two = [o.result for o in executor(2).run(units)]
    turned = [o.result for o in executor(2).run(units[::-1])][::-1]
    assert one == two == turned
    assert len({tuple(r) for r in one}) == 4


def test_every_kind_of_end_is_told_and_others_go_on(tmp_path: Path) -> None:
    counts = {name: str(tmp_path / name) for name in ("once", "always")}
    told = Told()
    units = [
        unit(work.shared_sum, "sum", payload=1),
        unit(work.refused, "refused"),
        unit(work.faulty, "faulty"),
        unit(work.not_picklable, "secret"),
        unit(work.without_memory, "full"),
        unit(work.killed, "once", payload={"file": counts["once"], "times": 1}),
        unit(work.killed, "always", payload={"file": counts["always"], "times": 9}),
        unit(work.shared_sum, "last", payload=2),
    ]
    found = {o.unit.name: o for o in executor(2).run(units, shared=(10, 20), watcher=told)}

    assert (found["sum"].result, found["last"].result) == (31, 32)
    assert found["refused"].failure == Failure(
        kind=FailureKind.REFUSED, sentence="nothing holds 3 bytes", exit_status=12
    )
    faulty = found["faulty"].failure
    assert faulty is not None
    assert (faulty.kind, faulty.exit_status) == (FailureKind.FAULT, 70)
    assert "KeyError" in faulty.sentence
    assert "def faulty" in faulty.traceback or "in faulty" in faulty.traceback
    secret = found["secret"].failure
    assert secret is not None
    assert secret.kind is FailureKind.FAULT
    full = found["full"].failure
    assert full is not None
    assert (full.kind, found["full"].attempts) == (FailureKind.OUT_OF_MEMORY, 2)
    assert "there was not enough memory" in full.sentence
    assert (found["once"].result, found["once"].attempts) == ("done", 2)
    always = found["always"].failure
    assert always is not None
    assert always.sentence == (
        "its process was killed, as the system does where memory runs out; the last that it said was "
        "'about to go'"
    )
    assert (always.kind, found["always"].attempts) == (FailureKind.KILLED, 2)
    assert Path(counts["always"]).read_text() == "xx"
    assert [o.attempts for n, o in found.items() if n in ("sum", "refused", "faulty", "secret")] == [1] * 4
    assert sum(line.startswith("once again: its process was killed") for line in told.lines) == 1


def test_what_takes_more_than_its_share_is_tried_again_alone_with_all_of_it() -> None:
    told = Told()
    units = [
        unit(work.hungry, "large", payload={"bytes": GIB // 4}),
        unit(work.hungry, "too large", payload={"bytes": 3 * GIB // 4}),
        unit(work.drawn, "small", payload={}),
    ]
    found = {o.unit.name: o for o in executor(4, GIB // 2).run(units, watcher=told)}
    assert (found["large"].result, found["large"].attempts) == (1, 2)
    assert found["small"].attempts == 1
    failure = found["too large"].failure
    assert failure is not None
    assert failure.kind is FailureKind.OUT_OF_MEMORY
    assert failure.sentence.endswith("and may take 512 MiB")
    second = told.lines.index("large 2")
    assert not any(
        line.endswith((" 1", " 2")) for line in told.lines[second + 1 : told.lines.index("large ended")]
    )


def test_units_that_measure_run_alone_and_cores_are_kept() -> None:
    running: set[str] = set()
    seen: list[set[str]] = []

    class Seeing(Watcher):
        def began(self, unit: Unit, attempt: int) -> None:
            running.add(unit.name)
            seen.append(set(running))

        def ended(self, outcome: Outcome) -> None:
            running.discard(outcome.unit.name)

    units = [
        *draws((0.1, 0.1, 0.1)),
        unit(work.drawn, "alone", payload={"pause_s": 0.1}, alone=True),
        unit(work.drawn, "wide", payload={"pause_s": 0.1}, cores=2),
    ]
    LocalExecutor(Room(most_units=4, cores=2, memory_bytes=None)).run(units, watcher=Seeing())
    assert {"alone"} in seen
    assert all(len(each) == 1 for each in seen if each & {"alone", "wide"})
    assert max(map(len, seen)) == 2


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children(folder: Path, count: int) -> list[int]:
    until = time.monotonic() + 30
    while len(found := [int(p.name) for p in folder.iterdir() if p.name.isdigit()]) < count:
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_ctrl_c_lets_units_clean_up_and_leaves_no_process(tmp_path: Path) -> None:
    units = [unit(work.noted, str(n), payload={"folder": str(tmp_path), "pause_s": 60.0}) for n in range(3)]

    def press() -> None:
        children(tmp_path, 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            executor(2).run(units)
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    pids = children(tmp_path, 2)
    assert len(pids) == 2
    assert not any(map(alive, pids))
    assert all((tmp_path / f"{pid}.cleaned").exists() for pid in pids)


STARTER = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import executor_units as work
from edgeprune.executors.local import LocalExecutor
from edgeprune.executors.resources import Room
LocalExecutor(Room(most_units=1, cores=1, memory_bytes=None)).run(
    [work.unit(work.noted, payload=dict(folder={folder!r}, pause_s=60.0))])
"""


def test_workers_end_with_a_starter_that_is_killed(tmp_path: Path) -> None:
    """And a script without a guard for its main module starts them."""
    tests = Path(work.__file__).parent
    script = tmp_path / "script.py"
    script.write_text(STARTER.format(tests=str(tests), root=str(tests.parent), folder=str(tmp_path)))
    starter = subprocess.Popen([sys.executable, str(script)])
    (pid,) = children(tmp_path, 1)
    starter.kill()
    starter.wait()
    until = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (tmp_path / f"{pid}.cleaned").exists()


def test_room_follows_cores_and_memory() -> None:
    assert room_here(3, 9 * GIB) == Room(most_units=3, cores=max(3, usable_cores()), memory_bytes=9 * GIB)
    assert room_here(memory_bytes=GIB).most_units == 1
    assert room_here(memory_bytes=1).most_units == 1
    assert room_here(memory_bytes=2**50, cores_each=2 * usable_cores()).most_units == 1
    assert room_here(3, 9 * GIB).share_bytes == 3 * GIB


def test_the_processes_of_a_session_stay_and_end_with_it() -> None:
    """Half of the share is less than a process has in use, which counts between unlike units alone."""
    little = Room(most_units=1, cores=1, memory_bytes=48 * 2**20)
    with LocalExecutor(little).session() as session:
        assert session.most_units == 1
        (first,), (second,) = (session.run([unit(work.process, name)]) for name in ("a", "b"))
        assert first.result == second.result != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(first.result, 0)
    apart = LocalExecutor(little).run([unit(work.process, name) for name in ("a", "b")])
    assert len({outcome.result for outcome in apart}) == 2
