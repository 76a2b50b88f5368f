"""Records as TensorFlow's files of events have them: a length, the bytes, and a checksum of each.

The checksum is CRC-32C, which Python lacks. A loop over bytes takes 0.1 µs for each and keeps
others from running, so what is large is computed in many columns at once.
"""

import struct
from functools import cache
from typing import Any, Final

POLYNOMIAL: Final = 0x82F63B78
ONES: Final = 0xFFFFFFFF
MASK: Final = 0xA282EAD8
LARGE: Final = 2048  # bytes, from which columns are faster


def record(data: bytes) -> bytes:
    """Return the bytes of one record."""
    head = struct.pack("<Q", len(data))
    return head + _masked(head) + data + _masked(data)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of some bytes."""
    if len(data) >= LARGE:
        return _in_columns(data)
    table, crc = _listed(), ONES
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ ONES


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & ONES)


@cache
def _table() -> Any:
    import numpy as np

    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ POLYNOMIAL, table >> 1)
    return table


@cache
def _listed() -> list[int]:
    listed: list[int] = _table().tolist()
    return listed


def _in_columns(data: bytes) -> int:
    """Return the same, of columns that are computed beside one another and joined in pairs.

    Zeros in front of what is summed up from 0 change nothing, so the columns can be of one length;
    to begin with ones is to turn the bits of the first four bytes.
    """
    import numpy as np

    count = 1 << (len(data).bit_length() + 1) // 2
    length = -(-len(data) // count)
    padded = np.zeros(count * length, np.uint8)
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    at = len(padded) - len(data)
    padded[at : at + 4] ^= 255
    # Behind the columns, 32 that have one bit and then zeros: what a column does to one before it.
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    crc = np.concatenate([np.zeros(count, np.uint32), bits])
    rows = np.zeros((length, count + 32), np.uint32)
    rows[:, :count] = padded.reshape(count, length).T
    table = _table()
    for row in rows:
        crc = table[(crc ^ row) & 255] ^ crc >> 8
    crc, moved = crc[:count], crc[count:]
    while len(crc) > 1:
        crc = _move(moved, crc[::2]) ^ crc[1::2]
        moved = _move(moved, moved)
    return int(crc[0]) ^ ONES


def _move(moved: Any, crc: Any) -> Any:
    """Return checksums as they are behind a column of zeros, which moves each bit as told."""
    import numpy as np

    bits = crc[:, None] >> np.arange(32, dtype=np.uint32) & 1
    return np.bitwise_xor.reduce(np.where(bits, moved, np.uint32(0)), axis=1)
