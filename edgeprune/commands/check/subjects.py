"""What is compared: an output folder, a report of any schema, or an ONNX file, with the facts of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.artifacts.choices import HOST
from edgeprune.artifacts.latency import LatencyMeasurement, LatencyPrediction, ModelFigures
from edgeprune.artifacts.model import shape_words
from edgeprune.artifacts.quality import AccuracyFigure, AccuracyKind
from edgeprune.artifacts.report import RunReport
from edgeprune.commands.search.paired_drop import paired_drop, points_of
from edgeprune.errors import ProfileError, UsageError
from edgeprune.gate.decisions import difference
from edgeprune.gate.outcomes import Interval, ModelFacts, QualityFacts
from edgeprune.intervals import wilson_interval
from edgeprune.onnx_io.read import read_onnx
from edgeprune.onnx_io.working_copy import with_image_size
from edgeprune.options.gate import CheckOptions, CompareOptions
from edgeprune.profiling.figures import figures
from edgeprune.profiling.measurer import HostMeasurer, RunSettings
from edgeprune.profiling.work import size_bytes
from edgeprune.reporting.json_report import read_json
from edgeprune.storage.files import near_path, scratch_folder, sha256_file
from edgeprune.storage.outputs import read_manifest

MEMORY_SPREAD = 0.02
"""Peak memory of the same file, measured again, is within one percent; twice that counts as noise."""
_AGREEMENTS = frozenset(
    {
        AccuracyKind.AGREEMENT,
        AccuracyKind.AP_AGREEMENT,
        AccuracyKind.MEAN_IOU_AGREEMENT,
        AccuracyKind.RETRIEVAL,
    }
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One of the models: its report, its ONNX file, or both.

    ``sized``: a copy of the file whose dynamic sizes are those that were given; ``None`` without one.
    """

    name: str
    report: RunReport | None
    onnx: Path | None
    sized: Path | None = None

    @property
    def runs(self) -> Path | None:
        """What is measured; ``None`` without a file."""
        return self.sized or self.onnx

    @property
    def sha256(self) -> str | None:
        """Hash of the ONNX file; ``None`` without one."""
        return None if self.onnx is None else sha256_file(self.onnx)


@contextmanager
def read_subjects(
    given: Sequence[str | Path], image: tuple[int, ...] | None
) -> Iterator[tuple[tuple[Subject, ...], tuple[str, ...]]]:
    """The models that paths name, with dynamic sizes fixed at those of ``image``, and notes of that.

    Raises:
        UsageError, ProfileError: as :func:`read_subject`, or a file has other sizes.
    """
    subjects = tuple(map(read_subject, given))
    if image is None:
        yield subjects, ()
        return
    with scratch_folder() as scratch:
        sized = tuple(_of_size(each, image, scratch / str(at)) for at, each in enumerate(subjects))
        names = [each.name for each in sized if each.sized is not None]
        told = f"Open sizes of images were fixed at {shape_words(image)}: {', '.join(names)}."
        yield sized, (told,) if names else ()


def _of_size(subject: Subject, image: tuple[int, ...], folder: Path) -> Subject:
    if subject.onnx is None:
        return subject
    copy = with_image_size(subject.onnx, image, folder, ProfileError)
    return subject if copy == subject.onnx else replace(subject, sized=copy)


def read_subject(given: str | Path) -> Subject:
    """The model that a path names: a folder with ``report.json``, ``model.onnx`` or both, or one such file.

    Raises:
        UsageError: there is no such path, it is none of these, or the report cannot be read.
        ProfileError: the ONNX file cannot be read.
    """
    path, shown = Path(given), repr(str(given))
    if path.is_dir():
        report, onnx = path / "report.json", path / "model.onnx"
        if not report.is_file() and not onnx.is_file():
            raise UsageError(
                f"folder {shown} holds neither report.json nor model.onnx; give a folder of compress, "
                "a report.json or an .onnx file"
            )
        subject = Subject(
            name=str(given),
            report=read_json(report) if report.is_file() else None,
            onnx=_checked(onnx) if onnx.is_file() else None,
        )
        _check_one_run(path, subject)
        return subject
    if not path.exists():
        raise UsageError(
            f"{shown} does not exist; {near_path(path)}accepted are a folder that compress wrote, a "
            "report.json and an .onnx file"
        )
    if path.suffix.lower() == ".json":
        return Subject(name=str(given), report=read_json(path), onnx=None)
    if path.suffix.lower() == ".onnx":
        return Subject(name=str(given), report=None, onnx=_checked(path))
    raise UsageError(
        f"{shown} was given; accepted are a folder that compress wrote, a report.json and an .onnx file"
    )


def _check_one_run(folder: Path, subject: Subject) -> None:
    """Check that ``report.json`` is of the ``model.onnx`` beside it, as far as the manifest tells."""
    manifest = read_manifest(folder)
    if manifest is None or subject.report is None or subject.onnx is None:
        return
    written = next((file.sha256 for file in manifest.outputs if file.path == subject.onnx.name), None)
    if written is not None and written != subject.sha256:
        raise UsageError(
            f"{str(subject.onnx)!r} is not the file that the report.json beside it is of (manifest.json has "
            "the hash of another); give that .onnx file itself, or compress again"
        )


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"no file at {str(path)!r}; give the path of an .onnx file")
    read_onnx(path, ProfileError, external_data=False)
    return path


def facts_of(subject: Subject, figures_here: ModelFigures | None = None) -> ModelFacts:
    """What the report says, or without one ``figures_here``, as measured on this host."""
    report = subject.report
    found = report.deployment.compressed if report is not None else figures_here
    if found is None:
        raise TypeError("a file without a report needs figures")
    prediction = None if report is None else report.deployment.compressed_prediction
    latency = found.latency
    known = prediction or latency
    milliseconds = None
    if prediction is not None:
        milliseconds = _of_prediction(prediction)
    elif latency is not None:
        milliseconds = Interval.exact(latency.latency_p50_ms)
    return ModelFacts(
        name=subject.name,
        size_bytes=found.size_bytes,
        parameters=found.parameters,
        macs=found.macs,
        memory_bytes=found.peak_memory_bytes,
        latency_ms=milliseconds,
        latency_of=_where(report, prediction, latency),
        provenance=None if known is None else known.provenance,
        quality=None if report is None else quality_of(report),
        agreement=None if report is None else agreement_of(report),
    )


def figures_here(
    subject: Subject, options: CheckOptions | CompareOptions, threads: int, *, latency: bool, memory: bool
) -> ModelFigures:
    """Figures of an ONNX file on this host, with or without those that are measured.

    Raises:
        ProfileError: the file cannot be loaded or run by onnxruntime, or not in time.
    """
    given, onnx = subject.onnx, subject.runs
    if given is None or onnx is None:
        raise TypeError("a file is needed")
    measurer = HostMeasurer(
        settings=RunSettings(threads=threads, seed=options.seed, timeout_s=options.timeout_s)
    )
    return replace(
        figures(onnx, None),
        size_bytes=size_bytes(given),
        latency=measurer.latency(onnx) if latency else None,
        peak_memory_bytes=measurer.peak_memory_bytes(onnx) if memory else None,
    )


def quality_of(report: RunReport) -> QualityFacts | None:
    """Accuracy or task measure of the delivered network; ``None`` where the report has none."""
    if not report.accuracy:
        return None
    kind = report.accuracy_kind
    points, by_image = _lost(report)
    return QualityFacts(
        measure=kind.value,
        is_share=kind.is_share,
        is_error=kind.is_error,
        figure=_figure(report),
        images=report.accuracy[-1].images,
        lost=points,
        paired=by_image,
    )


def _lost(report: RunReport) -> tuple[Interval | None, bool]:
    """Percentage points lost against the original, and whether from answers paired by image."""
    kind = report.accuracy_kind
    answers = None if report.usability is None else report.usability.answers
    if not kind.is_share:
        return None, False
    if answers is not None and answers.images:
        drop = paired_drop(answers, None)
        return Interval.of(points_of(answers), drop.low_points, drop.high_points), True
    if not _can_be_judged(report):
        lost = 100.0 * (report.accuracy[0].value - report.accuracy[-1].value)
        return Interval.of(lost, -100.0, 100.0), False
    first, last = _interval(report.accuracy[0]), _interval(report.accuracy[-1])
    if kind in _AGREEMENTS:  # the original agrees with itself
        first = Interval.exact(1.0)
    return in_points(difference(first, last)), False


def _can_be_judged(report: RunReport) -> bool:
    """Whether the images tell a loss: a draw of two boxes has no spread, and no meaning either."""
    usability = report.usability
    return usability is None or usability.answers is not None or usability.loss is not None


def agreement_of(report: RunReport) -> Interval | None:
    """Share of the original's answers that the delivered network still gives; ``None`` if nobody counted."""
    answers = None if report.usability is None else report.usability.answers
    if answers is not None and answers.kept_from:
        kept = answers.kept_from - answers.lost
        low, high = wilson_interval(kept, answers.kept_from)
        return Interval.of(kept / answers.kept_from, low, high)
    if report.accuracy and report.accuracy_kind in _AGREEMENTS:
        return _figure(report)
    return None


def _figure(report: RunReport) -> Interval:
    """The delivered network's figure; between 0 and 1 where it is a share that the images do not tell."""
    last = report.accuracy[-1]
    untold = report.accuracy_kind.is_share and not _can_be_judged(report)
    return Interval.of(last.value, 0.0, 1.0) if untold else _interval(last)


def points_between(after: Subject, before: Subject) -> tuple[Interval, str] | None:
    """Percentage points that ``after`` loses against ``before``, and from what; ``None`` if nobody can tell.

    Raises:
        UsageError: the reports have different measures.
    """
    if after.report is None or before.report is None:
        return None
    new, old = quality_of(after.report), quality_of(before.report)
    if new is None or old is None:
        return None
    if new.measure != old.measure:
        raise UsageError(
            f"{after.name!r} was judged by {new.measure}, {before.name!r} by {old.measure}: these cannot be "
            "compared; compress both with the same --task, --metric and kind of labels"
        )
    if not new.is_share:
        return None
    if new.paired and old.paired and new.lost and old.lost and _same_yardstick(after.report, before.report):
        return difference(new.lost, old.lost), (
            f"both paired by image against the same original, {new.images} images"
        )
    return in_points(difference(old.figure, new.figure)), (
        f"intervals of both reports, {new.images} and {old.images} images"
    )


def _same_yardstick(one: RunReport, other: RunReport) -> bool:
    """Whether both were judged against the same original on the same images."""
    return (
        one.model.sha256 is not None
        and one.model.sha256 == other.model.sha256
        and one.calibration.fingerprint_sha256 == other.calibration.fingerprint_sha256
        and one.calibration.held_out_images == other.calibration.held_out_images
        and one.environment.seed == other.environment.seed
    )


def same_original_and_machine(one: RunReport, other: RunReport) -> bool:
    """Whether CPU-time ratios of both reports are against the same file on the same machine."""
    return (
        one.model.sha256 is not None
        and one.model.sha256 == other.model.sha256
        and one.environment.machine == other.environment.machine
        and one.environment.threads == other.environment.threads
    )


def memory_interval(memory_bytes: int) -> Interval:
    """A measured peak with what a repetition may differ by."""
    return Interval(
        value=memory_bytes,
        low=memory_bytes * (1 - MEMORY_SPREAD),
        high=memory_bytes * (1 + MEMORY_SPREAD),
    )


def in_points(share: Interval) -> Interval:
    """An interval of shares as percentage points."""
    return Interval(value=100 * share.value, low=100 * share.low, high=100 * share.high)


def _interval(figure: AccuracyFigure) -> Interval:
    return Interval.of(figure.value, figure.low, figure.high)


def _of_prediction(prediction: LatencyPrediction) -> Interval:
    return Interval(value=prediction.latency_ms, low=prediction.low_ms, high=prediction.high_ms)


def _where(
    report: RunReport | None, prediction: LatencyPrediction | None, latency: LatencyMeasurement | None
) -> str:
    """The target of a prediction, or the machine that was measured on."""
    if prediction is not None:
        return prediction.target
    if latency is not None:
        return latency.machine
    return HOST if report is None else report.environment.machine
