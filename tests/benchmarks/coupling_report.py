"""The result file of the coupling benchmark."""

from __future__ import annotations

import re
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
ONNX_TOLERANCE = 1e-3
"""Largest difference of onnxruntime from torch in float32, relative to the largest output."""

SMALL_MB = 16
"""Below this a model's weights take less than Python's own objects, so memory is told in MB."""

ADVICE = re.compile("; (?:take|go on|give) ")
"""Where a refusal turns from the reason to what to do, which is the same for all."""

LATER = ("alone", "variants", "export", "replay", "onnx")
"""Stages after pruning was checked: a time limit in one of them is its failure alone."""
TP_FIGURES = ("graph_s", "step_s", "prunable_share", "removed_share", "macs_left")
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

    def failed(self, tool: str) -> bool:
        """Whether analysis, pruning or its check ended with an error."""
        facts = self.tools[tool]
        return "error" in facts and facts.get("stage") not in LATER

    def exact(self) -> bool:
        """Whether our pruned network computes what the masked one does."""
        return self.works(OURS) and not self.failed(OURS) and deviation(self.tools[OURS]) < TOLERANCE

    def onnx(self) -> tuple[bool, str] | None:
        """Whether the pruned graph runs in onnxruntime and agrees, and why not; ``None`` if not tried."""
        facts = self.tools[OURS]
        if (found := facts.get("onnx_deviation")) is not None:
            return found < ONNX_TOLERANCE, f"outputs differ by {found:.1e} of the largest"
        reason = facts.get("onnx_error") or (facts.get("error") if facts.get("stage") in LATER else None)
        return (False, reason) if reason else None

    def replay(self) -> tuple[str, str] | None:
        """How the replay on the user's class ended and why it was not equal; ``None`` if not tried."""
        facts = self.tools[OURS]
        if "replay" in facts:
            return facts["replay"], ADVICE.split(facts.get("replay_reason", ""))[0]
        late = facts.get("stage") in ("export", "replay")
        return ("not finished", facts["error"]) if late and "error" in facts else None

    def reason(self, tool: str) -> str | None:
        """Why the tool failed, in one line."""
        facts = self.tools[tool]
        if self.failed(tool):
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
    revisions = sorted({r for row in rows if (r := row.tools["edgeprune"].get("revision"))})
    text = header(
        "Coupling analysis and pruning over many architectures",
        "python tests/benchmarks/bench_coupling.py --results FOLDER",
        "0",
        1,
        revisions,
    )
    text += (
        "Every model has random weights, random affine parameters and batch norms calibrated on random\n"
        "images, and the smallest input that it works on (96 for large EfficientNets, where at 32 the norms\n"
        "amplify rounding of the input a billionfold). A process each, 1 thread, "
        f"{jobs} at a time; a tiny\nnetwork is exported first, so imports do not count.\n"
    )
    if not timm:
        text += "\ntimm is not installed: its models were left out.\n"
    return text + "".join(
        part(rows) for part in (_summary, _costs, _table, _failures, _on_request, _replayed, _frozen)
    )


def _summary(rows: list[Row]) -> str:
    text = "\n## Summary\n\n| models | run | edgeprune works | exact | ONNX works | replayed on the class "
    text += "| Torch-Pruning works (of those run) |\n|---|---|---|---|---|---|---|\n"
    for name in (*LIBRARIES, "all"):
        these = [r for r in rows if name in ("all", r.model.library) and r.ran(OURS)]
        if not these:
            continue
        theirs = [r for r in these if r.ran(THEIRS)]
        onnx = [found for r in these if (found := r.onnx())]
        replays = [found for r in these if (found := r.replay())]
        cells = [
            name,
            f"{len(these)}",
            f"{sum(r.works(OURS) for r in these)}",
            f"{sum(r.exact() for r in these)}",
            f"{sum(ok for ok, _ in onnx)} of {len(onnx)}",
            f"{sum(how == 'equal' for how, _ in replays)} of {len(replays)}",
            f"{sum(r.works(THEIRS) for r in theirs)} of {len(theirs)}",
        ]
        text += f"| {' | '.join(cells)} |\n"
    working = [r for r in rows if r.works(OURS)]
    left = [1 - r.tools[OURS]["macs_left"] for r in working]
    leave = f"median {statistics.median(left):.1%}, least {min(left):.1%}" if left else "none"
    alone = sum(r.tools[OURS].get("groups_checked", 0) for r in rows)
    there = sum(r.tools[OURS].get("groups_to_check", 0) for r in working)
    return text + (
        "\n*Works*: the same share of every group leaves, as large as it takes to halve the MACs of\n"
        f"convolutions and linear layers (MACs gone: {leave}), and the smaller\n"
        "network runs. *Exact*: besides, in float64 it computes what masking those channels gives, to less\n"
        f"than {TOLERANCE:.0e} of the largest output, and so does half of every single group alone\n"
        f"({alone} of {there} groups of two players or more; Torch-Pruning has no such mask to compare\n"
        "with).\n"
        "*ONNX works*: the pruned graph, exported, runs in onnxruntime and agrees with torch in float32 to\n"
        f"less than {ONNX_TOLERANCE:.0e} of the largest output. *Replayed*: `edgeprune.apply_surgery` on a\n"
        "fresh model of the user's own class computes in float32 what the rewritten graph does (below).\n"
        "Torch-Pruning: magnitude pruner, "
        "channel ratio 0.5, the classifier ignored, defaults otherwise,\n"
        "time limit 240 CPU seconds.\n" + _needing_option(rows)
    )


def _needing_option(rows: list[Row]) -> str:
    named = [f"{r.model.key} ({o})" for r in rows if (o := r.tools[OURS].get("option"))]
    if not named:
        return ""
    return "Models of which no channel can leave by default were pruned with an option: " + (
        ", ".join(named) + ".\n"
    )


def _costs(rows: list[Row]) -> str:
    text = "\n| CPU time and others | median | worst |\n|---|---|---|\n"
    for title, tool, key in (
        ("edgeprune: capture", OURS, "capture_s"),
        ("edgeprune: coupling analysis", OURS, "couple_s"),
        ("edgeprune: pruning step", OURS, "step_s"),
        ("Torch-Pruning: graph and groups", THEIRS, "graph_s"),
        ("Torch-Pruning: pruning step", THEIRS, "step_s"),
    ):
        text += _extremes(title, rows, lambda r, t=tool, k=key: r.tools[t].get(k), "{:.2f} s")
    larger = [r for r in rows if r.tools[OURS].get("size_mb", 0) >= SMALL_MB]
    small = [r for r in rows if r not in larger]
    of_size = f"models of {SMALL_MB} MB or more, in their sizes"
    for title, key in (
        ("edgeprune: memory added by analysis and pruning", "analysis_peak_mb"),
        ("edgeprune: memory added by building and capture", "capture_peak_mb"),
    ):
        text += _extremes(f"{title}, {of_size}", larger, lambda r, k=key: _in_sizes(r, k), "{:.1f}")
        text += _extremes(
            f"{title}, smaller models", small, lambda r, k=key: r.tools[OURS].get(k), "{:.0f} MB"
        )
    text += _extremes("edgeprune: deviation", rows, lambda r: _finite(r.tools[OURS]), "{:.1e}")
    text += _extremes("edgeprune: deviation of ONNX, float32", rows, _onnx, "{:.1e}")
    return (
        text
        + "\nMemory: highest resident size during the stages less that before them, when all free memory\n"
        + "was given back. The captured graph, which holds the weights, is there before analysis begins.\n"
    )


def _extremes(title: str, rows: list[Row], value: Callable[[Row], float | None], form: str) -> str:
    found = [(v, r.model.key) for r in rows if (v := value(r)) is not None]
    if not found:
        return ""
    worst, name = max(found)
    middle = statistics.median(v for v, _ in found)
    return f"| {title} | {form.format(middle)} | {form.format(worst)} ({name}) |\n"


def _in_sizes(row: Row, key: str) -> float | None:
    facts = row.tools[OURS]
    return facts[key] / facts["size_mb"] if key in facts else None


def _memory(row: Row) -> str:
    """Of analysis and pruning; sizes of the model, of a small one MB."""
    facts = row.tools[OURS]
    if "analysis_peak_mb" not in facts:
        return ""
    small = facts["size_mb"] < SMALL_MB
    return f"{facts['analysis_peak_mb']:.0f} MB" if small else f"{_in_sizes(row, 'analysis_peak_mb'):.2f}"


def _finite(facts: dict[str, Any]) -> float | None:
    return deviation(facts) if "deviation" in facts else None


def _onnx(row: Row) -> float | None:
    return row.tools[OURS].get("onnx_deviation")


def _table(rows: list[Row]) -> str:
    text = (
        "\n## Models\n\nTimes in CPU seconds of the one thread; *removable*: share of all layers' "
        "output\nchannels that can leave; "
        "TP: Torch-Pruning; *memory*: added by analysis and step, in sizes of the model\n"
        f"(in MB for models below {SMALL_MB} MB); *class*: replayed on the user's class.\n\n"
        "| model | input | capture | couple | step | players | groups | removable | MACs left | deviation "
        "| groups checked | memory | ONNX deviation | class | TP graph | TP step | TP removable "
        "| TP channels removed | TP MACs left |\n"
        "|" + "---|" * 19 + "\n"
    )
    for row in rows:
        ours, theirs = row.tools[OURS], row.tools[THEIRS]
        if not row.ran(OURS):
            text += f"| {row.model.key} | not run |{' |' * 17}\n"
            continue
        cells = [
            row.model.key,
            "x".join(str(s) for s in row.model.input_shape),
            *(_cell(ours, k, ".2f") for k in ("capture_s", "couple_s", "step_s")),
            *(_cell(ours, k, "d") for k in ("players", "groups")),
            *(_cell(ours, k, ".2f") for k in ("prunable_share", "macs_left")),
            f"{deviation(ours):.1e}" if "deviation" in ours else "failed",
            _cell(ours, "groups_checked", "d"),
            _memory(row),
            _onnx_cell(row),
            found[0] if (found := row.replay()) else "",
            *(_cell(theirs, k, ".2f") for k in TP_FIGURES),
        ]
        if not row.works(THEIRS) and row.ran(THEIRS):
            cells[-1] = "failed"
        text += f"| {' | '.join(cells)} |\n"
    return text


def _onnx_cell(row: Row) -> str:
    found = row.onnx()
    return "" if found is None else _cell(row.tools[OURS], "onnx_deviation", ".1e") or "failed"


def _cell(facts: dict[str, Any], key: str, form: str) -> str:
    return format(facts[key], form) if facts.get(key) is not None else ""


def _failures(rows: list[Row]) -> str:
    text = "\n## Failures\n"
    for tool, title in ((OURS, "edgeprune"), (THEIRS, "Torch-Pruning")):
        found = [(r.model.key, why) for r in rows if (why := r.reason(tool))]
        text += f"\n{title}: {len(found)}.\n" + "\n" * bool(found)
        text += "".join(f"- {name}: {_plain(why)}\n" for name, why in found)
    failed = [(r.model.key, found[1]) for r in rows if (found := r.onnx()) and not found[0]]
    text += f"\nONNX of the pruned graph: {len(failed)}.\n" + "\n" * bool(failed)
    return text + "".join(f"- {name}: {_plain(why)}\n" for name, why in failed)


def _on_request(rows: list[Row]) -> str:
    """What ``--prune-normalized`` and ``--attention-unit heads`` change, where they change anything."""
    changed = [r for r in rows if {"normalized_share", "heads_share", "option"} & set(r.tools[OURS])]
    text = "\n## On request\n\n"
    text += (
        "`--prune-normalized` lets channels go that a layer norm, a mean or a softmax is taken over; masks\n"
        "then take those statistics over what is present, so masking equals pruning there, too.\n"
        "`--attention-unit heads` removes whole heads instead of channels of every head in step. Half of\n"
        "all groups leave at once; *deviation* is that of pruned from masked in float64.\n\n"
        "| model | removable by default | normalized: removable | MACs left | deviation "
        "| heads: removable | MACs left | deviation |\n" + "|---" * 8 + "|\n"
    )
    worst = 0.0
    for row in changed:
        facts = dict(row.tools[OURS])
        share = facts.get("prunable_share")
        if "option" in facts:
            facts |= {"normalized_share": share, "normalized_macs_left": facts["macs_left"]}
            facts |= {"normalized_deviation": deviation(facts), "prunable_share": 0.0}
        cells = [row.model.key, _cell(facts, "prunable_share", ".2f")]
        for name in ("normalized", "heads"):
            cells += [_cell(facts, f"{name}_{k}", ".2f") for k in ("share", "macs_left")]
            cells.append(_cell(facts, f"{name}_deviation", ".1e"))
            worst = max(worst, facts.get(f"{name}_deviation", 0.0))
        text += f"| {' | '.join(cells)} |\n"
    return text + f"\nWorst deviation of {len(changed)} models: {worst:.1e}.\n"


def _replayed(rows: list[Row]) -> str:
    found = [(r.model.key, *how) for r in rows if (how := r.replay())]
    counts = Counter(how for _, how, _ in found)
    text = "\n## Replayed on the user's class\n\n"
    text += (
        "`edgeprune.apply_surgery` slices a fresh model of the user's own class by `surgery.json`, loads\n"
        "`weights.safetensors`, and compares itself with `model.pt2` beside them; here its outputs are\n"
        f"compared once more, on other images. Of {len(found)} models: {counts['equal']} equal, "
        f"{counts['refused']} refused in one\nsentence because the class has a size in its Python code, "
        f"{counts['wrong']} wrong, {counts['not finished']} not finished in time.\n\n"
    )
    return text + "".join(f"- {name}: {how}: {_plain(why)}\n" for name, how, why in found if how != "equal")


def _plain(text: str) -> str:
    """Without folders and without marks that Markdown would read."""
    words = [w.rpartition("/")[2] if w.startswith(("/", "(/", "'/")) else w for w in text.split()]
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
