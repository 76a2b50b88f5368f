"""Records of event files are what TensorBoard's own reader takes."""

import random

import pytest

from cas.tracking.sinks.records import LARGE, crc32c, record


def test_the_checksum_of_known_bytes() -> None:
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789" * 1000) == plain(b"123456789" * 1000)


@pytest.mark.parametrize("size", [1, LARGE - 1, LARGE, LARGE + 1, 4097, 65_536, 100_003])
def test_both_ways_to_compute_it_agree(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == plain(data)


def plain(data: bytes) -> int:
    """Return the CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def test_a_record_is_a_length_and_bytes_each_with_its_checksum() -> None:
    crc = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    raw = record(b"x" * 5000)
    assert raw[:8] == (5000).to_bytes(8, "little")
    assert raw[8:12] == crc.masked_crc32c(raw[:8]).to_bytes(4, "little")
    assert raw[12:-4] == b"x" * 5000
    assert raw[-4:] == crc.masked_crc32c(raw[12:-4]).to_bytes(4, "little")
