"""The runner sees what a real process does against the promise: here, code that misbehaves in each way."""

from __future__ import annotations

import sys
from pathlib import Path

import fuzz_runner
import pytest
from fuzz_commands import APPLY
from fuzz_judge import documented_statuses, faults
from fuzz_runner import observe
from fuzz_values import CANARY

MISBEHAVIOUR: dict[str, tuple[str, str]] = {
    "memory": ("x = bytearray(3 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1", "more than 2 GiB"),
    "memory of a child": (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import time\\nx = b\"1\" * (3 << 30)\\ntime.sleep(20)'])",
        "more than 2 GiB",
    ),
    "waiting": ("import time; time.sleep(100)", "it hangs"),
    "computing": ("while True: pass", "it hangs"),
    "code": (f"open('{CANARY}', 'w')", "code out of the file was run"),
    "left beside": ("open('odd', 'w')", "left behind: 'odd'"),
    "left in the temporary folder": ("import tempfile; tempfile.mkdtemp()", "left in the temporary folder"),
    "changed": ("open('nets.py', 'a').write('#')", "inputs were changed: 'nets.py'"),
    "crash": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
    "status": ("import os; os._exit(40)", "status 40, which is not documented"),
    "fault": ("1 / 0", "status 70"),
    "traceback": ("import traceback\ntry: 1 / 0\nexcept Exception: traceback.print_exc()", "a traceback"),
    "silent": ("import os; os._exit(3)", "0 sentences for one failure"),
    "control": ("print('\\x1b[2J')", "control characters on stdout: U+001B"),
}


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.wide if k == "memory of a child" else ()) for k in MISBEHAVIOUR],
)
def test_misbehaviour_is_seen(
    kind: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_runner, "IDLE_LIMIT_S", 1.0)
    monkeypatch.setattr(fuzz_runner, "CPU_LIMIT_S", 1.0 if kind == "computing" else 30.0)
    code, words = MISBEHAVIOUR[kind]
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "nets.py").write_text("def small():\n" + "".join(f"    {line}\n" for line in code.split("\n")))
    arguments = (APPLY, str(folder / "nets.py"), "surgery.json", "weights.safetensors")
    seen = observe(arguments, folder, tmp_path / "scratch", terminal=terminal)
    assert any(words in fault for fault in faults(seen, documented_statuses())), (seen, sys.platform)
