"""Open an ssh connection whose host key is checked, or say in a sentence why there is none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import DeviceError
from edgeprune.options.devices import Destination, DeviceOptions

if TYPE_CHECKING:
    import asyncssh

CONNECT_TIMEOUT_S = 20
LOGIN_TIMEOUT_S = 40
_KEEPALIVE_S = 15
_KEEPALIVES = 6
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")


@dataclass(kw_only=True)
class HostKeys:
    """Accepted host keys, and the key that a server showed and that is not among them."""

    files: tuple[Path, ...]
    known: asyncssh.SSHKnownHosts
    refused: asyncssh.SSHKey | None = None
    host: str = ""
    address: str = ""
    port: int | None = None

    @property
    def are_others_known(self) -> bool:
        """Whether the host is known by another key than the one that it showed."""
        port = None if self.port == 22 else self.port
        trusted, _, revoked, *_ = self.known.match(self.host, self.address, port)
        return bool(trusted or revoked)


@dataclass(frozen=True, kw_only=True)
class Login:
    """Where to connect to, and what is accepted and given there."""

    options: DeviceOptions
    keys: HostKeys
    destination: Destination = field(init=False)

    def __post_init__(self) -> None:
        """Read the destination once."""
        object.__setattr__(self, "destination", self.options.destination)

    @property
    def command(self) -> str:
        """What a user types to connect in the same way."""
        where = self.destination
        port = "" if where.port is None else f"-p {where.port} "
        identity = "" if self.options.identity is None else f"-i {self.options.identity} "
        user = "" if where.user is None else f"{where.user}@"
        return f"ssh {port}{identity}{user}{where.host}"


async def connect(options: DeviceOptions) -> asyncssh.SSHClientConnection:
    """Connect and log in with a key; ``~/.ssh/config`` and the agent count, passwords are never asked for.

    Raises:
        DeviceError: unreachable, unknown, not the host that is known, or it lets nobody in by this key.
    """
    import asyncssh

    login = Login(options=options, keys=_host_keys(options))
    where = login.destination

    class Client(asyncssh.SSHClient):
        """Notes the key of a server that is not known."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            keys = login.keys
            keys.host, keys.address, keys.port, keys.refused = host, addr, port, key
            return False

    given: dict[str, Any] = {
        "username": where.user,
        "port": where.port,
        "client_keys": None if options.identity is None else [str(Path(options.identity).expanduser())],
    }
    with _in_a_sentence(login):
        connection, _ = await asyncssh.create_connection(
            Client,
            where.host,
            known_hosts=login.keys.known,
            password_auth=False,
            kbdint_auth=False,
            connect_timeout=CONNECT_TIMEOUT_S,
            login_timeout=LOGIN_TIMEOUT_S,
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES,
            **{name: value for name, value in given.items() if value is not None},
        )
    return connection


def _host_keys(options: DeviceOptions) -> HostKeys:
    """The accepted keys, read here: a configuration that switches the check off does not count.

    Raises:
        DeviceError: a file cannot be read or is none of host keys.
    """
    import asyncssh

    given = _DEFAULT_KNOWN_HOSTS if options.known_hosts is None else (str(options.known_hosts),)
    files = tuple(Path(name).expanduser() for name in given)
    readable = [str(path) for path in files if path.is_file()]
    try:
        known = asyncssh.read_known_hosts(readable) if readable else asyncssh.import_known_hosts("")
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"the host keys in {', '.join(readable)} cannot be read ({error}); mend the file, or name "
            "another "
            "one with --known-hosts"
        ) from error
    return HostKeys(files=files, known=known)


@contextmanager
def _in_a_sentence(login: Login) -> Iterator[None]:
    import asyncssh

    name = str(login.destination)
    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise DeviceError(_host_key_sentence(login, str(error))) from error
    except asyncssh.PermissionDenied as error:
        raise DeviceError(
            f"{name} lets nobody in by the keys that were offered ({_offered(login)}); give the right "
            "key with "
            "--identity, or put its public part there with ssh-copy-id (passwords are never asked for)"
        ) from error
    except asyncssh.KeyEncryptionError as error:
        raise DeviceError(
            f"the private key {_offered(login)} is protected by a passphrase; add it to the agent with "
            "ssh-add, and leave --identity out"
        ) from error
    except asyncssh.KeyImportError as error:
        raise DeviceError(
            f"{_offered(login)} holds no private key ({error}); give the file without .pub that "
            "ssh-keygen made"
        ) from error
    except asyncssh.KeyExchangeFailed as error:
        raise DeviceError(_exchange_sentence(login, str(error))) from error
    except asyncssh.ConfigParseError as error:
        raise DeviceError(f"~/.ssh/config cannot be read ({error}); mend the line") from error
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise DeviceError(_network_sentence(login, error)) from error


def _offered(login: Login) -> str:
    identity = login.options.identity
    return "those of the agent and of ~/.ssh" if identity is None else repr(str(identity))


def _host_key_sentence(login: Login, reason: str) -> str:
    keys, where = login.keys, login.destination
    file, name = keys.files[0], f"the host key of {where}"
    port = f"-p {keys.port} " if keys.port not in (None, 22) else ""
    entry = f"[{keys.host}]:{keys.port}" if port else keys.host
    if keys.refused is None:
        return f"{name} is not accepted ({reason}); check who answers there, and its line in {file}"
    shown = f"{keys.refused.get_algorithm()} {keys.refused.get_fingerprint()}"
    if keys.are_others_known:
        return (
            f"{name} is not the one in {file}: it showed {shown}, so this may be another machine, or one in "
            "between; if the device was set up anew, check the fingerprint on it and remove the old "
            "key with "
            f"ssh-keygen -R '{entry}' -f {file}, then connect once with {login.command}"
        )
    return (
        f"{name} is not known ({shown}, not in {file}); check the fingerprint on the device, then "
        "accept it by "
        f"connecting once with {login.command}, or with ssh-keyscan {port}{keys.host} >> {file}"
    )


def _exchange_sentence(login: Login, reason: str) -> str:
    where = login.destination
    if "host key" in reason:
        return (
            f"the host key of {where} is not the one in {login.keys.files[0]}: it shows none of that kind "
            f"({reason}); check the device, remove the old line, then connect once with {login.command}"
        )
    return f"{where} and this machine agree on no cipher ({reason}); update the ssh server of the device"


def _network_sentence(login: Login, error: Exception) -> str:
    where, host = login.destination, login.destination.host
    if isinstance(error, socket.gaierror):
        return (
            f"no address is known for {host!r} ({error.strerror or error}); check the name, or give the "
            "address in numbers"
        )
    if isinstance(error, ConnectionRefusedError):
        return (
            f"{where} refuses connections there; start its ssh server (on a Raspberry Pi: sudo raspi-config, "
            "Interface Options, SSH), or give the right port with --ssh-port"
        )
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return (
            f"{where} did not answer within {CONNECT_TIMEOUT_S} s; check that it is switched on and in the "
            "same network"
        )
    if isinstance(error, OSError):
        return f"{where} cannot be reached ({error.strerror or error}); check the network and the address"
    return f"{where} ended the connection before it was made ({error}); look into its log of sshd"
