"""The result file of the coupling benchmark."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from common import header
from coupling_models import BenchModel

OURS, THEIRS = TOOLS = ("edgeprune", "torch-pruning")
NOT_RUN = "not run"
TOLERANCE = 1e-10
LIBRARIES = ("torchvision", "segmentation", "video", "timm")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What both tools told about one model."""

    model: BenchModel
    tools: dict[str, dict[str, Any]]

    def ran(self, tool: str) -> bool:
        """Whether the tool was tried on this model."""
        return self.tools[tool].get("error") != NOT_RUN

    def works(self, tool: str) -> bool:
        """Whether channels could be removed and the smaller network runs."""
        facts = self.tools[tool]
        return bool(facts.get("forward_runs")) and facts.get("removed_share", 0) > 0

    def exact(self) -> bool:
        """Whether our pruned network computes what the masked one does."""
        facts = self.tools[OURS]
        return self.works(OURS) and "error" not in facts and deviation(facts) < TOLERANCE

    def reason(self, tool: str) -> str | None:
        """Why the tool failed, in one line."""
        facts = self.tools[tool]
        if "error" in facts:
            place = f" ({facts['place']})" if facts.get("place") else ""
            return f"{facts.get('stage', '')}: {facts['error']}{place}" if self.ran(tool) else None
        if not self.works(tool):
            return "no channel can be removed" if facts.get("removed_share") == 0 else "another output shape"
        if tool == OURS and not self.exact():
            return f"deviation {deviation(facts):.1e}, worst alone {facts.get('worst_group')}"
        return None


def deviation(facts: dict[str, Any]) -> float:
    """Worst of all groups together and each alone."""
    found = [facts[k] for k in ("deviation", "group_deviation") if k in facts]
    return max(found) if found else float("inf")


def render(rows: list[Row], *, jobs: int, timm: bool) -> str:
    """The whole file."""
    revisions = sorted({r for row in rows for f in row.tools.values() if (r := f.get("revision"))})
    text = header(
        "Coupling analysis and pruning over many architectures",
        "python tests/benchmarks/bench_coupling.py --results FOLDER",
        "0",
        1,
    )
    text += (
        "Every model has random weights, random affine parameters and batch norms calibrated on random\n"
        "images, and the smallest input that it works on. A process each, 1 thread, "
        f"{jobs} at a time; a tiny\nnetwork is exported first, so imports do not count. Measured code: "
        f"{', '.join(revisions) or 'unknown'}.\n"
    )
    if not timm:
        text += "\ntimm is not installed: its models were left out.\n"
    return text + "".join(part(rows) for part in (_summary, _table, _failures, _frozen))


def _summary(rows: list[Row]) -> str:
    text = "\n## Summary\n\n| models | run | edgeprune works | exact | Torch-Pruning works (of those run) |\n"
    text += "|---|---|---|---|---|\n"
    for name in (*LIBRARIES, "all"):
        these = [r for r in rows if name in ("all", r.model.library) and r.ran(OURS)]
        if not these:
            continue
        theirs = [r for r in these if r.ran(THEIRS)]
        text += (
            f"| {name} | {len(these)} | {sum(r.works(OURS) for r in these)} "
            f"| {sum(r.exact() for r in these)} | {sum(r.works(THEIRS) for r in theirs)} of {len(theirs)} |\n"
        )
    text += (
        "\n*Works*: half of the channels of every group leave and the smaller network runs. *Exact*:\n"
        "besides, in float64 it computes what masking those channels gives, to less than "
        f"{TOLERANCE:.0e}\nof the largest output (half of all groups at once, and half of single groups as\n"
        "far as time allows; Torch-Pruning has no such mask to compare with).\n"
        "Torch-Pruning: magnitude pruner, "
        "channel ratio 0.5, the classifier ignored, defaults otherwise.\n\n"
        "| CPU time and others | median | worst |\n|---|---|---|\n"
    )
    for title, tool, key in (
        ("edgeprune: capture", OURS, "capture_s"),
        ("edgeprune: coupling analysis", OURS, "couple_s"),
        ("edgeprune: pruning step", OURS, "step_s"),
        ("Torch-Pruning: graph and groups", THEIRS, "graph_s"),
        ("Torch-Pruning: pruning step", THEIRS, "step_s"),
    ):
        text += _extremes(title, rows, lambda r, t=tool, k=key: r.tools[t].get(k), "{:.2f} s")
    both = [r for r in rows if r.works(OURS) and r.works(THEIRS)]
    text += _extremes("edgeprune: peak memory, models' sizes", rows, _peak, "{:.1f}")
    text += _extremes("edgeprune: deviation", rows, lambda r: _finite(r.tools[OURS]), "{:.1e}")
    text += _extremes("edgeprune: deviation of ONNX, float32", rows, _onnx, "{:.1e}")
    same = sum(abs(r.tools[OURS]["macs_left"] - r.tools[THEIRS]["macs_left"]) < 0.01 for r in both)
    return (
        text
        + f"\nMACs left after the step agree within 0.01 on {same} of {len(both)} models that both prune.\n"
    )


def _extremes(title: str, rows: list[Row], value: Callable[[Row], float | None], form: str) -> str:
    found = [(v, r.model.key) for r in rows if (v := value(r)) is not None]
    if not found:
        return ""
    worst, name = max(found)
    middle = statistics.median(v for v, _ in found)
    return f"| {title} | {form.format(middle)} | {form.format(worst)} ({name}) |\n"


def _peak(row: Row) -> float | None:
    facts = row.tools[OURS]
    return facts["peak_mb"] / facts["size_mb"] if "peak_mb" in facts else None


def _finite(facts: dict[str, Any]) -> float | None:
    return deviation(facts) if "deviation" in facts else None


def _onnx(row: Row) -> float | None:
    return row.tools[OURS].get("onnx_deviation")


def _table(rows: list[Row]) -> str:
    text = (
        "\n## Models\n\nTimes in CPU seconds of the one thread; *removable*: share of all layers' "
        "output\nchannels that can leave; "
        "TP: Torch-Pruning; *memory*: peak up to the step, in sizes of the model.\n\n"
        "| model | input | capture | couple | step | players | groups | removable | MACs left | deviation "
        "| groups checked | memory | TP graph | TP step | TP channels removed | TP MACs left |\n"
        "|" + "---|" * 16 + "\n"
    )
    for row in rows:
        ours, theirs = row.tools[OURS], row.tools[THEIRS]
        if not row.ran(OURS):
            text += f"| {row.model.key} | not run |{' |' * 14}\n"
            continue
        cells = [
            row.model.key,
            "x".join(str(s) for s in row.model.input_shape),
            *(_cell(ours, k, ".2f") for k in ("capture_s", "couple_s", "step_s")),
            *(_cell(ours, k, "d") for k in ("players", "groups")),
            *(_cell(ours, k, ".2f") for k in ("prunable_share", "macs_left")),
            f"{deviation(ours):.1e}" if "deviation" in ours else "failed",
            _cell(ours, "groups_checked", "d"),
            f"{peak:.1f}" if (peak := _peak(row)) is not None else "",
            *(_cell(theirs, k, ".2f") for k in ("graph_s", "step_s", "removed_share", "macs_left")),
        ]
        if not row.works(THEIRS) and row.ran(THEIRS):
            cells[-1] = "failed"
        text += f"| {' | '.join(cells)} |\n"
    return text


def _cell(facts: dict[str, Any], key: str, form: str) -> str:
    return format(facts[key], form) if facts.get(key) is not None else ""


def _failures(rows: list[Row]) -> str:
    text = "\n## Failures\n"
    for tool, title in ((OURS, "edgeprune"), (THEIRS, "Torch-Pruning")):
        found = [(r.model.key, why) for r in rows if (why := r.reason(tool))]
        text += f"\n{title}: {len(found)}.\n" + "\n" * bool(found)
        text += "".join(f"- {name}: {_plain(why)}\n" for name, why in found)
    return text


def _plain(text: str) -> str:
    """Without folders and without marks that Markdown would read."""
    words = [w.rpartition("/")[2] if w.startswith(("/", "(/")) else w for w in text.split()]
    return " ".join(words).replace("<", "&lt;").replace("|", "/")


def _frozen(rows: list[Row]) -> str:
    ran = [r for r in rows if "frozen" in r.tools[OURS]]
    channels: Counter[str] = Counter()
    models: dict[str, list[str]] = {}
    for row in ran:
        for reason, count in row.tools[OURS]["frozen"].items():
            if "output of the model" not in reason:
                channels[reason] += count
                models.setdefault(reason, []).append(row.model.key)
    text = "\n## What freezes channels most (the models' outputs aside)\n\n"
    text += "| op: reason | channels | models |\n|---|---|---|\n"
    text += "".join(
        f"| {_plain(reason)} | {count} | {_some(models[reason])} |\n"
        for reason, count in channels.most_common()
    )
    low = sorted((r.tools[OURS]["prunable_share"], r.model.key) for r in ran)
    text += "\nModels of whose channels less than half can leave: "
    text += (", ".join(f"{name} ({share:.0%})" for share, name in low if share < 0.5) or "none") + ".\n"
    unruled: dict[str, list[str]] = {}
    for row in ran:
        for name in row.tools[OURS]["unruled"]:
            unruled.setdefault(name, []).append(row.model.key)
    text += "\nOps without a rule, by the number of models that have them:\n\n"
    return text + "".join(
        f"- {name}: {len(keys)} ({_some(keys)})\n"
        for name, keys in sorted(unruled.items(), key=lambda x: -len(x[1]))
    )


def _some(names: Iterable[str]) -> str:
    """Up to four names and how many more."""
    ordered = list(names)
    return ", ".join(ordered[:4]) + (f" and {len(ordered) - 4} more" if len(ordered) > 4 else "")
