"""Mutators that know how a file is made: zip members with right checksums, npy, safetensors, PNG, pickles."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fuzz_values import CANARY, NUMBERS, PAYLOAD, dumped, mutated_bytes, mutated_json, odd_text
from PIL import Image

from edgeprune.storage.zips import ARRAY_DAMAGE

Member = Callable[[random.Random, str, bytes], bytes]
"""Changes the content of a member, given its name."""


class Trap:
    """Makes the canary when it is unpickled."""

    def __init__(self, rng: random.Random) -> None:
        self.made = rng.choice(((open, (CANARY, "w")), (eval, (PAYLOAD,)), (exec, (PAYLOAD,))))

    def __reduce__(self) -> Any:
        return self.made


def mutated_zip(rng: random.Random, data: bytes, change: Member) -> bytes:
    """The archive with one to three members changed and written anew; now and then bytes of the file."""
    if rng.random() < 0.15:
        return mutated_bytes(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    compression = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    )
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        members = _other_members(rng, members, change)
    written = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(written, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two members of the same name are meant
        for name, content in members:
            # The same date for all, or the bytes would not be those of the seed.
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return written.getvalue()


def _other_members(
    rng: random.Random, members: list[tuple[str, bytes]], change: Member
) -> list[tuple[str, bytes]]:
    index = rng.randrange(len(members))
    name, content = members[index]
    before, after = members[:index], members[index + 1 :]
    kind = rng.random()
    if kind < 0.7:
        return [*before, (name, change(rng, name, content)), *after]
    if kind < 0.76:
        return [*before, *after] or members
    if kind < 0.80:
        return [*before, (_name(rng, name), content), *after]
    if kind < 0.84:
        return [*members, (_name(rng, name), content)]
    if kind < 0.88:
        return [*before, (name, bytes(rng.choice((1, 10**6, 3 * 10**7)))), *after]
    if kind < 0.92:
        return rng.sample(members, len(members))
    return [*before, (name, rng.choice(members)[1]), *after]


def _name(rng: random.Random, name: str) -> str:
    text = odd_text(rng)[:200].encode("utf-8", "replace").decode()
    return rng.choice((text, f"{name}x", f"{name.partition('/')[0]}/{text}", name)) or "x"


def any_member(rng: random.Random, name: str, content: bytes) -> bytes:
    """By what the member is: JSON, an npy array, a pickle, an archive or bytes."""
    try:
        if name.endswith(".json"):
            return mutated_json(rng, content)
        if name.endswith(".npy"):
            return mutated_npy(rng, content)
        if name.endswith(".pkl"):
            return mutated_pickle(rng, content)
        if name.endswith(".pt"):
            return mutated_zip(rng, content, any_member)
    except ARRAY_DAMAGE:  # changed before
        return mutated_bytes(rng, content)
    return odd_floats(rng, content) if rng.random() < 0.5 else mutated_bytes(rng, content)


def odd_floats(rng: random.Random, content: bytes) -> bytes:
    """The bytes of float32 values with all, or some, replaced by odd ones; as many bytes as before."""
    values = np.frombuffer(content[: len(content) // 4 * 4], dtype=np.float32).copy()
    if not len(values):
        return mutated_bytes(rng, content)
    odd = np.float32(rng.choice((np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 1e-40, 0.0, 1.0)))
    chosen = rng.sample(range(len(values)), rng.choice((1, max(1, len(values) // 2), len(values))))
    values[chosen] = odd
    return values.tobytes() + content[len(values) * 4 :]


def mutated_pickle(rng: random.Random, content: bytes) -> bytes:
    """Other bytes, or a pickle that runs code, alone or before the one that was there."""
    if rng.random() < 0.6:
        return mutated_bytes(rng, content)
    trap = pickle.dumps(Trap(rng), protocol=2)
    return rng.choice((trap, trap[:-1] + b"0" + content[2:], content[:-1] + b"0" + trap[2:]))


NPY_TYPES = (
    "|O", "|b1", "<f2", ">f4", "<f8", "<f16", "<c8", "<i1", "|u1", "<u8", "<U3", "|S4", "|V8", "<M8[s]",
    "odd", "", "<f4,<i4", PAYLOAD, "x" * 5000,
)  # fmt: skip
NPY_SHAPES = (
    "()", "(0,)", "(1,)", "(2**40,)", "(-1,)", "(60, 8)", "(60, 0, 8)", "(60, 8, 8, 1, 1)", "(1e3,)", "None",
    "(9223372036854775807, 9223372036854775807)", "(4000000000,)", "[60, 8, 8]", "(True, 8, 8)", PAYLOAD,
    f"({'9' * 5000},)", "(1,) * 10**9",
)  # fmt: skip


def mutated_npy(rng: random.Random, content: bytes) -> bytes:
    """Another header, other values or other bytes."""
    kind = rng.random()
    if kind < 0.15:
        return mutated_bytes(rng, content)
    array = np.load(io.BytesIO(content))
    if kind < 0.6:
        return _saved(_other_array(rng, array))
    descr = repr(rng.choice(NPY_TYPES)) if rng.random() < 0.6 else repr(array.dtype.str)
    shape = rng.choice(NPY_SHAPES) if rng.random() < 0.6 else repr(array.shape)
    order = rng.choice(("False", "False", "True", "1", "None"))
    more = rng.choice(("", "", ", 'more': 1", ", 'a': " + "(" * 200 + ")" * 200))
    return _npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}{more}}}\n", array.tobytes())


def _npy(header: str, body: bytes) -> bytes:
    text = header.encode("latin-1", "replace")
    if len(text) < 65_536:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + body


def _saved(array: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


def _other_array(rng: random.Random, array: Any) -> Any:
    """Valid arrays of other types, shapes and values."""
    odd = rng.choice([n for n in NUMBERS if isinstance(n, float)])
    with np.errstate(all="ignore"):
        return rng.choice(
            (
                lambda: array[:1],
                lambda: array[:0],
                lambda: array[:3],
                lambda: np.zeros_like(array),
                lambda: np.full_like(array, 255 if array.dtype == np.uint8 else 3),
                lambda: np.full(array.shape, odd),
                lambda: np.full(array.shape, odd, dtype=np.float32),
                lambda: np.where(np.arange(array.size).reshape(array.shape) % 7, array, odd),
                lambda: array.astype(rng.choice(("float16", "float64", "int64", "bool", "complex64", "U8"))),
                lambda: array.astype(np.float32) / 255,
                lambda: array.astype(object),
                lambda: np.array([Trap(rng)] * len(array), dtype=object),
                lambda: array[..., None],
                lambda: array[None],
                lambda: np.repeat(array[..., None], rng.choice((2, 3, 4)), axis=-1),
                lambda: array.reshape(-1),
                lambda: array.T,
                lambda: np.arange(len(array)) % rng.choice((1, 2, 60)),
                lambda: np.full(len(array), rng.choice((-1, 5, 10**9, 2**40))),
            )
        )()


SAFETENSORS_TYPES = ("F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "odd", "", 3)


def mutated_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Another header of the right length, other values or other bytes."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = rng.random()
    if kind < 0.2:
        return mutated_bytes(rng, data)
    if kind < 0.55:
        return data[: 8 + length] + odd_floats(rng, body)
    if kind < 0.75:
        described = json.loads(header)
        name = rng.choice(sorted(described))
        entry = described[name]
        if isinstance(entry, dict) and "shape" in entry:
            field, value = rng.choice(
                (
                    ("dtype", rng.choice(SAFETENSORS_TYPES)),
                    ("shape", rng.choice((entry["shape"][::-1], [0], [], [2**40, 2**40], [-1], [1] * 100))),
                    (
                        "data_offsets",
                        rng.choice(([0, 0], [0, 2**63], entry["data_offsets"][::-1], [0], [5, 1])),
                    ),
                )
            )
            described[name] = {**entry, field: value}
        header = dumped(described)
    else:
        header = mutated_json(rng, header)
    size = len(header) if rng.random() < 0.95 else rng.choice((0, 1, 2**40, 2**63, len(header) + 5))
    return size.to_bytes(8, "little") + header + body


def mutated_state(rng: random.Random, state: dict[str, Any]) -> Any:
    """A state_dict, valid or nearly so, with odd tensors, names or things around it."""
    name = rng.choice(sorted(state))
    tensor = state[name]
    odd = rng.choice((float("nan"), float("inf"), 1e30, 3e38, 1e-40, 0.0))
    made: Any = rng.choice(
        (
            lambda: {
                **state,
                name: torch.full_like(tensor, odd) if tensor.is_floating_point() else tensor - 1,
            },
            lambda: {k: torch.full_like(v, odd) if v.is_floating_point() else v for k, v in state.items()},
            lambda: {k: v * odd if v.is_floating_point() else v for k, v in state.items()},
            lambda: {**state, name: _other_tensor(rng, tensor)},
            lambda: {**state, name: rng.choice((None, 3, "x", [1.0], {}, torch.Size([2]), torch.float32))},
            lambda: {k: v for k, v in state.items() if k != name},
            lambda: {odd_text(rng) if k == name else k: v for k, v in state.items()},
            lambda: {f"{odd_text(rng)}{k}": v for k, v in state.items()},
            lambda: {rng.choice((3, None, (1, 2), 0.5)): state[name], **state},
            lambda: {rng.choice(("state_dict", "model", "ema", odd_text(rng))): state, "epoch": 3},
            lambda: list(state.items()),
            lambda: {**state, "trap": Trap(rng)},
            lambda: tensor,
        )
    )()
    return made


def _other_tensor(rng: random.Random, tensor: Any) -> Any:
    return rng.choice(
        (
            tensor.half,
            tensor.double,
            tensor.bfloat16,
            lambda: tensor.to(torch.complex64),
            lambda: tensor.to(torch.int64),
            tensor.bool,
            lambda: tensor.reshape(-1),
            lambda: tensor[None],
            lambda: tensor.new_zeros(()),
            lambda: tensor.new_zeros((0, 3)),
            lambda: tensor.new_zeros(1).expand(10**5, 10**5),
            tensor.to_sparse,
            lambda: tensor.to("meta"),
            lambda: torch.nn.Parameter(tensor.float()),
        )
    )()


def mutated_png(rng: random.Random, data: bytes) -> bytes:
    """Another picture, another chunk with its right checksum, or other bytes."""
    kind = rng.random()
    if kind < 0.35:
        return mutated_bytes(rng, data)
    if kind < 0.7:
        return _other_picture(rng, data)
    signature, place, chunks = data[:8], 8, []
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    index = rng.randrange(len(chunks))
    name, content = chunks[index]
    if rng.random() < 0.3:
        bomb = zlib.compress(bytes(rng.choice((10**3, 10**8))))
        odd = rng.choice((b"zTXt", b"iCCP", b"tEXt", b"PLTE", b"eXIf", b"IDAT", b"acTL"))
        chunks.insert(1, (odd, b"name\0\0" + bomb if odd != b"IDAT" else bomb))
    elif name == b"IHDR":
        sides = struct.pack(">II", *(rng.choice((0, 1, 8, 10_000, 60_000, 2**31 - 1)) for _ in range(2)))
        depth = bytes((rng.choice((1, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 9)), 0, 0, rng.choice((0, 1))))
        chunks[index] = (name, sides + depth)
    else:
        chunks[index] = (name, mutated_bytes(rng, content))
    return signature + b"".join(
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks
    )


def _other_picture(rng: random.Random, data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        size = rng.choice((picture.size, picture.size, (1, 1), (8, 400), (30, 30)))
        value = rng.choice((0, 255, 128))
        found = rng.choice((picture.copy(), Image.new("L", size, value)))
    mode = rng.choice(("L", "L", "1", "P", "RGB", "RGBA", "LA", "I;16", "CMYK", "F"))
    kind = {"CMYK": "JPEG", "F": "TIFF"}.get(
        mode, rng.choice(("PNG", "BMP")) if mode in ("L", "RGB") else "PNG"
    )
    found = found.convert("I").convert("I;16") if mode == "I;16" else found.convert(mode)
    written = io.BytesIO()
    found.save(written, kind)
    return written.getvalue()
