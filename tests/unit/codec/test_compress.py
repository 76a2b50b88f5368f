"""Frames are what the format page says, and forged ones cost nothing."""

import subprocess
import sys
import threading
import tracemalloc

import pytest
import zstandard

from cas.codec.base import CodecTag, codec_for, delta_for
from cas.codec.compress import DIRECT_SIZE, EMPTY_FRAME, MAX_WINDOW, Raw, Zstd
from cas.errors import CorruptionError, InvalidInputError, UnsupportedError
from cas.store.record import DELTAS
from tests.support.noise import noise


def test_tags_are_those_of_the_format() -> None:
    assert {tag.name: tag.value for tag in CodecTag} == {
        "RAW": 0, "ZSTD": 1, "PLANES": 2, "DELTA": 3, "SPARSE_DELTA": 4,
    }  # fmt: skip
    assert codec_for(0) == Raw()
    assert codec_for(1) == Zstd()


def test_each_tag_has_its_codec() -> None:
    for tag in (CodecTag.RAW, CodecTag.ZSTD, CodecTag.PLANES):
        assert codec_for(tag).tag is tag
        assert tag not in DELTAS
    for tag in (CodecTag.DELTA, CodecTag.SPARSE_DELTA):
        assert delta_for(tag).tag is tag
        assert tag in DELTAS


@pytest.mark.parametrize("tag", [5, 127, 200])
def test_an_unknown_tag_is_for_a_newer_version(tag: int) -> None:
    for find in (codec_for, delta_for):
        with pytest.raises(UnsupportedError, match=str(tag)):
            find(tag)


def test_a_delta_is_not_read_without_its_base() -> None:
    with pytest.raises(InvalidInputError, match="base"):
        codec_for(CodecTag.DELTA)
    with pytest.raises(InvalidInputError, match="no delta"):
        delta_for(CodecTag.PLANES)


@pytest.mark.parametrize("size", [0, 1, DIRECT_SIZE - 1, DIRECT_SIZE, DIRECT_SIZE + 1, 1 << 20])
def test_a_frame_is_read_into_its_target(size: int) -> None:
    data = (noise("target", size // 2 + 1) + bytes(size))[:size]
    target = bytearray(size + 2)
    Zstd().decode_into(Zstd().encode(data), memoryview(target)[1 : size + 1])
    assert target == b"\0" + data + b"\0"
    Raw().decode_into(data, memoryview(target)[1 : size + 1])
    assert target == b"\0" + data + b"\0"
    for wrong in (size + 1, max(size - 1, 0)):
        if wrong != size:
            with pytest.raises(CorruptionError):
                Raw().decode_into(data, memoryview(bytearray(wrong)))
            with pytest.raises(CorruptionError):
                Zstd().decode_into(Zstd().encode(data), memoryview(bytearray(wrong)))


@pytest.mark.parametrize("size", [DIRECT_SIZE, 1 << 20])
@pytest.mark.parametrize("data", [bytes(1 << 20), noise("end", 1 << 20)], ids=["same", "noise"])
def test_a_large_frame_ends_where_its_body_does(size: int, data: bytes) -> None:
    data = data[:size]
    body = bytes(Zstd().encode(data))
    target = memoryview(bytearray(size))
    for cut in (1, 2, 3, 4, len(body) // 2, len(body) - 5, len(body)):
        with pytest.raises(CorruptionError):
            Zstd().decode_into(body[:-cut], target)
    for more in (b"\0", body, b"\x50\x2a\x4d\x18\x05\0\0\0hello"):
        with pytest.raises(CorruptionError, match="frame of"):
            Zstd().decode_into(body + more, target)
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    Zstd().decode_into(checked, target)
    assert target == data


def test_frames_state_their_size_and_carry_no_checksum() -> None:
    for size in (0, 1, 300, 70_000):
        frame = zstandard.get_frame_parameters(Zstd().encode(bytes(size)))
        assert (frame.content_size, frame.has_checksum, frame.dict_id) == (size, False, 0)
    assert Zstd().encode(b"") == EMPTY_FRAME


@pytest.mark.parametrize("level", [1, 3, 19])
def test_no_level_writes_a_window_that_readers_refuse(level: int) -> None:
    data = bytes(9 << 20)
    assert Zstd().decode(Zstd(level).encode(data), len(data)) == data


@pytest.mark.parametrize("level", [0, -1, 20])
def test_other_levels_are_refused(level: int) -> None:
    with pytest.raises(InvalidInputError, match="level"):
        Zstd(level)


def test_a_frame_that_promises_too_much_costs_no_memory() -> None:
    body = Zstd(level=1).encode(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="another size"):
            Zstd().decode(body, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_frame_that_lies_about_its_size_is_corruption() -> None:
    body = bytearray(Zstd().encode(b"a" * 300))
    frame = zstandard.get_frame_parameters(bytes(body))
    place = body.index((frame.content_size - 256).to_bytes(2, "little"), 4)
    for claimed in (299, 301, 60_000):
        body[place : place + 2] = (claimed - 256).to_bytes(2, "little")
        assert zstandard.get_frame_parameters(bytes(body)).content_size == claimed
        with pytest.raises(CorruptionError):
            Zstd().decode(body, claimed)


def test_a_large_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=True)
    data = noise("window", 20 << 20)
    body = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    assert zstandard.get_frame_parameters(body).window_size > MAX_WINDOW
    with pytest.raises(CorruptionError, match="window"):
        Zstd().decode(body, len(data))


def test_frames_of_other_kinds_are_corruption() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"12345")
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    for body in (unsized, skippable, b"", b"\x28\xb5\x2f\xfd"):
        with pytest.raises(CorruptionError):
            Zstd().decode(body, 5)


def test_threads_may_share_one() -> None:
    codec, wrong = Zstd(), list[int]()

    def work(number: int) -> None:
        data = noise(f"thread {number}", 20_000) * 3
        for _ in range(20):
            if codec.decode(codec.encode(data), len(data)) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_libraries_come_in_when_they_are_used() -> None:
    code = (
        "import sys, cas.codec.choose, cas.codec.chunker, cas.codec.base, cas.backend.local\n"
        "cas.codec.base.codec_for(1)\n"
        "print(sorted({'zstandard', 'pyfastcdc', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
