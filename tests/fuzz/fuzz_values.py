"""Odd bytes, texts, numbers and JSON values, drawn by a seeded generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

CANARY = "EXECUTED"
"""A file that only code out of an input file would make, in the folder where the command runs."""
PAYLOAD = f"__import__('os').system('touch {CANARY}')"

CONTROLS = ("\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\x08\x08", "\x00", "\x7f", "\x85", "\u202e", "\u2066")
"""What a terminal may take for a command; none of it is written by edgeprune's own progress bars."""

TEXTS = (
    "", " ", "\n", "a\nerror: b", "..", "../../x", "/etc/passwd", "/dev/zero", "~", "-h", "--help", "%s%n{0}",
    "x" * 300, "x" * 70_000, "é" * 100, "\ud800", "٣", "None", "__class__", "a.__init__", "nan", "[bold]x[/]",
    "[/nothing]", "a'b\"c`d", "\\", "torch.os.system", PAYLOAD, f"0\") if {PAYLOAD} else getattr(self, \"0",
    "float99", "1e999", "first.weight", "torch.ops.aten.relu.default",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 255, 65_536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**30, 10**400, 0.0, -0.0, 0.5, -0.5, 1e-320, 1e-30, 1e30, 1.7e308, float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip
_DEEP = "@deep@"
_LONG_NUMBER = "@long number@"
_IN_TEXT = {
    f'"{_DEEP}"': "[" * 3_000 + "]" * 3_000,
    f'"{_LONG_NUMBER}"': "9" * 6_000,
}
"""What ``json.dumps`` refuses to write, by what stands for it until then."""

WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def odd_text(rng: random.Random) -> str:
    """A text that few readers expect."""
    if rng.random() < 0.35:
        return f"{rng.choice(('', 'layer', 'first'))}{rng.choice(CONTROLS)}{rng.choice(('', 'x', '.weight'))}"
    return rng.choice(TEXTS)


def odd_value(rng: random.Random) -> Any:
    """A JSON value of any type."""
    return rng.choice(
        (
            lambda: None,
            lambda: rng.choice((True, False)),
            lambda: rng.choice(NUMBERS),
            lambda: rng.choice(NUMBERS),
            lambda: odd_text(rng),
            lambda: odd_text(rng),
            lambda: rng.choice(([], {}, [[]], {"": {}}, [None], [0] * 2_000)),
            lambda: rng.choice((_DEEP, _LONG_NUMBER)),
        )
    )()


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to four changes that know nothing of what they mean."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_BYTE_CHANGES)(rng, data)
    return data


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 64, 1024)))


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\0"
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _word(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    size = rng.choice((1, 2, 4, 8))
    word = (rng.choice(WORDS) % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
    return data[:start] + word + data[start + size :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _delete(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def _splice(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[start:end] + data[place + end - start :]


def _noise(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _zeros(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + bytes(end - start) + data[end:]


def _appended(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b"\n", rng.randbytes(20), data[:200]))


_BYTE_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _flip, _flip, _word, _word, _cut, _delete, _repeat, _splice, _noise, _zeros, _appended,
)  # fmt: skip


def mutated_json(rng: random.Random, data: bytes) -> bytes:
    """JSON with other values, keys or types, which still is JSON in most cases."""
    if rng.random() < 0.1:
        return mutated_bytes(rng, data)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _changed(rng, value)
    return dumped(value)


def dumped(value: Any) -> bytes:
    """JSON text; what Python does not write (deep nesting, long numbers) is put in for its mark."""
    text = json.dumps(value)
    for mark, meant in _IN_TEXT.items():
        text = text.replace(mark, meant)
    return text.encode()


def _changed(rng: random.Random, value: Any) -> Any:
    """A copy with a change somewhere: each step down is taken with the same chance, so all depths are met."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        kind = rng.random()
        if kind < 0.05:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.10:
            return {(odd_text(rng) if k == key else k): v for k, v in value.items()}
        if kind < 0.14:
            return {**value, odd_text(rng): odd_value(rng)}
        return {**value, key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.05:
            return value[:index] + value[index + 1 :]
        if kind < 0.10:
            return value[: index + 1] + value[index:]
        if kind < 0.14:
            return rng.sample(value, len(value))
        return [*value[:index], _changed(rng, value[index]), *value[index + 1 :]]
    if isinstance(value, int) and rng.random() < 0.3:
        return value + rng.choice((-1, 1))
    return odd_value(rng)


def mutated_toml(rng: random.Random, text: str) -> bytes:
    """TOML with other values, keys, lines or bytes."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        kind = rng.random()
        if equals and kind < 0.6:
            lines[at] = f"{key} = {_toml_value(rng)}"
        elif equals and kind < 0.7:
            lines[at] = f"{rng.choice((json.dumps(odd_text(rng)), 'odd', ''))} = {_toml_value(rng)}"
        elif kind < 0.8:
            del lines[at]
        elif kind < 0.9:
            lines.insert(
                at, rng.choice((lines[at], "[roofline]", "[[a]]", "[a]", "\x1b[2J = 1", "# \x1b]0;x\x07"))
            )
        else:
            return mutated_bytes(rng, "\n".join(lines).encode())
        lines = lines or [""]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _toml_value(rng: random.Random) -> str:
    return rng.choice(
        (
            lambda: str(rng.choice(NUMBERS)),
            lambda: str(rng.choice(NUMBERS)),
            lambda: json.dumps(odd_text(rng)),
            lambda: json.dumps(odd_text(rng)),
            lambda: rng.choice(("true", "1979-05-27", "07:32:00", "[]", "{}", '""', "9" * 6_000, "1e400")),
            lambda: "[" * 3_000 + "]" * 3_000,
            lambda: f"[{', '.join(str(rng.choice(NUMBERS)) for _ in range(rng.choice((1, 3, 4))))}]",
        )
    )()
