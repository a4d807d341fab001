"""The model card, ``README.md``: Markdown below the metadata that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgeprune.sharing.facts import Metric, ModelFacts, without_folders
from edgeprune.showing import plain

_FILES = {
    "model.onnx": "the model, for onnxruntime and other runtimes",
    "model-fp32.onnx": "the same in 32 bits",
    "model.pt2": "the model as a PyTorch exported program (32 bits)",
    "weights.safetensors": "its weights under their original names",
    "surgery.json": "which channels were kept, for `edgeprune.apply_surgery`",
    "infer.py": "runs one image; needs numpy and onnxruntime alone, and Pillow for picture files",
    "report.html": "the report with plots, for a browser",
    "report.md": "the whole report, to read",
    "report.json": "the whole report, for programs",
    "bom.cdx.json": "bill of materials with hashes and a model card (CycloneDX)",
}


def render_model_card(facts: ModelFacts, files: Sequence[str]) -> str:
    """The card of a model, with what its folder has.

    There is no license in it: that of the network that was given holds on, which edgeprune does not know.
    """
    sections = (
        f"---\n{_front_matter(facts)}---\n\n# {_plain(facts.name)}",
        f"{_plain(facts.loss)} {_plain(facts.advice)}".strip(),
        _use(facts),
        _how(facts),
        _figures(facts.metrics),
        _limits(facts),
        _reproduce(facts),
        _listing(files),
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: ModelFacts) -> str:
    """YAML whose values are written as JSON, which YAML contains."""
    tags = ["edgeprune", "onnx", "pruning", "model-compression", "edge"]
    entries: dict[str, Any] = {"library_name": "onnx", "tags": tags}
    if facts.hub is not None:
        entries["pipeline_tag"] = facts.hub.task
        entries["metrics"] = [facts.hub.measure]
        entries["model-index"] = _model_index(facts)
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items())


def _model_index(facts: ModelFacts) -> list[dict[str, Any]]:
    assert facts.hub is not None
    judged = [metric for metric in facts.metrics if metric.value is not None][-1:]
    if not judged:
        return []
    dataset = {"name": facts.images, "type": "calibration images"}
    metric = {
        "type": facts.hub.measure,
        "name": judged[0].name,
        "value": judged[0].value,
        "confidence_interval_95": [judged[0].low, judged[0].high],
        "verified": False,
    }
    result = {"task": {"type": facts.hub.task}, "dataset": dataset, "metrics": [metric]}
    return [{"name": facts.name, "results": [result]}]


def _use(facts: ModelFacts) -> str:
    used = (
        "## Intended use\n\n"
        f"What {_plain(facts.source)} is used for, on a smaller device ({_plain(facts.target)} was the "
        "target), with images like those that it was compressed with. "
    )
    if not facts.single_image:
        return (
            f"{used}It takes several inputs: {facts.inputs}, each with the batch in front. Images "
            "among them are prepared as the entry `edgeprune.preprocessing` of the ONNX file says, all else "
            "goes in as it is."
        )
    return (
        f"{used}It takes images of {facts.inputs} (channels, height, width). How a picture becomes that is "
        "in the ONNX file itself, and `infer.py` applies it:\n\n"
        "    pip install numpy onnxruntime pillow\n"
        "    python infer.py picture.jpg"
    )


def _how(facts: ModelFacts) -> str:
    removed = "\n".join(f"- {_plain(line)}" for line in facts.removed)
    digest = "" if facts.source_sha256 is None else f" (SHA-256 `{facts.source_sha256}`)"
    recovered = "What stays was recovered; " if facts.recovered else ""
    return (
        "## How it was made\n\n"
        f"edgeprune {facts.edgeprune} compressed {_plain(facts.source)}{digest} with {_plain(facts.images)}. "
        f"What is gone:\n\n{removed}\n\n{recovered}`report.md` has every step."
    )


def _figures(metrics: tuple[Metric, ...]) -> str:
    rows = "\n".join(f"| {_cell(m.name)} | {_cell(m.words)} | {_cell(m.provenance)} |" for m in metrics)
    return f"## What it costs and what it lost\n\n| figure | value | how known |\n|---|---|---|\n{rows}"


def _limits(facts: ModelFacts) -> str:
    notes = [
        "The figures hold for images like those that judged it; on others they are unknown.",
        "Times that are predicted were not measured on the device.",
        "Errors and biases of the original remain, and single classes or groups of images may have lost more "
        "than the average: none was looked at apart.",
        *facts.notes,
    ]
    return "## Limits\n\n" + "\n".join(f"- {_plain(note)}" for note in notes)


def _reproduce(facts: ModelFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts.packages.items()))
    command = plain(" ".join(without_folders(facts.command).split()))
    return (
        "## Reproduce it\n\n"
        f"    {command}\n\n"
        f"Seed {facts.seed}, {versions}; calibration images with the fingerprint "
        f"`{facts.fingerprint_sha256}`. The same seed, machine and versions give the same bytes of the model."
    )


def _listing(files: Sequence[str]) -> str:
    rows = "\n".join(f"| `{name}` | {words} |" for name, words in _FILES.items() if name in files)
    return f"## Files\n\n| file | what it is |\n|---|---|\n{rows}"


def _plain(text: str) -> str:
    """Text of others in one line that Markdown, HTML and terminals leave as it is."""
    line = plain(" ".join(text.split()))
    for sign in "\\`*_[]<>#":
        line = line.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return line


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
