"""Freed memory stays with the process: fewer page faults, the same results, harmless where it is unknown."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from edgeprune.system import memory

WORK = """
import hashlib, resource, sys
import torch
from edgeprune.system.memory import keep_freed_memory
torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
torch.manual_seed(0)
weights, images = torch.randn(16, 16, 3, 3), torch.randn(8, 16, 192, 192)
def once():
    found = images
    for _ in range(4):
        found = torch.relu(torch.nn.functional.conv2d(found, weights, padding=1)) * 0.1
    return found
for _ in range(3):  # until there is enough of it
    once()
counts = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    result = once()
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# The median, since a kernel that reclaims memory at its leisure adds some now and then.
faults = sorted(counts)[len(counts) // 2]
print(kept, faults, hashlib.sha256(result.numpy().tobytes()).hexdigest())
"""

gnu_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")


@pytest.mark.wide
@gnu_only
def test_buffers_are_used_again_and_results_are_the_same():
    def run(how: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", WORK, how], capture_output=True, text=True, check=True, timeout=300
        )
        return done.stdout.split()

    (_, many, before), (kept, few, after) = run("not"), run("kept")
    assert kept == "True"
    assert int(few) < int(many) / 10
    assert before == after


def test_another_c_library_is_left_alone(monkeypatch):
    class Other:
        """One without the GNU names."""

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Other())
    assert memory.keep_freed_memory.__wrapped__() is False


def test_no_c_library_to_ask_is_no_fault(monkeypatch):
    def refuse(_name: object) -> None:
        raise TypeError("a name is needed")  # what Windows says

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert memory.keep_freed_memory.__wrapped__() is False


@gnu_only
def test_ranking_keeps_memory(monkeypatch):
    """What puts a scoring context together asks for it, before the first activation."""
    from edgeprune.commands.run import scoring

    class AskedError(Exception):
        """That it was."""

    def asked() -> bool:
        raise AskedError

    monkeypatch.setattr(scoring, "keep_freed_memory", asked)
    with pytest.raises(AskedError):
        scoring.scoring_context(None, None, ratio=0.25)


GIVEN_BACK = """
import re, sys
import torch
from edgeprune.system.memory import give_back_freed_memory, keep_freed_memory
def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1000
print(give_back_freed_memory())
keep_freed_memory()
tensors = [torch.ones(2**20) for _ in range(100)]
last = tensors[-1].clone()  # above what is freed, so that the end of the heap cannot shrink
del tensors
held = resident_mb()
print(give_back_freed_memory(), held - resident_mb(), float(last.sum()))
"""


@gnu_only
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_freed_goes_back_when_asked_for_and_only_where_it_was_kept():
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True, timeout=300
    )
    before, asked, megabytes, total = done.stdout.split()
    assert (before, asked, float(total)) == ("False", "True", 2**20)
    assert float(megabytes) > 300


def test_every_stage_gives_memory_back(monkeypatch):
    from edgeprune.commands.run import state

    asked: list[str] = []
    monkeypatch.setattr(state, "give_back_freed_memory", lambda: asked.append("stage"))
    run = state.Run(options=None)
    with run.stage("one"):
        assert not asked
    assert asked == ["stage"]
