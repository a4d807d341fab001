"""``budget.toml``: units, limits of each key, and one sentence for what is wrong."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

import edgeprune
from edgeprune.errors import UsageError
from edgeprune.gate.outcomes import GateLimits
from edgeprune.options.gate import EXAMPLE, CheckOptions, read_limits

ROOT = Path(__file__).resolve().parents[3]


def limits(tmp_path: Path, text: str) -> GateLimits:
    path = tmp_path / "budget.toml"
    path.write_text(text)
    return read_limits(path)


def test_units_are_read(tmp_path: Path) -> None:
    read = limits(
        tmp_path,
        'max_size_bytes = "1.2 MB"\nmax_memory_bytes = 2048\nmax_latency_ms = "800us"\n'
        'max_drop_points = "1.5%"\n'
        "max_latency_ratio = 1\nmin_agreement = 0.9",
    )
    assert read == GateLimits(
        max_size_bytes=1_200_000, max_memory_bytes=2048, max_latency_ms=0.8, max_drop_points=1.5,
        max_latency_ratio=1.0, min_agreement=0.9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_latencyratio = 1.1", "unknown key 'max_latencyratio'; did you mean 'max_latency_ratio'?"),
        ("nothing = 1", "has the unknown key 'nothing'; accepted: max_size_bytes"),
        ('max_size_bytes = "12"', 'a positive number of bytes, or a text such as "1.2 MB", is expected'),
        ("max_size_bytes = -1", "'max_size_bytes' = -1"),
        ("max_size_bytes = true", "'max_size_bytes' = True"),
        ('max_latency_ms = "50%"', "a positive number of milliseconds"),
        ("max_latency_ratio = 0", "a positive ratio such as 1.05 is expected"),
        ("max_drop_points = 101", "percentage points from 0 to 100"),
        ("min_agreement = 95", "a share from 0 to 1"),
        ("", "has no limit; accepted are max_size_bytes"),
        ("max_size_bytes", "is not valid TOML"),
        ("[max_size_bytes]\na = 1", "a positive number of bytes"),
    ],
)
def test_what_is_not_accepted_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        limits(tmp_path, text)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--init shows one"):
        read_limits(tmp_path / "none.toml")


def test_the_example_has_every_key_and_is_that_of_the_examples(tmp_path: Path) -> None:
    assert (ROOT / "examples" / "ci" / "budget.toml").read_text() == EXAMPLE
    everything = re.sub(r"^# (?=\w+ = )", "", EXAMPLE, flags=re.MULTILINE)
    assert tomllib.loads(everything).keys() == {field.name for field in dataclasses.fields(GateLimits)}
    assert None not in dataclasses.astuple(limits(tmp_path, everything))
    assert not limits(tmp_path, EXAMPLE).is_empty


@pytest.mark.parametrize("key", ["max_size_bytes", "max_memory_bytes", "max_latency_ms"])
@pytest.mark.parametrize("value", ["inf", "1e400", "nan", "-1"])
def test_numbers_without_an_end_are_no_limits(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(f"{key} = {value}\n")
    with pytest.raises(UsageError, match=key):
        read_limits(path)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (3, "of type int"),
        ({"max_size_bytes": 5}, "of type dict"),
        (GateLimits(), "has no limit"),
        (GateLimits(max_size_ratio=-1.0), "max_size_ratio"),
        (GateLimits(max_size_bytes=float("nan")), "max_size_bytes"),  # type: ignore[arg-type]
        (GateLimits(max_size_bytes="abc"), "max_size_bytes"),  # type: ignore[arg-type]
    ],
)
def test_a_budget_of_python_is_held_to_the_same(budget: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CheckOptions("model.onnx", budget=budget).limits()  # type: ignore[arg-type]


def test_a_budget_of_python_may_have_units_too() -> None:
    given = GateLimits(max_size_bytes="1.2 MB", max_latency_ratio=1.05)  # type: ignore[arg-type]
    assert CheckOptions("model.onnx", budget=given).limits() == GateLimits(
        max_size_bytes=1_200_000, max_latency_ratio=1.05
    )
    assert CheckOptions("model.onnx").limits() is None


def test_models_and_outcomes_of_other_types_are_refused() -> None:
    with pytest.raises(UsageError, match="accepted is a tuple of texts or paths"):
        edgeprune.compare("plain.onnx")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"accepted is OnInconclusive\.PASS, "):
        edgeprune.check("plain.onnx", inconclusive="pass")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["max_error", "min_measure"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_limits_of_measures_are_finite(tmp_path: Path, key: str, value: float) -> None:
    with pytest.raises(UsageError, match="a finite number"):
        CheckOptions("model.onnx", budget=GateLimits(**{key: value})).limits()
    path = tmp_path / "budget.toml"
    path.write_text(f"{key} = {value}\n")
    with pytest.raises(UsageError, match="a finite number"):
        CheckOptions("model.onnx", budget=path).limits()
