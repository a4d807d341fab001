"""Journals of intermediate results that a run keeps until it ends, and their messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeprune.accelerator import CPU, in_words
from edgeprune.commands.run.fingerprints import images_sha256, network_sha256
from edgeprune.commands.run.state import Prepared, Run
from edgeprune.errors import BudgetError, OutputError, UsageError
from edgeprune.evaluation.registry import by_task
from edgeprune.importance.journals import Journals, read_about
from edgeprune.options.subjects import TaskOptions
from edgeprune.storage import outputs
from edgeprune.storage.files import NO_ROOM, check_room
from edgeprune.storage.ownership import remove_abandoned
from edgeprune.storage.sessions import Sessions

_log = logging.getLogger("edgeprune.commands")


def journal_folder(output: Path) -> Path:
    """``OUTPUT.journal`` beside the output folder."""
    return output.expanduser().with_name(f"{output.name}.journal")


def check_journal(
    output: Path | None, *, resume: bool, reads: outputs.Given | None = None, finished: bool = False
) -> None:
    """Check before any work that the journal on disk and ``resume`` agree.

    ``finished``: an output of before is there, from which the run goes on without a journal, too.

    Raises:
        UsageError: ``resume`` without an output folder, a journal exists without ``resume``, or the folder
            is no journal.
        OutputError: the journal, which is deleted at the end of the run, holds what the run ``reads``, or
            cannot be written.
    """
    if output is None:
        if resume:
            raise UsageError(
                "resume was asked for without an output folder, beside which values are kept: give output="
            )
        return
    folder = journal_folder(output)
    begun = read_about(folder) is not None
    if begun and not resume:
        raise UsageError(
            f"the journal {str(folder)!r} holds values of a run that was stopped: add --resume to go on with "
            "it, or delete the folder to begin anew"
        )
    if resume and not begun and not finished:
        _log.warning(
            "--resume was given, and there is no journal %r of a run that was stopped: the run begins anew",
            str(folder),
        )
    if folder.is_dir():
        remove_abandoned(folder)
        outputs.check_apart(folder, repr(str(folder)), reads or {})
        check_room(folder, str(folder))


@contextmanager
def kept_values(
    run: Run, prepared: Prepared, more: Mapping[str, str] | None = None
) -> Iterator[Journals | None]:
    """The journal of a run that writes an output folder; deleted when the block succeeds.

    ``more`` names further inputs that determine the kept results.

    Raises:
        UsageError: the existing journal belongs to another model, other data or options.
        OutputError: the disk is full.
        KeyboardInterrupt: that of the block, with what was kept and how to resume.
    """
    if run.options.folder is None:
        yield None
        return
    journals = Journals(journal_folder(run.options.folder), {**_about(run, prepared), **(more or {})})
    run.sessions = Sessions(journals.folder)
    try:
        yield journals
    except KeyboardInterrupt as stopped:
        journals.remove_if_empty()
        if not journals.folder.exists():
            raise
        kept = _are_kept(journals.kept) if journals.kept else "what was kept before is still"
        raise KeyboardInterrupt(
            f"{kept} in {journals.folder}; run the same command with --resume to go on"
        ) from stopped
    except BudgetError:
        journals.remove()  # the search has ended; another budget starts a new one
        raise
    except OSError as error:
        if error.errno not in NO_ROOM or not journals.folder.exists():
            raise
        raise OutputError(
            f"no more coalition values can be kept in {str(journals.folder)!r} ({error.strerror}); those "
            "that are there stay: make room, and run the same command with --resume to go on"
        ) from error
    except Exception as error:
        if isinstance(error, UsageError):  # its message says what to do
            run.sessions.forget()
        elif journals.kept:
            _log.warning("%s in %s; --resume goes on from there", _are_kept(journals.kept), journals.folder)
        journals.remove_if_empty()
        raise
    journals.remove()


def _are_kept(kept: str) -> str:
    is_one_thing = kept.startswith("the ") and ", " not in kept and " and " not in kept
    return f"{kept} {'is' if is_one_thing else 'are'} kept"


def decisions(run: Run, prepared: Prepared) -> dict[str, str]:
    """Further inputs that determine the result of a compression."""
    options = run.options
    return {
        "budget": f"{options.budget}",
        "limits of the default": f"{run.limits_by_default}",
        "ratio": f"{options.ratio}",
        "target": f"{prepared.target}",
        **({} if options.device is None else {"device": options.device.name}),
        "width quantum": f"{options.width_quantum}",
        "batch size": f"{options.batch_size}",
        "finetune": f"{options.finetune}",
        "recipe": f"{options.recipe}",
        "dropping of blocks": f"{options.drop_blocks}",
        "ranking in rounds": f"{options.rounds}",
        "given ranking": f"{options.ranking} {options.criterion}",
        "precision": options.stored_in.value,
        "8 bits beside it": f"{run.limits_by_default and options.precision is None}",
        "effort": options.effort.value,
        **_task(options),
    }


def _task(options: TaskOptions) -> dict[str, str]:
    """How quality is measured, if not by default."""
    if not by_task(options):
        return {}
    return {"task": f"{options.task.value} {options.metric} {options.boxes}"}


def _about(run: Run, prepared: Prepared) -> dict[str, str]:
    """Inputs that determine the coalition values and which of them are needed."""
    return {
        "model": network_sha256(prepared.captured),
        "calibration set": images_sha256(prepared.calibration.fitting),
        "choice of players": f"{run.options.coupling}",
        "seed": str(run.options.seed),
        **({} if prepared.device == CPU else {"computed on": in_words(prepared.device)}),
    }
