"""The wheel works without the repository; the container, release and example files hold together."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from small_project import CHECKOUT

MOST_BYTES = 2_000_000
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, unpacked; built without the network."""
    if importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("build") is None:
        pytest.skip("needs the packages build and hatchling (extra dev)")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(CHECKOUT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def in_an_empty_folder(unpacked: Path, folder: Path, *arguments: str) -> str:
    """What edgeprune of the wheel prints there."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_works_without_the_repository(unpacked: Path, tmp_path: Path) -> None:
    """The demo itself is run as far as its files: that they can be compressed is tested elsewhere."""
    code = (
        "from pathlib import Path\n"
        "import edgeprune\n"
        "from edgeprune.cli.entry import main\n"
        f"assert Path(edgeprune.__file__).is_relative_to({str(unpacked)!r}), edgeprune.__file__\n"
        "assert main(['--version']) == 0\n"
        "assert main(['targets', 'list']) == 0\n"
        "assert main(['demo', '--help']) == 0\n"
        "from edgeprune.commands.demo.bundled_example import write_example\n"
        "example = write_example(Path('demo'), replace=False, asked_by='edgeprune demo')\n"
        "print(sorted(p.name for p in example.folder.iterdir()))\n"
    )
    said = in_an_empty_folder(unpacked, tmp_path, "-c", code)
    assert "rpi4" in said
    assert "digits_net.safetensors" in said
    assert (unpacked / "edgeprune" / "py.typed").is_file()
    assert (unpacked / "edgeprune" / "sharing" / "infer.py").is_file()


def test_the_container_copies_what_is_there_and_does_not_run_as_root() -> None:
    text = (CHECKOUT / "Dockerfile").read_text()
    lines = [line.split() for line in text.replace("\\\n", " ").splitlines() if line[:1].isupper()]
    bases = [words[1] for words in lines if words[0] == "FROM"]
    assert bases
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-slim-\w+", base) for base in bases), bases
    kept = re.findall(r"^!(.+)$", (CHECKOUT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [w for words in lines if words[0] == "COPY" for w in words[1:-1] if not w.startswith("/")]
    copied = [path.removeprefix("./") for path in copied if not path.startswith("--")]
    assert "edgeprune" in copied
    for path in copied:
        assert (CHECKOUT / path).exists(), path
        assert path.split("/")[0] in kept, f"{path} is kept from the builder by .dockerignore"
    build = json.dumps(
        re.findall(r'^"(\S+)" = "edgeprune/_data', (CHECKOUT / "pyproject.toml").read_text(), re.M)
    )
    assert all(any(name.startswith(path) for path in copied) for name in json.loads(build)), build
    users = [words[1] for words in lines if words[0] == "USER"]
    assert users
    assert users[-1] not in ("root", "0")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, rest in used:
        assert re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", rest), f"{action} does not say its version"


def test_only_what_publishes_may_publish() -> None:
    release = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "release.yml").read_text())
    assert release["permissions"] == {"contents": "read"}
    with_token = {n for n, job in release["jobs"].items() if "id-token" in job.get("permissions", {})}
    assert with_token == {"publish", "pages"}
    assert release["jobs"]["publish"]["needs"] == "build"
    assert "password" not in json.dumps(release)


# Examples


@pytest.fixture
def at_the_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.syspath_prepend(str(CHECKOUT / "examples"))
    monkeypatch.chdir(tmp_path)
    return CHECKOUT / "examples"


def loaded(path: Path) -> dict[str, object]:
    """Names that a script defines; it is not run as a script."""
    scope: dict[str, object] = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    return scope


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("classifier", ("40 of 40 images right",)),
        pytest.param("detector", (", ONNX: ",), marks=pytest.mark.wide),
        pytest.param("ci", ("passed: 3 of 3 checks",), marks=pytest.mark.wide),
        ("device", ("ms on rpi4 (predicted", "to copy to the board and measure there")),
    ],
)
def test_an_example_runs(
    at_the_examples: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    words: tuple[str, ...],
) -> None:
    main = loaded(at_the_examples / f"{name}.py")["main"]
    assert not main(tmp_path / "made")  # type: ignore[operator]
    said = capfd.readouterr().out
    assert all(each in said for each in words), said


@pytest.mark.wide
def test_the_notebook_is_bare_and_runs_in_order(at_the_examples: Path) -> None:
    notebook = json.loads((at_the_examples / "walkthrough.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    scope: dict[str, object] = {}
    for cell in cells:
        assert set(cell) <= {"cell_type", "id", "metadata", "source", "outputs", "execution_count"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            exec("".join(cell["source"]), scope)
    assert scope["report"].usability is not None  # type: ignore[attr-defined]
