"""Where a device is: what is accepted, and one sentence for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.options.devices import Destination, DeviceOptions

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)
HOSTS = NAMES | st.ip_addresses().map(str)


@given(st.none() | NAMES, HOSTS, st.none() | st.integers(1, 65_535))
def test_a_destination_is_read_as_it_is_shown(user: str | None, host: str, port: int | None) -> None:
    destination = Destination(user=user, host=host, port=port)
    assert DeviceOptions(ssh=str(destination)).destination == destination


@given(st.text(max_size=20))
def test_another_text_is_refused_in_a_sentence_or_is_a_destination(text: str) -> None:
    try:
        host = DeviceOptions(ssh=text).destination.host
    except UsageError:
        return
    assert host
    assert not host.startswith("-")
    assert host in text


@pytest.mark.parametrize(
    ("given_options", "named"),
    [
        ({}, "neither --ssh nor --adb"),
        ({"ssh": "pi@a", "adb": "1"}, "both --ssh and --adb"),
        ({"ssh": "-oProxyCommand=x"}, "accepted is user@host"),
        ({"ssh": "pi@a:70000"}, "from 1 to 65535"),
        ({"ssh": "pi@a:22", "ssh_port": 23}, "two ports"),
        ({"ssh": "pi@a", "ssh_port": 0}, "--ssh-port"),
        ({"ssh": "pi@a", "identity": "missing"}, "--identity 'missing' is no file"),
        ({"ssh": "pi@a", "known_hosts": "missing"}, "--known-hosts 'missing' is no file"),
        ({"adb": "a;b"}, "adb devices"),
        ({"adb": "a", "ssh_port": 22}, "--ssh-port was given with --adb"),
    ],
)
def test_what_does_not_fit_is_named(given_options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        DeviceOptions(**given_options)


def test_a_port_may_be_given_apart(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    options = DeviceOptions(ssh="pi@raspberrypi.local", ssh_port=2222, identity=key)
    assert options.name == "pi@raspberrypi.local:2222"
    assert DeviceOptions(adb="emulator-5554").name == "adb:emulator-5554"
