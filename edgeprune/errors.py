"""The exception tree: one class per kind of failure, each with its process exit status.

Every message is one clear sentence: what was given, what is accepted, what to do.
The table of exit statuses in ``docs/exit-statuses.md`` is checked against this module by a test.
"""

from __future__ import annotations

from edgeprune.showing import plain


class EdgepruneError(Exception):
    """Base of every failure that edgeprune reports to the user in one sentence, harmless to a terminal."""

    exit_status: int = 1

    def __init__(self, sentence: str = "") -> None:
        super().__init__(plain(sentence))


class UsageError(EdgepruneError):
    """An option or argument has a value that is not accepted."""

    exit_status = 2


class ModelLoadError(EdgepruneError):
    """The model file or name cannot be turned into a working module."""

    exit_status = 3


class CalibrationError(EdgepruneError):
    """The calibration data are missing, empty, corrupt or do not fit the model."""

    exit_status = 4


class CaptureError(EdgepruneError):
    """``torch.export`` cannot capture the model, or its graph is not one we can work on."""

    exit_status = 5


class NothingToPruneError(EdgepruneError):
    """No channel of the model can be removed, or not enough of them for the ratio asked for."""

    exit_status = 6


class OutputError(EdgepruneError):
    """The output exists already or cannot be written."""

    exit_status = 7


class ParityError(EdgepruneError):
    """Two neighbours in the chain of models disagree by more than the tolerance."""

    exit_status = 8


class TargetError(EdgepruneError):
    """The target profile is unknown or malformed."""

    exit_status = 9


class ProfileError(EdgepruneError):
    """An ONNX file cannot be loaded or run by onnxruntime."""

    exit_status = 10


class SurgeryError(EdgepruneError):
    """A pruning cannot be replayed on the given module."""

    exit_status = 11


class BudgetError(EdgepruneError):
    """No compressed model that the search reached holds the budget."""

    exit_status = 12


class QuantizationError(EdgepruneError):
    """An ONNX file cannot be quantized."""

    exit_status = 13


class DeviceError(EdgepruneError):
    """A device cannot be reached, or nothing can be measured there."""

    exit_status = 14


class SweepError(EdgepruneError):
    """Some cells of a sweep failed; the others are written."""

    exit_status = 15


INTERRUPTED_EXIT_STATUS = 130
"""Exit status after Ctrl-C (128 + SIGINT, the shell's convention)."""

TERMINATED_EXIT_STATUS = 143
"""Exit status after SIGTERM (128 + SIGTERM), which ends a run as Ctrl-C does."""

HUNG_UP_EXIT_STATUS = 129
"""Exit status after SIGHUP (128 + SIGHUP), as when a terminal is closed."""

INTERNAL_EXIT_STATUS = 70
"""Exit status after a fault of edgeprune itself (EX_SOFTWARE of sysexits.h)."""

BROKEN_PIPE_EXIT_STATUS = 141
"""Exit status when the reader closed the pipe (128 + SIGPIPE, the shell's convention)."""
