"""Runners say what is measured and what predicted, and a target has the one that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx_models import IMAGE, Chain, written

from edgeprune.artifacts.latency import Provenance
from edgeprune.artifacts.quantization import Precision
from edgeprune.profiling.prediction import predict
from edgeprune.profiling.runner import Runner, runner_for
from edgeprune.targets import list_targets, load_target


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(Chain(), tmp_path_factory.mktemp("runner") / "model.onnx", IMAGE)


@pytest.mark.parametrize("name", list_targets())
def test_only_the_host_is_measured(name: str) -> None:
    target = load_target(name)
    runner: Runner = runner_for(target, threads=1)
    assert runner.target == target
    here = name == "host"
    assert runner.measures is here
    expected = Provenance.MEASURED_ON_HOST if here else Provenance.PREDICTED
    assert runner.provenance is expected
    assert runner.knows(Precision.FP32)
    assert runner.knows(Precision.INT8)
    assert runner.knows(Precision.AUTO)


def test_here_it_is_run(model: Path) -> None:
    runner = runner_for(load_target("host"), threads=1)
    assert runner.latency_ms(model) > 0.0
    assert runner.cpu_ms(model) > 0.0
    share = runner.share(model, model)
    assert share.high is not None
    assert 0.5 < share.value < 2.0
    assert share.value <= share.high
    assert runner.prediction(model) is None


def test_elsewhere_it_is_the_prediction(model: Path, tmp_path: Path) -> None:
    target = load_target("rpi4")
    runner = runner_for(target, threads=7, seed=3)
    assert runner.prediction(model) == predict(model, target)
    assert runner.latency_ms(model) == predict(model, target).latency_ms
    assert (runner.cpu_ms(model), runner.share(model, model).value) == (0.0, 1.0)
    assert runner.share(model, model, in_32_bits=tmp_path / "missing.onnx").high is None


def test_a_file_in_32_bits_stands_for_what_a_profile_does_not_know(model: Path, tmp_path: Path) -> None:
    target = load_target("rpi4")
    assert target.roofline is not None
    runner = runner_for(replace(target, roofline=replace(target.roofline, int8=None)), threads=1)
    assert not runner.knows(Precision.INT8)
    assert not runner.knows(Precision.AUTO)
    assert runner.knows(Precision.FP16)
    assert runner.share(model, tmp_path / "missing.onnx", in_32_bits=model).value == 1.0
