"""Costs of the original and the candidates of a budget search: exported, then measured or predicted."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeprune.artifacts.budget import Candidate
from edgeprune.artifacts.pruning import PruningPlan
from edgeprune.artifacts.quantization import Precision
from edgeprune.commands.compress.quantization_stage import FLOAT_FILE, put_in_fewer_bits
from edgeprune.commands.run.exports import write_onnx
from edgeprune.commands.run.state import Prepared, Run, runner_of
from edgeprune.commands.search.budget_aims import latency_share
from edgeprune.commands.search.candidate_records import Baseline
from edgeprune.commands.search.cost_models import measure_tables, measured_model, roofline_model, size_model
from edgeprune.profiling.work import size_bytes
from edgeprune.selection import CostModel, macs_model


class CandidateCosts:
    """Costs on one target relative to the original, which is exported to the folder ``work``."""

    def __init__(self, run: Run, prepared: Prepared, work: Path, baseline: Baseline | None = None) -> None:
        self._run = run
        self._prepared = prepared
        self._runner = runner_of(run, prepared.target)
        self._onnx = work / "original.onnx"
        with run.stage("measure the original"):
            write_onnx(run, prepared, prepared.captured.graph_module, self._onnx, work)
            self.baseline = self._measure_original() if baseline is None else baseline
        self.original = self.baseline.original
        self.stored = self.baseline.stored or self.original

    def models(self) -> list[tuple[CostModel, float]]:
        """A model of each limited cost (latency if only the drop is limited), and the share it may keep.

        The models are of 32 bits; if fewer bits are stored, the shares are larger accordingly.
        """
        budget, original, stored = self._run.options.budget, self.original, self.stored
        captured, coupling = self._prepared.captured, self._prepared.coupling
        models = []
        share = latency_share(budget, original)
        if share is not None or not budget.limits_costs:
            models.append((self._latency_model(), 1.0 if share is None else share / stored.latency_share))
        if budget.max_size_bytes is not None:
            model = size_model(captured, coupling, original.size_bytes)
            models.append((model, budget.max_size_bytes / stored.size_bytes))
        if budget.max_memory_bytes is not None and stored.memory_bytes:
            # Weights and activations shrink with the widths; multiply-accumulates with their product.
            models.append((macs_model(coupling), budget.max_memory_bytes / stored.memory_bytes))
        return models

    def measure(self, name: str, plan: PruningPlan, folder: Path) -> Candidate:
        """Costs of the exported candidate in ``folder``, without its drop."""
        return self._measure(name, 1.0 - plan.macs_removed_share, folder, self.original)

    def _measure(self, name: str, macs_share: float, folder: Path, original: Candidate) -> Candidate:
        path, exact = folder / "model.onnx", folder / FLOAT_FILE
        share = self._runner.share(self._onnx, path, in_32_bits=exact if exact.exists() else None)
        return Candidate(
            name=name,
            macs_share=macs_share,
            latency_ms=share.value * original.latency_ms,
            latency_share=share.value,
            latency_share_high=share.high,
            latency_provenance=original.latency_provenance,
            size_bytes=size_bytes(path),
            memory_bytes=self._memory(path),
            drop_points=None,
            exceeded=(),
        )

    def _latency_model(self) -> CostModel:
        captured, coupling, target = self._prepared.captured, self._prepared.coupling, self._prepared.target
        if not self._runner.measures:
            return roofline_model(captured, coupling, target, self.original.latency_ms)
        return measured_model(
            captured, coupling, self.baseline.layer_tables, step=target.width_quantum,
            total_ms=self.baseline.cpu_ms, note=self._run.note,
        )  # fmt: skip

    def _measure_original(self) -> Baseline:
        runner, budget, tables = self._runner, self._run.options.budget, {}
        latency, cpu_ms = runner.latency_ms(self._onnx), runner.cpu_ms(self._onnx)
        limited = latency_share(budget, None) is not None or not budget.limits_costs
        if runner.measures and limited:
            tables = measure_tables(
                self._prepared.captured,
                self._prepared.coupling,
                runner.measurer,
                step=runner.target.width_quantum,
            )
        original = Candidate(
            name="original",
            macs_share=1.0,
            latency_ms=latency,
            latency_share=1.0,
            latency_provenance=runner.provenance,
            size_bytes=size_bytes(self._onnx),
            memory_bytes=self._memory(self._onnx),
            drop_points=0.0,
            exceeded=(),
        )
        return Baseline(
            original=original, stored=self._measure_stored(original), cpu_ms=cpu_ms, layer_tables=tables
        )

    def _measure_stored(self, original: Candidate) -> Candidate | None:
        """Costs of the original in the requested precision."""
        run, folder = self._run, self._onnx.parent / "stored"
        if run.options.stored_in is Precision.FP32:
            return None
        folder.mkdir()
        shutil.copyfile(self._onnx, folder / "model.onnx")
        put_in_fewer_bits(run, self._prepared, folder, run.options.stored_in)
        precision = run.options.stored_in.value
        if not self._runner.knows(run.options.stored_in):
            run.note(
                f"latency of candidates is predicted for their 32-bit form: nothing is known of {precision} "
                f"on {self._prepared.target.name}"
            )
        return self._measure(f"original in {precision}", 1.0, folder, original)

    def _memory(self, path: Path) -> int | None:
        if self._run.options.budget.max_memory_bytes is None:
            return None
        return self._runner.measurer.peak_memory_bytes(path)
