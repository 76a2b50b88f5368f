"""What is fuzzed of the codecs: bodies, with the size that they are said to decode to in front."""

import struct

import numpy as np

from cas.codec.base import codec_for, delta_for
from cas.codec.compress import Zstd
from cas.codec.delta import DELTA
from cas.codec.element import Element
from cas.codec.planes import Planes
from cas.codec.sparse import SPARSE_DELTA
from cas.errors import CorruptionError
from tests.fuzz.fuzzing import MOST, Target


def targets() -> dict[str, Target]:
    """Return the codecs that have a form of their own."""
    return {
        "zstd": Target(_zstds(), lambda data: _decoded(1, data)),
        "planes": Target(_planes(), lambda data: _decoded(2, data)),
        "delta": Target(_deltas(), _delta),
    }


def _zstds() -> list[bytes]:
    parts = [
        b"",
        b"x",
        b"a line\n" * 900,
        bytes(5000),
        np.random.default_rng(2).bytes(300),
        bytes(range(256)) * 400,
    ]
    return [struct.pack("<I", len(part)) + Zstd(level).encode(part)
            for part in parts for level in (1, 19)]  # fmt: skip


def _decoded(tag: int, data: bytes) -> object:
    """Decode to as many bytes as the first four say, in both ways, which must agree."""
    if len(data) < 4:
        raise CorruptionError("too short")
    size = int.from_bytes(data[:4], "little") % MOST
    codec, body = codec_for(tag), data[4:]
    target = memoryview(bytearray(size))
    failed: list[str] = []
    whole = None
    try:
        whole = bytes(codec.decode(body, size))
    except CorruptionError as error:
        failed.append(str(error))
    try:
        codec.decode_into(body, target)
    except CorruptionError as error:
        failed.append(str(error))
    if len(failed) == 1:
        raise AssertionError(f"two ways to decode disagree: {failed[0]}")
    if failed:
        raise CorruptionError(failed[0])
    assert whole == bytes(target)
    return size > 0, len(body) > 64


def _numbers(dtype: str) -> bytes:
    return np.random.default_rng(1).normal(0, 1, 300).astype(dtype).tobytes() + b"xyz"


def _planes() -> list[bytes]:
    made = []
    for dtype, element in ((("<f4"), Element(4, floating=True)), ("<f8", Element(8, floating=True)),
                           ("<i2", Element(2)), ("<f2", Element(2, floating=True))):  # fmt: skip
        data = _numbers(dtype)
        made.append(struct.pack("<I", len(data)) + bytes(Planes(element).encode(data)))
    data = bytes(4096)
    return [*made, struct.pack("<I", len(data)) + bytes(Planes().encode(data))]


def _deltas() -> list[bytes]:
    """Return bodies with their codec and the size of the base in front."""
    made = []
    for dtype, element in (("<f4", Element(4, floating=True)), ("<i2", Element(2)),
                           ("<f2", Element(2, floating=True)), ("|u1", Element(1))):  # fmt: skip
        base = bytearray(_numbers(dtype))
        data = bytearray(base)
        for at in range(0, len(data), 40):
            data[at] ^= 3
        for codec in (DELTA, SPARSE_DELTA):
            body = bytes(codec.encode(data, bytes(base), element))
            made.append(struct.pack("<BI", codec.tag, len(base)) + body)
    return made


def _delta(data: bytes) -> object:
    if len(data) < 5:
        raise CorruptionError("too short")
    tag, size = struct.unpack_from("<BI", data)
    size %= MOST
    target = memoryview(bytearray(size))
    delta_for(4 - tag % 2).decode_into(data[5:], bytes(size), target)
    return tag % 2, size > 0
