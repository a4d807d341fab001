"""A folder like a user's: small networks, their files, small image sets; and how commands run in it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

CHECKOUT = Path(__file__).resolve().parents[1]
DIGITS = CHECKOUT / "examples" / "digits"
DIGITS_MODEL = (
    str(DIGITS / "digits_net.safetensors"),
    "--arch",
    f"{DIGITS / 'model.py'}:digits_net",
)
DIGITS_DATA = str(CHECKOUT / "calibration" / "digits.npz")

NETWORKS = '''
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def features(self, x):
        return torch.relu(self.second(torch.relu(self.norm(self.first(x)))))

    def forward(self, x):
        pooled = self.features(x).mean((2, 3), keepdim=True)
        return self.head(pooled.view(x.size(0), -1))


class Blocks(nn.Module):
    """Three residual blocks, of which the middle one hardly adds anything."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(3)
        )
        with torch.no_grad():
            self.blocks[1][2].weight.mul_(1e-3)
            self.blocks[1][2].bias.mul_(1e-3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Named(Small):
    """Two outputs under names."""

    def forward(self, x):
        features = self.features(x)
        return {"logits": self.head(features.mean((2, 3))), "features": features}


class Colour(nn.Module):
    """Takes 3x32x32 and nothing else."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 32 * 32, 4)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).flatten(1))


class Decides(Small):
    """Its way depends on the values."""

    def forward(self, x):
        scores = super().forward(x)
        return scores if float(scores.sum()) > 0 else -scores


class Label(Small):
    def forward(self, x):
        return super().forward(x).argmax(1)


class Two(Small):
    def forward(self, x, y):
        return super().forward(x + y)


def small(): return Small()
def blocks(): return Blocks()
def named(): return Named()
def colour(): return Colour()
def decides(): return Decides()
def label(): return Label()
def two(): return Two()
def linear(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
def one_conv(): return nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten(1))
def raises(): raise RuntimeError("the width is missing")
def number(): return 7
'''


def networks(project: Path) -> Any:
    """The user's module of networks, importable by pickles as ``nets``."""
    spec = importlib.util.spec_from_file_location("nets", project / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nets"] = module
    spec.loader.exec_module(module)
    return module


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return (open, (str(self.marker), "w"))


def digits_like(count: int = 60, size: int = 8) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Grey images uint8 (count, size, size) whose bright rows tell their class of 4."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    images = rng.integers(0, 60, (count, size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 150
    return images, labels


def make_project(folder: Path) -> Path:
    """Fill ``folder``; every file has the weights of the same seeded ``small`` where it can."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nets.py").write_text(NETWORKS)
    nets = networks(folder)
    torch.manual_seed(0)
    _save_models(folder, nets)
    _save_bad_models(folder, nets)
    _save_images(folder)
    return folder


def _save_models(folder: Path, nets: Any) -> None:
    model = nets.small().eval()
    example = torch.rand(2, 1, 8, 8)
    torch.save(model.state_dict(), folder / "small.pt")
    save_file(model.state_dict(), folder / "small.safetensors")
    dynamic = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(dynamic, str(folder / "dynamic.pt2"))
    torch.export.save(torch.export.export(model, (example[:1],)), str(folder / "fixed.pt2"))
    scattered = {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in model.state_dict().items()}
    with patch("torch.serialization.location_tag", lambda _storage: "cuda:0"):
        torch.save(scattered, folder / "from_gpu.pt")
    torch.save(model.train(), folder / "whole.pt")
    torch.save(model.double(), folder / "double.pt")
    torch.save(model.half().state_dict(), folder / "half.pt")
    for name in ("blocks", "named", "colour", "linear", "one_conv"):
        torch.save(getattr(nets, name)().state_dict(), folder / f"{name}.pt")


def _save_bad_models(folder: Path, nets: Any) -> None:
    state = {k: v.clone() for k, v in nets.small().state_dict().items()}
    torch.save({k: v for k, v in state.items() if not k.startswith("norm.")}, folder / "part.pt")
    state["second.weight"][3, 1] = float("nan")
    torch.save(state, folder / "nan.pt")
    torch.jit.save(torch.jit.script(nets.small().eval()), str(folder / "script.pt"))
    torch.save({"state_dict": Trap(folder / "executed")}, folder / "trap.pt")
    (folder / "text.pt").write_text("this is no model\n" * 20)
    (folder / "noise.pt2").write_bytes(np.random.default_rng(1).bytes(4000))
    with zipfile.ZipFile(folder / "dynamic.pt2") as whole:
        size = max(info.header_offset for info in whole.infolist())
    (folder / "cut.pt2").write_bytes((folder / "dynamic.pt2").read_bytes()[:size])


def _save_images(folder: Path) -> None:
    images, labels = digits_like()
    np.savez(folder / "grey.npz", images=images, labels=labels)
    colour = np.repeat(digits_like(size=32)[0][..., None], 3, axis=-1)
    np.savez(folder / "colour.npz", images=colour, labels=labels)
    (folder / "empty").mkdir()
    for where in ("flat", "damaged", *(f"classes/c{c}" for c in range(4))):
        (folder / where).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = Image.fromarray(image)
        picture.save(folder / f"flat/{index:02}.png")
        picture.save(folder / f"classes/c{label}/{index:02}.png")
    (folder / "damaged/00.png").write_bytes((folder / "flat/00.png").read_bytes())
    (folder / "damaged/01.png").write_bytes((folder / "flat/01.png").read_bytes()[:60])


def environment(scratch: Path) -> dict[str, str]:
    """One thread, a wide terminal, temporary and downloaded files below ``scratch``."""
    scratch.mkdir(parents=True, exist_ok=True)
    own = {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "TMPDIR": str(scratch),
        "TORCH_HOME": str(scratch / "hub"),
    }
    return {**os.environ, **own}


def run(*arguments: str, cwd: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """``edgeprune`` as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=cwd,
        env=environment(scratch),
    )


def run_forked(
    *arguments: str, cwd: Path, scratch: Path, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own that need not import the heavy libraries again."""
    scratch.mkdir(parents=True, exist_ok=True)
    files = (scratch / "stdout", scratch / "stderr")
    status = _ended(fork_command(*arguments, cwd=cwd, scratch=scratch, streams=files, prepare=prepare))
    printed, said = (file.read_text() for file in files)
    return subprocess.CompletedProcess(arguments, status, printed, said)


def run_in_turn(
    commands: Sequence[tuple[str, ...]], *, cwd: Path, scratch: Path
) -> list[subprocess.CompletedProcess[str]]:
    """One after the other in one forked process, which does what is done once only once."""
    scratch.mkdir(parents=True, exist_ok=True)
    _ended(_forked(_each_command, (commands, cwd, scratch)))
    found = []
    for number, arguments in enumerate(commands):
        ended = scratch / f"{number}-status"
        assert ended.exists(), f"the process ended in {arguments}"
        printed, said = ((scratch / f"{number}-{name}").read_text() for name in ("stdout", "stderr"))
        found.append(subprocess.CompletedProcess(arguments, int(ended.read_text()), printed, said))
    return found


def fork_command(
    *arguments: str,
    cwd: Path,
    scratch: Path,
    streams: tuple[Path, Path],
    prepare: Callable[[], None] | None = None,
    main: Callable[[Sequence[str]], int] | None = None,
) -> Any:
    """The process, started and not waited for; what it writes on stdout and stderr goes to ``streams``.

    ``prepare`` runs in it first; ``main`` stands for that of ``edgeprune``. Both are functions of a module.
    """
    return _forked(_command, (arguments, cwd, environment(scratch), streams, prepare, main))


def _forked(target: Callable[..., None], arguments: tuple[object, ...]) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    process = context.Process(target=target, args=arguments)
    # The server starts with the first process; it does not look where sys.path does, and says nothing of it.
    # Its code is that of this checkout, whichever one is installed.
    places = os.pathsep.join(map(str, Path(__file__).resolve().parents[:2]))
    with patch.dict(os.environ, {"PYTHONPATH": places}):
        process.start()
    return process


def _ended(process: Any) -> int:
    process.join(timeout=200)
    assert process.exitcode is not None, "the command hangs"
    status: int = process.exitcode
    return status


def _each_command(commands: Sequence[tuple[str, ...]], cwd: Path, scratch: Path) -> None:
    for number, arguments in enumerate(commands):
        streams = (scratch / f"{number}-stdout", scratch / f"{number}-stderr")
        try:
            _command(arguments, cwd, environment(scratch), streams)
        except SystemExit as done:
            sys.stdout.flush()
            sys.stderr.flush()
            (scratch / f"{number}-status").write_text(str(done.code))


def _command(
    arguments: tuple[str, ...],
    cwd: Path,
    variables: dict[str, str],
    streams: tuple[Path, Path],
    prepare: Callable[[], None] | None = None,
    main: Callable[[Sequence[str]], int] | None = None,
) -> None:
    for descriptor, file in zip((1, 2), streams, strict=True):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (
        open(d, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115 - until the process ends
        for d in (1, 2)
    )
    os.chdir(cwd)
    os.environ.update(variables)
    tempfile.tempdir = None
    torch.set_num_threads(1)
    sys.argv = ["edgeprune", *arguments]
    from edgeprune import cli
    from edgeprune.system import progress

    # Made while the fork server's own streams were in place.
    progress.console.file = sys.stderr
    if prepare is not None:
        prepare()
    sys.exit((main or cli.main)(arguments))


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below ``folder`` with the hash of its bytes or where it leads, but compiled Python."""
    return {
        str(path.relative_to(folder)): _seen(path)
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def _seen(path: Path) -> str:
    if path.is_symlink():  # which may lead to what has no end
        return f"-> {os.readlink(path)}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def leftovers(scratch: Path) -> list[str]:
    """Temporary files of edgeprune that were not removed."""
    return sorted(path.name for path in scratch.glob("edgeprune-*"))


STAGE_LINE = re.compile(r"\[(\d+:)?\d?\d:\d\d\] [a-z0-9][^:]*(: .+)?")
"""What is said off a terminal when a stage begins, and within a long one."""


def other_lines(said: str) -> list[str]:
    """Lines on stderr without those of the progress."""
    return [line for line in said.splitlines() if not STAGE_LINE.fullmatch(line)]


def sentence(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The one sentence on stderr of a command that failed with ``status`` and printed no result."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    *before, last = other_lines(done.stderr)
    assert done.stderr.endswith(f"{last}\n")
    assert all(line.startswith(("warning: ", "calibration data: ", "defaults from ")) for line in before)
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert len(last) < 700
    return last


def of_all_workers(base: Path) -> Path:
    """The folder of temporary files of the whole run, of which each worker has its own below."""
    return base.parent if "popen-" in base.name else base


def filled_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, filled by whoever comes first; others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            fill(folder)
            (folder / "ready").touch()
    return folder


def compressed_digits(base: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The digits example compressed, with ``--json``, and what the command said."""

    def command(folder: Path) -> tuple[str, ...]:
        data = ("--calibration", DIGITS_DATA, "--target", "rpi4", "--ratio", "0.25")
        return (*DIGITS_MODEL, *data, "-o", str(folder / "out"))

    def fill(folder: Path) -> None:
        asked = (*command(folder), "--threads", "1", "--json")
        done = run("compress", *asked, cwd=folder, scratch=folder / "scratch")
        assert done.returncode == 0, done.stderr
        (folder / "log").write_text(f"{done.stderr}\0{done.stdout}")

    folder = filled_once(of_all_workers(base) / "compressed-digits", fill)
    said, _, printed = (folder / "log").read_text().partition("\0")
    return folder / "out", subprocess.CompletedProcess(command(folder), 0, printed, said)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Commands started here take Ctrl-C and SIGHUP, even where these tests run without (``nohup``, ``&``)."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def own_group() -> None:
    """Make this process a group of its own, so that all of it can be signalled, with the usual Ctrl-C."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def signalled(
    *arguments: str,
    cwd: Path,
    scratch: Path,
    by: signal.Signals,
    when: Callable[[str], bool],
    delay_s: float = 0.0,
) -> subprocess.CompletedProcess[str]:
    """Fork a command and signal its whole group once ``when`` holds of what it has said on stderr.

    The status is negative where the signal ended it.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    printed, said = scratch / "stdout", scratch / "stderr"
    said.touch()
    process = fork_command(*arguments, cwd=cwd, scratch=scratch, streams=(printed, said), prepare=own_group)
    while not when(said.read_text()):
        assert process.is_alive(), f"the run ended before it was to be stopped: {said.read_text()}"
        time.sleep(0.001)
    time.sleep(delay_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, by)
    status = _ended(process)
    return subprocess.CompletedProcess(arguments, status, printed.read_text(), said.read_text())


def interrupted(
    project: Path, scratch: Path, stage: str, *arguments: str, delay_s: float = 0.2
) -> subprocess.CompletedProcess[str]:
    """Run a command and send Ctrl-C, which goes to the whole process group, shortly after a stage began."""
    return signalled(
        "-v",
        *arguments,
        cwd=project,
        scratch=scratch,
        by=signal.SIGINT,
        when=lambda said: f"info: {stage}\n" in said,
        delay_s=delay_s,
    )


def digits_network() -> nn.Module:
    """The digits example's own class with its trained weights, in evaluation mode."""
    from edgeprune.loading import load_model

    path, _, architecture = DIGITS_MODEL
    return load_model(path, architecture=architecture).module
