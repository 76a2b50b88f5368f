"""Raw for what does not compress, zstd for what does, and little work to tell."""

import pytest

from cas.codec import choose
from cas.codec.base import CodecTag
from cas.codec.compress import Zstd
from cas.codec.element import Element
from cas.ids import Buffer
from tests.support.noise import noise


def tag(data: Buffer) -> CodecTag:
    return choose.encode(data)[0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", CodecTag.RAW),
        (b"a" * 63, CodecTag.RAW),
        (b"a" * 64, CodecTag.ZSTD),
        (b'{"step": 1, "loss": 0.5}\n' * 10, CodecTag.ZSTD),
        (noise("choose", 64), CodecTag.RAW),
        (noise("choose", 5000), CodecTag.RAW),
        (noise("choose", 1 << 20), CodecTag.RAW),
        (bytes(1 << 20), CodecTag.ZSTD),
    ],
    ids=lambda value: value.name if isinstance(value, CodecTag) else str(len(value)),
)
def test_the_choice(data: bytes, expected: CodecTag) -> None:
    assert tag(data) is expected


def test_raw_is_the_very_same_bytes() -> None:
    data = noise("choose", 100_000)
    assert choose.encode(data)[1] is data


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_window_of_the_sample_counts(place: int) -> None:
    parts = [noise(f"part {number}", 100_000) for number in range(3)]
    parts[place] = bytes(100_000)
    assert tag(b"".join(parts)) is CodecTag.ZSTD


def test_a_sample_that_compresses_does_not_keep_a_body_that_does_not() -> None:
    # The gain is in the windows alone: a fiftieth of the whole.
    data = bytearray(noise("whole", 3_000_000))
    for start in (0, (len(data) - choose.SAMPLE_SIZE) // 2, len(data) - choose.SAMPLE_SIZE):
        data[start : start + choose.SAMPLE_SIZE] = bytes(choose.SAMPLE_SIZE)
    assert tag(data) is CodecTag.RAW


def test_what_does_not_compress_costs_a_sample_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    plain = Zstd.encode

    def counted(self: Zstd, data: Buffer) -> Buffer:
        taken.append(memoryview(data).nbytes)
        return plain(self, data)

    monkeypatch.setattr(Zstd, "encode", counted)
    choose.encode(noise("choose", 1 << 20))
    assert taken == [16 << 10] * 3


def test_views_of_wider_items_are_taken_by_their_bytes() -> None:
    data = memoryview(bytes(1 << 20)).cast("d")
    chosen, body = choose.encode(data, Element(8))  # type: ignore[arg-type]
    assert chosen is CodecTag.ZSTD
    assert Zstd().decode(body, 1 << 20) == bytes(1 << 20)
    noisy = memoryview(noise("choose", 1 << 20)).cast("d")
    chosen, body = choose.encode(noisy, Element(8))  # type: ignore[arg-type]
    assert chosen is CodecTag.RAW
    assert body is noisy
