"""Export, verify, judge, profile and report: all output is written atomically."""

from __future__ import annotations

import filecmp
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from edgeprune import exporting, parity
from edgeprune.artifacts.calibration import CalibrationSet
from edgeprune.artifacts.latency import LatencyPrediction, OperatorTimes
from edgeprune.artifacts.model import ModelFormat
from edgeprune.artifacts.quantization import Precision
from edgeprune.artifacts.report import (
    DeploymentSection,
    Grade,
    ParityFigure,
    QuantizationSection,
    RunReport,
    Usability,
)
from edgeprune.commands.compress.quantization_stage import (
    FLOAT_FILE,
    details_of,
    notes_of,
    notes_of_speed,
    put_in_fewer_bits,
)
from edgeprune.commands.report.illustrating import illustrate
from edgeprune.commands.report.page_file import write_page
from edgeprune.commands.report.ranking_curves import ranking_curves
from edgeprune.commands.run.exports import exported_path, write_onnx, write_surgery
from edgeprune.commands.run.report_builder import assemble_report, package_versions
from edgeprune.commands.run.stages import PARITY_TOLERANCE, compare_outputs
from edgeprune.commands.run.state import (
    PARITY_IMAGES,
    Judged,
    Planned,
    Prepared,
    Pruned,
    Run,
    measure_of,
    runner_of,
)
from edgeprune.commands.run.time_limits import note_if_exceeded
from edgeprune.commands.run.usability import (
    Circumstances,
    judge_usability,
    loss_value,
    with_overshoot,
    with_speed,
)
from edgeprune.commands.search.budget_aims import slower_again
from edgeprune.commands.search.candidate_records import RECORD_NAME, read_record
from edgeprune.commands.search.candidates import CandidateStore
from edgeprune.commands.search.default_goal import usability_of_original
from edgeprune.commands.verify.first_divergence import (
    first_apart,
    inner_deviations,
    traced_onnx,
    traced_torch,
)
from edgeprune.notes import Fact
from edgeprune.profiling.figures import figures
from edgeprune.profiling.operators import operator_times
from edgeprune.profiling.runner import Runner
from edgeprune.profiling.work import size_bytes
from edgeprune.reporting.formatting import format_bytes
from edgeprune.reporting.headline import advice_in_words
from edgeprune.reporting.json_report import write_json
from edgeprune.reporting.markdown import render_markdown
from edgeprune.sharing.companions import write_companions
from edgeprune.sharing.facts import facts_of_report
from edgeprune.storage import outputs
from edgeprune.storage.files import atomic_write_text, scratch_folder
from edgeprune.targets import TargetProfile

_log = logging.getLogger("edgeprune.commands")


def deliver(
    run: Run,
    prepared: Prepared,
    planned: Planned,
    pruned: Pruned,
    *,
    candidates: CandidateStore | None = None,
) -> RunReport:
    """Export, verify, profile and report, with all ``candidates``; the output appears atomically."""
    options = run.options
    assert options.folder is not None
    with (
        outputs.staged_output(options.folder, overwrite=options.overwrite) as folder,
        scratch_folder() as scratch,
    ):
        work = scratch
        chain = pruned.parity + _export(run, prepared, planned, pruned, folder, work)
        chosen = None
        if candidates is not None and planned.search is not None:
            chosen = candidates.place_of(planned.search.chosen)
        quantized = _quantize(run, prepared, folder, chosen)
        judged = _judge(run, prepared, planned, pruned, folder, quantized)
        deployment = _profile(run, prepared.target, work / "original.onnx", folder, quantized)
        by_operator = _operators(run, work / "original.onnx", folder / "model.onnx")
        _note_size_of_source(run, prepared, deployment)
        _compare_with_search(run, prepared.target, planned, deployment)
        usability = with_speed(judged.usability, deployment)
        judged = replace(judged, usability=usability)
        if usability.grade is not Grade.USABLE or usability.slower:
            _log.warning(f"{usability.headline}; {advice_in_words(usability)}")
        of_ranking = ranking_curves(run, prepared, planned)
        drawn = illustrate(run, prepared, planned, pruned, judged)
        note_if_exceeded(run)
        report = assemble_report(run, prepared, planned, pruned, judged, chain, deployment)
        report = replace(report, quantization=quantized, operators=by_operator, curves=of_ranking)
        write_json(report, folder / "report.json")
        atomic_write_text(folder / "report.md", render_markdown(report))
        if candidates is not None:
            candidates.deliver(folder)
        write_page(report, folder, shown_folder=options.folder, pictures=drawn)
        write_companions(folder, facts_of_report(report))
        outputs.write_manifest(
            folder,
            inputs=input_hashes(prepared),
            seed=options.seed,
            command=options.command,
            versions=package_versions(),
        )
    return report


def _export(
    run: Run, prepared: Prepared, planned: Planned, pruned: Pruned, folder: Path, work: Path
) -> tuple[ParityFigure, ...]:
    with run.stage("export"):
        write_onnx(run, prepared, prepared.captured.graph_module, work / "original.onnx", work)
        program, note = write_onnx(run, prepared, pruned.final, folder / "model.onnx", work, planned)
        if note is not None:
            run.notes.append(note)
        exporting.save_program(program, folder / "model.pt2")
        write_surgery(prepared, planned, pruned, folder)
    with run.stage("verify export"):
        sample = prepared.calibration.fitting.images[:PARITY_IMAGES]
        threads = run.threads
        raw, delivered = exported_path(folder / "model.onnx", work), folder / "model.onnx"
        in_torch = parity.run_torch(pruned.final, sample)
        exported = parity.run_onnx(raw, sample, threads=threads)
        simplified = parity.run_onnx(delivered, sample, threads=threads)
        comparisons = (
            compare_outputs(in_torch, exported, "recovered", "ONNX"),
            compare_outputs(exported, simplified, "ONNX", "ONNX simplified"),
        )

        def where(figure: ParityFigure) -> str:
            pair = (
                (traced_torch(pruned.final), traced_onnx(raw, threads))
                if figure is comparisons[0]
                else (traced_onnx(raw, threads), traced_onnx(delivered, threads))
            )
            parted = first_apart(inner_deviations(*pair, sample), PARITY_TOLERANCE)
            return "no common inner tensor does" if parted is None else f"first in {parted.name}"

        parity.require(comparisons, where)
    return comparisons


def _quantize(run: Run, prepared: Prepared, folder: Path, chosen: Path | None) -> QuantizationSection | None:
    """Quantize the model, or take over the file of the candidate ``chosen`` by a search."""
    if run.options.stored_in is Precision.FP32:
        return None
    if chosen is None:
        with run.stage("quantize"):
            section = put_in_fewer_bits(run, prepared, folder, run.options.stored_in)
    else:
        # A new run could choose another, slightly faster mixture than the one measured and judged.
        section = read_record(chosen / RECORD_NAME).quantization
        (folder / "model.onnx").rename(folder / FLOAT_FILE)
        shutil.copyfile(chosen / "model.onnx", folder / "model.onnx")
    assert section is not None
    run.notes.extend(notes_of(details_of(section), runner_of(run, prepared.target)))
    return section


def _judge(
    run: Run,
    prepared: Prepared,
    planned: Planned,
    pruned: Pruned,
    folder: Path,
    quantized: QuantizationSection | None,
) -> Judged:
    with run.stage("judge"):
        held = prepared.calibration.held_out

        def in_onnx(name: str) -> parity.Outputs:
            return parity.run_onnx(folder / name, held.images, threads=run.threads)

        measure = measure_of(run, prepared)
        by_stage = {
            "original": measure.reference.original,
            "pruned": parity.run_torch(pruned.bare, held.images),
            "recovered": parity.run_torch(pruned.recovered, held.images),
            **(
                {}
                if pruned.finetuned is None
                else {"fine-tuned": parity.run_torch(pruned.finetuned, held.images)}
            ),
            "ONNX": in_onnx("model.onnx" if quantized is None else FLOAT_FILE),
        }
        if quantized is not None:
            by_stage[quantized.precision.value] = in_onnx("model.onnx")
        judged = _usability(run, planned, by_stage, prepared.calibration)
        if more := measure.more(list(by_stage.values())[-1]):
            run.notes.append(Fact(f"besides {measure.kind.value}, of what is delivered: {more}"))
        return Judged(
            kind=measure.kind,
            figures=measure.stages(by_stage),
            usability=judged,
            original_outputs=by_stage["original"],
            delivered_outputs=list(by_stage.values())[-1],
        )


def _usability(
    run: Run,
    planned: Planned,
    by_stage: dict[str, parity.Outputs],
    calibration: CalibrationSet,
) -> Usability:
    """Grade the last stage against the first, given the options of the run."""
    original, measure = by_stage["original"], run.measure
    assert measure is not None
    options, delivered = run.options, list(by_stage)[-1]
    circumstances = Circumstances(
        macs_removed_share=planned.plan.macs_removed_share,
        in_budget=planned.search is not None,
        finetuned=options.finetune is not None,
        recipe=options.recipe,
        fitting_images=len(calibration.fitting),
        precision=options.stored_in,
        float_loss=None if delivered == "ONNX" else loss_value(measure, by_stage["ONNX"]),
    )
    outputs = by_stage[delivered]
    channels = None if parity.is_classifier(original) else parity.by_channel(original, outputs)
    usability = judge_usability(measure, outputs, circumstances, channels)
    if planned.search is not None:
        return usability_of_original(planned.search, usability)
    return with_overshoot(usability, planned.plan, asked_for=options.ratio is not None)


def _profile(
    run: Run, target: TargetProfile, original: Path, folder: Path, quantized: QuantizationSection | None
) -> DeploymentSection:
    compressed = folder / "model.onnx"
    runner = runner_of(run, target)
    measurer = runner.measurer
    with run.stage("profile"):
        before = after = figures(original, measurer)
        ratio, same = None, filecmp.cmp(original, compressed, shallow=False)
        if not same:
            after, ratio = figures(compressed, measurer), measurer.ratio(original, compressed)
        if quantized is not None and ratio is not None:
            # Quantization keeps the numbers of parameters and MACs of the 32-bit file.
            exact = figures(folder / FLOAT_FILE, None)
            after = replace(after, parameters=exact.parameters, macs=exact.macs)
            run.notes.extend(notes_of_speed(quantized.precision, runner, ratio))
        run.notes.extend(measurer.cautions)
        return DeploymentSection(
            target=target.name,
            original=before,
            compressed=after,
            latency_ratio=ratio,
            original_prediction=runner.prediction(original),
            compressed_prediction=_predicted(folder, runner, quantized),
            is_original=same,
        )


def _operators(run: Run, original: Path, compressed: Path) -> OperatorTimes:
    """Time by operator of both files on this host."""
    with run.stage("profile operators"):
        return operator_times(
            original, compressed, threads=run.threads, batch_size=run.options.batch_size or 1
        )


def _compare_with_search(
    run: Run, target: TargetProfile, planned: Planned, deployment: DeploymentSection
) -> None:
    """Note if the delivered file exceeds a latency limit that held in the search."""
    if planned.search is None or deployment.latency_ratio is None or not runner_of(run, target).measures:
        return
    slower = slower_again(planned.search, deployment.latency_ratio)
    if slower is not None:
        run.note(slower)


def _note_size_of_source(run: Run, prepared: Prepared, deployment: DeploymentSection) -> None:
    """Note the size of a given ONNX file if the original, which is exported anew, has another."""
    loaded = prepared.loaded
    if loaded.format is not ModelFormat.ONNX:
        return
    exported, given = map(format_bytes, (deployment.original.size_bytes, size_bytes(loaded.source)))
    if exported != given:
        run.notes.append(Fact(f"original exported anew: {exported}; the given file has {given}"))


def _predicted(
    folder: Path, runner: Runner, quantized: QuantizationSection | None
) -> LatencyPrediction | None:
    """Latency prediction for the target; ``None`` if it is unknown for the precision."""
    known = quantized is None or runner.knows(quantized.precision)
    return runner.prediction(folder / "model.onnx") if known else None


def input_hashes(prepared: Prepared) -> dict[str, str]:
    """SHA-256 of the model file and fingerprint of the calibration data, by their source."""
    hashes = {prepared.calibration.source: prepared.calibration.fingerprint_sha256}
    if prepared.loaded.sha256 is not None:
        hashes[prepared.loaded.source] = prepared.loaded.sha256
    return hashes
