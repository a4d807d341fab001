"""``action.yml``: every shell step runs outside GitHub, with a made-up ``gh``, ``pip`` and compression."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from gate_files import sweep_folder, tiny_output

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")
GH = """#!{python}
import json, os, shutil, sys
state, arguments = os.environ["FAKE_GH"], sys.argv[1:]
with open(f"{{state}}/calls", "a") as stream:
    stream.write(json.dumps(arguments) + "\\n")
comment = f"{{state}}/comment"
if arguments[:2] == ["run", "list"]:
    print("4711" if os.path.isdir(f"{{state}}/artifact") else "")
elif arguments[:2] == ["run", "download"]:
    shutil.copytree(f"{{state}}/artifact", arguments[arguments.index("--dir") + 1])
elif "--method" in arguments:
    body = next(a for a in arguments if a.startswith("body=@"))
    shutil.copyfile(body.removeprefix("body=@"), comment)
elif arguments[0] == "api" and os.path.exists(comment):
    print("99")
"""
EDGEPRUNE = """#!{python}
import json, os, shutil, sys
if sys.argv[1] in ("compress", "sweep"):
    with open(os.environ["FAKE_GH"] + "/" + sys.argv[1], "w") as stream:
        json.dump(sys.argv[2:], stream)
    shutil.copytree(os.environ["FAKE_OUT"], sys.argv[sys.argv.index("--output") + 1], dirs_exist_ok=True)
    sys.exit(int(os.environ.get("FAKE_SWEPT", 0)) if sys.argv[1] == "sweep" else 0)
status = os.environ.get("FAKE_STATUS")
if status is not None:
    for option in ("--summary", "--comment") if status != "2" else ():
        with open(sys.argv[sys.argv.index(option) + 1], "w") as stream:
            stream.write("a made-up result")
    sys.exit(int(status))
from edgeprune.cli import run
sys.exit(run())
"""


@dataclass
class Runner:
    """A stand-in for GitHub's runner: inputs, outputs of steps, files of the environment."""

    folder: Path
    inputs: dict[str, str]
    pull_request: str = "7"
    fake_status: str | None = None
    fake_swept: str = "0"
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def value(self, name: str) -> str:
        kind, *rest = name.split(".")
        if kind == "inputs":
            return self.inputs[rest[0]]
        if kind == "steps":
            return self.outputs.get(rest[0], {}).get(rest[2], "")
        return {
            "github.event.pull_request.number": self.pull_request,
            "github.event.repository.default_branch": "main",
            "github.token": "made-up",
        }[name]

    def holds(self, condition: str | None) -> bool:
        """Whether the ``if`` of a step does: ``a == 'b'`` and ``a != 'b'`` joined by ``&&``."""
        for part in (condition or "").split("&&"):
            if part.strip() in ("", "always()"):
                continue
            name, operator, text = part.split()
            if (self.value(name) == text.strip("'")) != (operator == "=="):
                return False
        return True

    def run(self) -> int:
        """Status of the first step that fails, or 0."""
        for number, step in enumerate(STEPS):
            if "run" not in step or not self.holds(step.get("if")):
                continue
            assert step["shell"] == "bash"
            output = self.folder / f"output{number}"
            output.touch()
            given = {k: EXPRESSION.sub(lambda m: self.value(m[1]), v) for k, v in step.get("env", {}).items()}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.folder,
                env={**self.environment(), **given, "GITHUB_OUTPUT": str(output)},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            self.log = done.stdout + done.stderr
            written = dict(line.split("=", 1) for line in output.read_text().splitlines())
            self.outputs[step.get("id", "")] = written
            if done.returncode:
                return done.returncode
        return 0

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_REPOSITORY": "owner/name",
            "GITHUB_WORKFLOW_REF": "owner/name/.github/workflows/model.yml@refs/pull/7/merge",
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "RUNNER_TEMP": str(self.folder / "temp"),
            "FAKE_GH": str(self.folder / "gh"),
            "FAKE_OUT": str(self.folder / "made"),
            "FAKE_SWEPT": self.fake_swept,
            **({} if self.fake_status is None else {"FAKE_STATUS": self.fake_status}),
        }

    def calls(self) -> list[list[str]]:
        path = self.folder / "gh" / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def comment(self) -> str:
        return (self.folder / "gh" / "comment").read_text()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    for name in ("bin", "gh", "temp"):
        (tmp_path / name).mkdir()
    for name, text in (("gh", GH), ("edgeprune", EDGEPRUNE)):
        (tmp_path / "bin" / name).write_text(text.format(python=sys.executable))
        (tmp_path / "bin" / name).chmod(0o755)
    tiny_output(tmp_path / "made")
    given = {name: str(described["default"]) for name, described in ACTION["inputs"].items()}
    given |= {"install": "false", "model": "my model.pt2", "target": "rpi4", "time-limit": "5s"}
    return Runner(tmp_path, given)


def test_a_run_is_compared_with_the_artifact_of_the_main_branch_and_told_once(runner: Runner) -> None:
    runner.inputs["args"] = "--calibration 'my images' --ratio 0.3; touch hacked $(touch hacked)"
    assert runner.run() == 0, runner.log
    made = json.loads((runner.folder / "gh" / "compress").read_text())
    assert made[0] == "my model.pt2"
    assert made[made.index("--calibration") + 1] == "my images"
    assert not (runner.folder / "hacked").exists()
    assert "Nothing to check against yet" in runner.comment()
    assert runner.outputs["check"]["decision"] == "passed"

    shutil.copytree(runner.folder / "edgeprune-out", runner.folder / "gh" / "artifact")
    tiny_output(runner.folder / "made", width=1024, lost=90, seed=1)
    assert runner.run() == 1, runner.log
    assert "status 1" in runner.log
    assert "FAILED: ONNX file (max_size_ratio), quality (max_drop_points)" in runner.comment()
    assert "FAILED" in (runner.folder / "summary").read_text()
    assert Path(runner.outputs["check"]["junit"]).is_file()
    methods = [call[call.index("--method") + 1] for call in runner.calls() if "--method" in call]
    assert methods == ["POST", "PATCH"]
    lists = [call for call in runner.calls() if call[:2] == ["run", "list"]]
    assert all(call[call.index("--workflow") + 1] == "model.yml" for call in lists)


def test_a_job_of_a_matrix_sweeps_its_cells_and_has_a_comment_of_its_own(runner: Runner) -> None:
    runner.inputs |= {"model": "", "sweep": "my sweep.toml", "only": "*_rpi4_*", "args": "--max-parallel 2"}
    runner.inputs["artifact"] = "rpi4 cells"
    shutil.rmtree(runner.folder / "made")
    sweep_folder(runner.folder / "made", {"a": 8, "b": 8})
    assert runner.run() == 0, runner.log
    given = json.loads((runner.folder / "gh" / "sweep").read_text())
    assert given[0] == "my sweep.toml"
    assert given[-4:] == ["--max-parallel", "2", "--only", "*_rpi4_*"]
    assert not (runner.folder / "gh" / "compress").exists()
    assert runner.comment().startswith("<!-- edgeprune-check --><!-- rpi4_cells -->\n\n**rpi4_cells**\n")

    shutil.copytree(runner.folder / "edgeprune-out", runner.folder / "gh" / "artifact")
    sweep_folder(runner.folder / "made", {"a": 8}, failed=("b",))
    runner.fake_swept = "15"
    assert runner.run() == 1, runner.log
    assert "b FAILS: the cell failed: it was refused" in runner.comment()
    runner.fake_swept = "2"
    assert runner.run() == 2
    runner.inputs["model"] = "model.pt2"
    assert runner.run() == 2
    assert "Both model and sweep were given" in runner.log


def test_a_folder_as_baseline_without_a_pull_request(runner: Runner) -> None:
    runner.pull_request = ""
    shutil.copytree(runner.folder / "made", runner.folder / "baseline")
    runner.inputs["baseline"] = "baseline"
    runner.fake_status = "0"
    assert runner.run() == 0, runner.log
    assert runner.outputs["check"]["decision"] == "passed"
    assert runner.calls() == []
    runner.inputs["baseline"] = "nowhere"
    assert runner.run() == 2
    assert "::error title=edgeprune::The baseline is not in the repository" in runner.log


def test_an_error_of_the_gate_is_told_and_ends_the_job(runner: Runner) -> None:
    runner.inputs["budget"] = "missing.toml"
    runner.inputs["baseline"] = ""
    runner.fake_status = "3"
    assert runner.run() == 3
    assert runner.outputs["check"]["decision"] == "inconclusive"
    runner.fake_status = "2"
    assert runner.run() == 2
    assert runner.outputs["check"]["decision"] == "error"
    assert "Nothing was checked: status 2" in runner.comment()


def test_what_is_used_is_pinned_and_no_input_is_pasted_into_a_shell() -> None:
    for step in STEPS:
        assert not EXPRESSION.search(step.get("run", ""))
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}"))
    used = re.findall(r"uses: (actions/\S+)", (ROOT / "examples" / "ci" / "github.yml").read_text())
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", each) for each in used)


def test_the_scripts_and_examples_are_well_formed(tmp_path: Path) -> None:
    for script in sorted((ROOT / ".github" / "actions").glob("*.sh")):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    examples = ROOT / "examples" / "ci"
    for name, job in (("github.yml", "compress"), ("github-sweep.yml", "sweep")):
        given = yaml.safe_load((examples / name).read_text())["jobs"][job]["steps"][-1]["with"]
        assert given.keys() <= ACTION["inputs"].keys()
    assert yaml.safe_load((examples / "gitlab-ci.yml").read_text())["compress"]["script"]
    assert yaml.safe_load((examples / "pre-commit-config.yaml").read_text())["repos"]


def test_make_makes_a_result_the_baseline(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    shutil.copy(ROOT / "examples" / "ci" / "Makefile", tmp_path / "Makefile")
    tiny_output(tmp_path / "out")
    subprocess.run(["make", "-s", "baseline"], cwd=tmp_path, check=True)
    assert sorted(path.name for path in (tmp_path / "baseline").iterdir()) == ["model.onnx", "report.json"]
    told = subprocess.run(["make", "-n", "check"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "edgeprune check out --baseline baseline --budget budget.toml" in told.stdout
