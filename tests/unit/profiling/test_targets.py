"""Device profiles: shipped ones are whole and sourced, a user's own are checked, the host is read."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from edgeprune.errors import TargetError
from edgeprune.system.data import data_dir
from edgeprune.system.host import machine_description, read_host, simd_width_bits_for, width_quantum_for
from edgeprune.targets import (
    Calibration,
    KindTable,
    TargetProfile,
    describe_host,
    differences,
    is_arm,
    list_targets,
    load_target,
    own_targets,
    to_toml,
)

DEVICES = tuple(name for name in list_targets() if name != "host")
RPI4_TOML = (data_dir("targets") / "rpi4.toml").read_text(encoding="utf-8")


def own_profile(tmp_path: Path, old: str = "", new: str = "") -> str:
    assert old in RPI4_TOML
    path = tmp_path / "mine.toml"
    path.write_text(RPI4_TOML.replace(old, new, 1) if old else RPI4_TOML, encoding="utf-8")
    return str(path)


def test_the_promised_targets_are_shipped_and_host_comes_first() -> None:
    assert list_targets() == (
        "host",
        "imx8mp",
        "jetson-nano",
        "jetson-orin-nano",
        "n100",
        "pixel7",
        "rpi-zero2",
        "rpi3",
        "rpi4",
        "rpi5",
    )


@pytest.mark.parametrize("name", DEVICES)
def test_a_shipped_profile_loads_and_says_where_its_figures_come_from(name: str) -> None:
    profile = load_target(name)
    assert profile.name == name
    assert profile.roofline is not None
    assert not profile.roofline.calibrated_on_device
    assert set(profile.sources) >= {"cpu", "memory", "width_quantum", "roofline", "error_band"}
    everything = " ".join([*profile.sources.values(), profile.roofline.error_reason])
    assert "TODO" not in everything
    assert all(len(source) > 20 for source in profile.sources.values())
    assert profile.width_quantum == (4 if is_arm(profile.isa) else 8)
    assert 1.0 < profile.peak_gflops_per_core < 100.0
    assert profile.predicts_int8
    assert ("power" in profile.sources) is (profile.power_w is not None)


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-orin-nano"])
def test_a_jetson_profile_says_that_it_is_the_cpu(name: str) -> None:
    profile = load_target(name)
    assert "CPU" in profile.display_name
    assert "CPU execution provider" in profile.note


def test_peak_is_clock_times_pipes_times_lanes_times_two() -> None:
    assert load_target("rpi4").peak_gflops_per_core == pytest.approx(1.8 * 1 * 4 * 2)
    assert load_target("rpi5").peak_gflops_per_core == pytest.approx(2.4 * 2 * 4 * 2)


def test_alias_is_the_profile_it_stands_for() -> None:
    assert load_target("rpi") == load_target("rpi4")


def test_unknown_name_suggests_the_nearest_and_lists_the_accepted() -> None:
    with pytest.raises(
        TargetError, match=r"unknown target 'rpi-4'; did you mean 'rpi4'\? accepted are host, "
    ):
        load_target("rpi-4")


def test_a_name_like_nothing_gets_no_suggestion() -> None:
    with pytest.raises(TargetError) as caught:
        load_target("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "rpi5" in str(caught.value)


def test_a_users_own_profile_loads_by_path(tmp_path: Path) -> None:
    path = own_profile(tmp_path, 'name = "rpi4"', 'name = "garage-pi"')
    profile = load_target(path)
    assert profile.name == "garage-pi"
    assert profile.cores == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 4", "", "lacks the key 'cores'"),
        ("cores = 4", "cores = 4\ncolour = 1", "unknown key 'colour'"),
        ("cores = 4", 'cores = "four"', "'cores' = .*, but a positive whole number is expected"),
        ("cores = 4", "cores = true", "'cores' = .*, but a positive whole number is expected"),
        ("cores = 4", "cores = 2", "default_threads is 4 on 2 cores"),
        ("cores = 4", "cores = 0", "'cores' = 0, but a positive whole number"),
        ("clock_ghz = 1.8", "clock_ghz = -1.8", "'roofline.clock_ghz' = .*, but a positive number"),
        ("clock_ghz = 1.8", "clock_ghz = nan", "'roofline.clock_ghz' = .*, but a positive number"),
        ("clock_ghz = 1.8", "clock_hz = 1.8", "unknown key 'roofline.clock_hz'; did you mean 'clock_ghz'"),
        (
            "parallel_efficiency = 0",
            "parallel_efficiency = 9",
            "'roofline.parallel_efficiency' = 9.*, but a share, above 0",
        ),
        (
            "error_high_factor = 2.7",
            "error_high_factor = 0.9",
            "'roofline.error_high_factor' = 0.9, but a factor of at least 1, since the band holds 1",
        ),
        ("[sources]\ncpu = ", "[sources]\ncpux = ", r"\[sources\] has no 'cpu'"),
        ('aliases = ["rpi"]', "aliases = [1]", "'aliases.0' = 1, but a text in quotes"),
        ("simd_width_bits = 128", "simd_width_bits = 100", "multiple of 32"),
        ("[roofline]", "[roof]", "unknown key 'roof'"),
        ('name = "rpi4"', 'name = "host"', "the name 'host' is kept"),
        ('name = "rpi4"', "name = ", "not valid TOML"),
        ('name = "rpi4"', 'name = ""', "'name' = '', but a text in quotes that is not empty"),
    ],
)
def test_a_malformed_profile_is_named_with_what_is_wrong(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        load_target(own_profile(tmp_path, old, new))
    assert str(caught.value).startswith("mine.toml")
    assert "\n" not in str(caught.value)


def test_a_profile_without_roofline_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    table = RPI4_TOML.index("[roofline]")
    path.write_text(RPI4_TOML[:table] + RPI4_TOML[RPI4_TOML.index("[sources]") :], encoding="utf-8")
    with pytest.raises(TargetError, match=r"the table \[roofline\] is missing"):
        load_target(str(path))


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no target profile at"):
        load_target(str(tmp_path / "none.toml"))


def test_binary_instead_of_toml_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match=r"mine\.toml is not valid TOML .*utf-8"):
        load_target(str(path))


def test_host_is_read_and_has_no_roofline_to_predict_with() -> None:
    host = load_target("host")
    assert host.is_host
    assert host.roofline is None
    assert host == describe_host()
    assert host.width_quantum in (4, 8, 16)
    assert host.default_threads >= 1
    with pytest.raises(TargetError, match="no roofline"):
        _ = host.peak_gflops_per_core


def test_host_file_stores_no_figures() -> None:
    table = tomllib.loads((data_dir("targets") / "host.toml").read_text(encoding="utf-8"))
    assert table["detected_at_run_time"] is True
    assert not any(
        isinstance(value, (int, float)) for key, value in table.items() if key != "detected_at_run_time"
    )


def test_unknown_facts_of_the_host_are_none_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.system.host.physical_memory_bytes", lambda: None)
    monkeypatch.setattr("edgeprune.system.host._cpu_flags", lambda: None)
    host = describe_host()
    assert host.memory_bytes is None
    assert host.simd_width_bits is None
    assert "memory_bytes" in host.note
    assert "unknown" in host.width_quantum_reason
    assert "unknown memory" in machine_description()


@pytest.mark.parametrize(
    ("flags", "quantum", "bits"),
    [
        ({"sse2", "avx", "avx2", "avx512f"}, 16, 512),
        ({"sse2", "avx", "avx2"}, 8, 256),
        ({"asimd", "fp"}, 4, 128),
        ({"sse2"}, 4, 128),
    ],
)
def test_width_quantum_follows_the_vector_width(flags: set[str], quantum: int, bits: int) -> None:
    assert width_quantum_for(frozenset(flags))[0] == quantum
    assert simd_width_bits_for(frozenset(flags)) == bits


def test_host_facts_are_plausible_here() -> None:
    facts = read_host()
    assert facts.cores is None or facts.cores >= 1
    assert facts.memory_bytes is None or facts.memory_bytes > 2**26


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "edgeprune" / "targets"
    folder.mkdir(parents=True)
    return folder


def test_profiles_in_the_users_folder_are_found_by_name_after_those_of_the_package(own_folder: Path) -> None:
    mine = RPI4_TOML.replace('name = "rpi4"', 'name = "garage-pi"', 1)
    (own_folder / "garage-pi.toml").write_text(mine, encoding="utf-8")
    (own_folder / "rpi5.toml").write_text(mine, encoding="utf-8")
    assert load_target("garage-pi").cores == 4
    assert set(own_targets()) == {"garage-pi"}
    assert load_target("rpi5").cpu_name == "4x Cortex-A76 (BCM2712)"
    with pytest.raises(TargetError, match="did you mean 'garage-pi'"):
        load_target("garage-pie")


@pytest.mark.parametrize("name", DEVICES)
def test_a_written_profile_reads_back_equal(tmp_path: Path, name: str) -> None:
    path = tmp_path / "again.toml"
    path.write_text(to_toml(load_target(name)), encoding="utf-8")
    assert load_target(str(path)) == load_target(name)


def calibrated(note: str, tables: tuple[KindTable, ...]) -> TargetProfile:
    calibration = Calibration(
        machine=note, date="2026-01-01", runtime="onnxruntime 1", edgeprune="1", measurements=3,
        measured_s=1.5,
        held_out_median_error=0.1, us_per_run=2.0, error_low_factor=0.9, error_high_factor=1.2,
        error_coverage=0.9, kinds=tables,
    )  # fmt: skip
    base = load_target("rpi4")
    return dataclasses.replace(
        base, name="mine", aliases=(), roofline=None, calibration=calibration, note=note
    )


_coefficients = st.floats(min_value=0.0, max_value=1e9, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(
    note=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    table=st.builds(
        KindTable, kind=st.just("convolution"), integer=st.booleans(), blocked=st.booleans(),
        us_per_node=_coefficients, ps_per_mac=_coefficients,
    ),
)  # fmt: skip
def test_a_calibrated_profile_of_any_words_reads_back_equal(note: str, table: KindTable) -> None:
    profile = calibrated(note, (table, dataclasses.replace(table, kind="pooling")))
    read = tomllib.loads(to_toml(profile))
    assert read["note"] == note
    assert read["calibration"]["machine"] == note
    assert read["calibration"]["kinds"][0]["us_per_node"] == table.us_per_node if table.us_per_node else True
    assert len(read["calibration"]["kinds"]) == 2


def test_a_calibrated_profile_is_read_and_says_what_it_knows(tmp_path: Path) -> None:
    table = KindTable(kind="convolution", integer=True, blocked=False, ps_per_mac=3.5)
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(calibrated("a board", (table,))), encoding="utf-8")
    profile = load_target(str(path))
    assert profile == calibrated("a board", (table,))
    assert profile.predicts_int8
    assert not calibrated("x", (dataclasses.replace(table, integer=False),)).predicts_int8


def test_differences_are_named_by_their_path() -> None:
    first = load_target("rpi4")
    assert differences(first, first) == ()
    assert first.roofline is not None
    faster = dataclasses.replace(first.roofline, clock_ghz=2.0)
    second = dataclasses.replace(first, roofline=faster, memory_bytes=None)
    assert set(differences(first, second)) == {
        ("roofline.clock_ghz", 1.8, 2.0), ("memory_bytes", 4_294_967_296, None),
    }  # fmt: skip
