"""What was logged beside numbers, as columns and as frames of a journal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import ObjectId
from cas.objects import canonical
from cas.tracking.journals.state import RunState
from cas.tracking.shown.logged import (
    FRAME_BYTES,
    FRAME_ROWS,
    Logged,
    Tracks,
    check_key,
    files,
    frames,
)

IDS = st.binary(min_size=32, max_size=32).map(ObjectId)
OPTIONS = st.dictionaries(st.sampled_from(["caption", "epoch"]), st.integers(0, 9), max_size=2)


@st.composite
def row(draw: st.DrawFn) -> Logged:
    data = draw(st.none() | st.binary(max_size=40))
    return Logged(
        kind=draw(st.sampled_from(["text", "image"])),
        key=draw(st.sampled_from(["a", "a/b", "weird key é"])),
        step=draw(st.integers(-(2**63), 2**63 - 1)),
        time=draw(st.floats(0, 2e9)),
        format=draw(st.sampled_from(["txt", "png"])),
        size=draw(st.integers(0, 2**40)) if data is None else len(data),
        id=draw(IDS) if data is None else None,
        data=data,
        options=draw(OPTIONS),
    )


def by_track(rows: list[Logged]) -> list[Logged]:
    return sorted(rows, key=lambda one: one.where)


@given(rows=st.lists(row(), max_size=30))
def test_frames_tell_everything_in_order(rows: list[Logged]) -> None:
    tracks = Tracks()
    for frame in frames(rows):
        tracks.replay(canonical.decode(canonical.encode(frame)))  # type: ignore[arg-type]
    assert tracks.rows() == by_track(rows)
    again = Tracks()
    for frame in tracks.frames():
        again.replay(frame)
    assert again.rows() == tracks.rows()
    assert again.packed_bytes == sum(len(one.data) for one in rows if one.data is not None)
    assert again.counts() == {
        where: sum(one.where == where for one in rows) for where in {one.where for one in rows}
    }


def text(step: int, data: bytes = b"x", key: str = "a") -> Logged:
    return Logged("text", key, step, 1.0, "txt", len(data), data=data)


def image(step: int, digit: int = 0, key: str = "a") -> Logged:
    return Logged("image", key, step, 1.0, "png", 5, id=ObjectId(bytes([digit]) * 32))


def test_a_frame_is_of_bounded_size() -> None:
    large = list(frames(text(step, bytes(FRAME_BYTES // 2)) for step in range(5)))
    assert [len(frame["sizes"]) // 8 for frame in large] == [2, 2, 1]
    many = list(frames(text(step) for step in range(FRAME_ROWS + 1)))
    assert [len(frame["sizes"]) // 8 for frame in many] == [FRAME_ROWS, 1]


def damaged(**other: Any) -> dict[str, Any]:
    (frame,) = frames([text(1), text(2)])
    return frame | other


@pytest.mark.parametrize(
    "frame",
    [
        damaged(steps=bytes(8)),
        damaged(steps=bytes(9)),
        damaged(data=b"xxx"),
        damaged(data=b""),
        damaged(packed=b"\0\0"),
        damaged(ids=bytes(32)),
        damaged(sizes=(-1).to_bytes(8, "little", signed=True) * 2),
        damaged(formats=["txt"]),
        damaged(formats=["../x", "txt"]),
        damaged(kind="No Kind"),
        damaged(key="../x"),
        damaged(key=7),
        damaged(options=[None, 5]),
        {name: value for name, value in damaged().items() if name != "times"},
    ],
)
def test_a_damaged_frame_is_told_and_changes_nothing(frame: dict[str, Any]) -> None:
    state = RunState("a/b", "runs/a/b", bytes(16))
    with pytest.raises(CorruptionError, match="damaged frame"):
        state.replay([frame])
    assert not state.logged


@pytest.mark.parametrize(
    "key",
    [
        *("", "a" * 257, "a/", "/a", "a//b", "..", "a/../b", ".git/x", "a\nb", "é" * 101),
        *("12.png", "a/-3.wav/b", "7-2.plotly.json", "/".join("a" * 33), 5, None),
    ],
)
def test_a_key_that_could_not_be_a_file_is_refused(key: object) -> None:
    with pytest.raises(InvalidInputError, match="key"):
        check_key(key)


@pytest.mark.parametrize("key", ["a", "val/samples", "params/0.weight", "12", "a b", "é"])
def test_a_key_is_a_name_with_slashes(key: str) -> None:
    assert check_key(key) == key


def test_files_of_one_step_are_numbered_and_packed_ones_have_none() -> None:
    rows = [image(3), image(3), text(3), image(-1), image(3, key="a/b"), image(3)]
    assert [path for path, _ in files(rows)] == [
        "image/a/3.png",
        "image/a/3-2.png",
        "image/a/-1.png",
        "image/a/b/3.png",
        "image/a/3-3.png",
    ]


def test_files_that_are_gone_are_left_out() -> None:
    tracks = Tracks([image(1, 1), image(2, 2), text(3)])
    kept = tracks.only(lambda id: bytes(id)[0] == 2)
    assert [one.step for one in kept.rows()] == [2, 3]
