"""Calibration: tables follow from times, whatever measured them, and predict what they were fitted to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeprune.commands.targets.calibration import ThisHost, calibrate
from edgeprune.commands.targets.fitting import Device, MeasuredNetwork, fit_tables, with_threads
from edgeprune.commands.targets.grid import GridPoint, grid
from edgeprune.commands.targets.grid_files import SMALLEST, block_of, grid_files, is_joint
from edgeprune.commands.targets.measuring import NetworkTime, measure_here, node_shares
from edgeprune.devices.script.sampling import PROFILED_RUNS, UNTIMED_RUNS, node_times_us
from edgeprune.errors import TargetError
from edgeprune.profiling.costs import features, node_cost
from edgeprune.profiling.kinds import OpKind, OpWork, Tensors, node_work
from edgeprune.profiling.prediction import predict, predict_work
from edgeprune.profiling.runtime.graph import kernels_of, runtime_work
from edgeprune.targets import KindTable, TargetProfile, describe_host, load_target, to_toml

POINTS = tuple(point for point in grid() if point.family in ("pointwise", "pools") and point.seed < 5)


def convolution(rows: int, columns: int = 100, depth: int = 64) -> OpWork:
    return OpWork(
        op_type="Conv", name="c", kind=OpKind.POINTWISE, macs=rows * columns * depth,
        bytes_moved=4 * (rows * depth + columns * (rows + depth)), written_bytes=4 * rows * columns,
        rows=rows, depth=depth, columns=columns,
    )  # fmt: skip


def invented(files: Sequence[Path], threads: int) -> Sequence[NetworkTime | None]:
    """A device with a rate of its own for every kind: 2 ns a weight, three times as fast with threads."""
    weights = [sum(np.prod(t.dims) for t in onnx.load(str(f)).graph.initializer) for f in files]
    return [
        NetworkTime(time_ms=float(2e-6 * w + 0.01) / (1 if threads == 1 else 3), shares={}) for w in weights
    ]


@pytest.fixture(scope="module")
def profile() -> TargetProfile:
    device = ThisHost(
        facts=load_target("rpi4"), machine="an invented board", runtime="none", measure=invented
    )
    return calibrate("invented", device, points=POINTS)


def test_the_grid_fits_its_budget_and_is_the_same_every_time() -> None:
    points = grid()
    assert len({point.name for point in points}) == len(points)
    assert len(grid_files(points)) <= 60
    assert {point.family for point in points} >= {
        "dense", "pointwise", "depthwise", "grouped", "linear", "pools", "elementwise", "resized",
        "transformer",
    }  # fmt: skip
    again = GridPoint(name="x", family=points[3].family, seed=points[3].seed, in_8_bits=False)
    assert again.model().SerializeToString() == points[3].model().SerializeToString()


def test_blocks_of_a_file_run_one_after_another_and_keep_their_names(tmp_path: Path) -> None:
    """What they are measured by: in the cache state of a network, and told apart."""
    smallest, file, *others = grid_files(POINTS)
    assert smallest.name == SMALLEST
    assert [each.in_8_bits for each in others] == [True]
    path = tmp_path / "file.onnx"
    onnx.save(file.model(), path)
    onnx.checker.check_model(str(path), full_check=True)
    shares = node_shares(path)
    blocks = [int(block_of(name)[1:]) for name in shares if block_of(name) and not is_joint(name)]
    assert blocks == sorted(blocks)
    assert set(blocks) == set(range(len(POINTS)))
    told = runtime_work(path, kernels_of(describe_host())).operations
    assert {op.name for op in told} >= set(shares), "every node that takes time is counted"


def test_times_of_nodes_are_freed_of_what_the_profiler_takes(tmp_path: Path) -> None:
    events = tmp_path / "profile.json"

    def end() -> str:
        rows = [
            {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": {"op_name": kind}}
            for turn in range(UNTIMED_RUNS + PROFILED_RUNS)
            for name, kind, dur in (("a", "Conv", 900 if turn < UNTIMED_RUNS else 104), ("b", "Relu", 4))
        ]
        other = {"cat": "Session", "name": "model_run", "dur": 500}
        events.write_text(json.dumps([other, *rows]), encoding="utf-8")
        return str(events)

    found, kinds = node_times_us(lambda: None, end)
    assert found == {"a": 100.5, "b": 0.5}
    assert kinds == {"a": "Conv", "b": "Relu"}


def test_tables_follow_from_shares_of_nodes_and_leave_joints_out() -> None:
    """One file of many blocks: its whole time alone would tell nothing of its parts."""
    rng = np.random.default_rng(0)

    def time_ms(op: OpWork) -> float:
        return 5e-3 + 30e-9 * op.macs + 400e-9 * op.rows * op.columns

    networks = []
    for place in range(5):
        nodes = [
            replace(
                convolution(
                    int(rng.integers(1, 40)) * 8, int(rng.integers(50, 900)), int(rng.integers(8, 300))
                ),
                name=f"b{block}/n",
            )
            for block in range(20)
        ]
        joint = replace(convolution(8, 1), name="joint-1-slice")
        spent = {op.name: time_ms(op) for op in nodes} | {joint.name: 50.0}
        total = sum(spent.values())
        networks.append(
            MeasuredNetwork(
                name=str(place), operations=(*nodes, joint), time_ms=total + 0.009,
                shares={name: each / total for name, each in spent.items()},
            )
        )  # fmt: skip
    found = fit_tables(networks, Device(quantum=8, far_from_bytes=1e12), us_per_run=9.0)
    assert found.nodes == 100
    assert len(found.held_out) == 100
    assert max(abs(ratio - 1.0) for ratio in found.held_out) < 0.05


@pytest.mark.parametrize(
    ("order", "sizes", "singly"),
    [
        ([0, 2, 3, 1], (1, 8, 5, 6), False),  # to channels last: one axis moves
        ([0, 3, 1, 2], (1, 5, 6, 8), False),
        ([0, 2, 1, 3, 4], (1, 2, 4, 5, 6), False),  # shuffled channels: rows stay
        ([0, 3, 4, 2, 1], (1, 2, 4, 5, 6), True),  # both at once
        ([0, 3, 4, 2, 1], (1, 2, 1, 5, 6), False),
        ([2, 1, 0], (3, 4, 5), True),
        ([1, 0], (3, 4), False),
        (None, (3, 4, 5), True),  # by default all axes turn round
    ],
)
def test_transpositions_that_move_values_singly(
    order: list[int] | None, sizes: tuple[int, ...], singly: bool
) -> None:
    attributes = {} if order is None else {"perm": order}
    node = onnx.helper.make_node("Transpose", ["x"], ["y"], **attributes)
    out = tuple(sizes[axis] for axis in order) if order else sizes[::-1]
    tensors = Tensors(shapes={"x": sizes, "y": out}, item_bytes={"x": 4, "y": 4}, constants=frozenset())
    assert node_work(node, tensors).strided_values == (np.prod(sizes) if singly else 0)


def test_a_fused_activation_beyond_relu_takes_time_of_its_own() -> None:
    asked = {"quantum": 8, "far_from_bytes": 1e12}
    plain, relu, clip, function = (
        features(replace(convolution(16), activation=name), **asked)
        for name in ("", "Relu", "Clip", "Sigmoid")
    )
    assert plain == relu
    assert set(clip) - set(plain) == {"ps_per_clipped_output"}
    assert set(function) - set(plain) == {"ps_per_function_output"}


def test_tables_recover_the_rates_that_made_the_times() -> None:
    rng = np.random.default_rng(0)
    networks = []
    for place in range(40):
        nodes = tuple(
            convolution(int(rng.integers(1, 40)) * 8, int(rng.integers(50, 900)), int(rng.integers(8, 300)))
            for _ in range(3)
        )
        time_ms = sum(5e-3 + 30e-9 * n.macs + 400e-9 * n.rows * n.columns for n in nodes)
        networks.append(MeasuredNetwork(name=str(place), operations=nodes, time_ms=time_ms, shares={}))
    found = fit_tables(networks, Device(quantum=8, far_from_bytes=1e12))
    assert max(abs(ratio - 1.0) for ratio in found.held_out) < 0.05


def test_a_calibrated_profile_predicts_what_was_measured_and_is_written_with_its_provenance(
    profile: TargetProfile, tmp_path: Path
) -> None:
    assert profile.calibration is not None
    assert profile.calibration.machine == "an invented board"
    assert profile.calibration.measurements >= 3
    path = tmp_path / "file.onnx"
    onnx.save(grid_files(POINTS)[1].model(), path)
    (spent,) = invented([path], 1)
    assert spent is not None
    found = predict(path, profile, threads=1)
    assert found.latency_ms == pytest.approx(spent.time_ms, rel=0.5)
    assert found.low_ms <= found.latency_ms <= found.high_ms
    assert found.coverage == 0.9
    assert "an invented board" in found.basis
    assert predict(path, profile).latency_ms < found.latency_ms, "threads gain"
    written = tmp_path / "invented.toml"
    written.write_text(to_toml(profile), encoding="utf-8")
    assert load_target(str(written)) == profile


def test_more_of_anything_never_takes_less_time_by_tables(profile: TargetProfile) -> None:
    cost = node_cost(profile, 1)
    for grown in (
        [convolution(rows) for rows in range(1, 65)],
        [convolution(32, columns) for columns in (1, 10, 100, 1000)],
        [convolution(32, 100, depth) for depth in (1, 3, 9, 64, 65)],
    ):
        times = [cost(work).latency_ms for work in grown]
        assert times == sorted(times)


def test_a_kind_that_was_not_measured_takes_what_is_nearest(profile: TargetProfile) -> None:
    pool = OpWork(op_type="LpPool", name="p", kind=OpKind.POOL, macs=0, bytes_moved=800, written_bytes=400)
    assert predict_work([pool], profile, threads=1).latency_ms >= 0.0
    alone = replace(profile.calibration, kinds=())  # type: ignore[type-var]
    with pytest.raises(TargetError, match="calibrate the device anew"):
        predict_work([pool], replace(profile, calibration=alone), threads=1)


def test_threads_gain_by_what_was_measured() -> None:
    table = KindTable(kind="convolution", integer=False, blocked=False, ps_per_mac=1.0)
    other = KindTable(kind="pooling", integer=False, blocked=False, ps_per_read_byte=1.0)
    times = [(8.0, 2.0, 8.0 / 4 + 2.0), (4.0, 4.0, 1.0 + 4.0), (1.0, 6.0, 0.25 + 6.0)]
    found = with_threads((table, other), times, threads=4)
    assert [t.parallel_efficiency for t in found] == [1.0, 0.0]


def test_too_few_measurements_are_refused() -> None:
    device = ThisHost(facts=load_target("rpi4"), measure=lambda files, _: [None] * len(files))
    with pytest.raises(TargetError, match=r"only 0 of .* networks could be measured"):
        calibrate("none", device, points=POINTS[:2])


def test_this_host_tells_times_and_shares_of_nodes(tmp_path: Path) -> None:
    path = tmp_path / "point.onnx"
    onnx.save(POINTS[0].model(), path)
    (found,) = measure_here([path], 1)
    assert found is not None
    assert found.time_ms > 0.0
    assert sum(found.shares.values()) == pytest.approx(1.0)
