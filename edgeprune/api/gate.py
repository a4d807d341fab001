"""What a pipeline asks of results: ``compare`` and ``check``."""

from __future__ import annotations

import torch

from edgeprune.commands.check.checking import check_model
from edgeprune.commands.check.checking_sweeps import check_sweep
from edgeprune.commands.check.swept import is_sweep
from edgeprune.commands.compare.comparing import compare_models
from edgeprune.commands.compare.comparing_sweeps import compare_sweeps
from edgeprune.gate.outcomes import Comparison, GateResult
from edgeprune.options.bounds import check_bounds
from edgeprune.options.gate import CheckOptions, CompareOptions
from edgeprune.options.signatures import called_with


@called_with(CompareOptions)
def compare(options: CompareOptions) -> Comparison:
    """Put models side by side: output folders, reports of any schema, ONNX files; or sweeps, by their cells.

    Args:
        models: two or more paths; differences are against the first.
        measure: compare CPU times on this host by interleaved pairs, where both have an ONNX file.
        input_shape: channels, height and width of one image; needed where a file leaves any of them open.

    Raises:
        EdgepruneError: one sentence; each subclass carries the command line's exit status.
    """
    return compare_files(options)


def compare_files(options: CompareOptions) -> Comparison:
    """:func:`compare` with its options in one."""
    check_bounds(options)
    ask = compare_sweeps if any(map(is_sweep, options.models)) else compare_models
    return ask(options, options.threads or torch.get_num_threads())


@called_with(CheckOptions)
def check(options: CheckOptions) -> GateResult:
    """Hold a model against limits and a baseline; ``exit_status`` of the result is that of the command.

    Args:
        model: an output folder, a ``report.json``, an ``.onnx`` file, or the folder of a sweep, whose
            ``cells`` are checked each by itself.
        baseline: another one, which ratios and points are against; without ``budget``, sizes may grow by 2%,
            CPU time by 5% and memory by 10%, and 1 point may be lost.
        budget: limits, or a ``budget.toml`` of them.
        time_limit_s: latency is measured in rounds until its limit is decided, or for so long.
        inconclusive: what a difference within noise means for ``exit_status``.
        input_shape: channels, height and width of one image; needed where a file leaves any of them open.

    Raises:
        EdgepruneError: nothing could be decided, in one sentence; the command ends with status 2 then.
    """
    return check_file(options)


def check_file(options: CheckOptions) -> GateResult:
    """:func:`check` with its options in one."""
    check_bounds(options)
    given = (options.model, *(() if options.baseline is None else (options.baseline,)))
    ask = check_sweep if any(map(is_sweep, given)) else check_model
    return ask(options, options.threads or torch.get_num_threads())
