"""A run's journal: what survives when the run does not.

An append-only file of checked frames, one canonical value each; the first is the header, which says
where the run lives. Its writer is in `journalwriter`, and whether that one lives is told by
`liveness`. A torn end is expected and is not an error.

Format: docs/format/journal.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from struct import Struct
from typing import Any, ClassVar, Final, Self

from cas.backend.files import while_reading
from cas.errors import CorruptionError, InvalidInputError, NotFoundError, UnsupportedError
from cas.ids import digest
from cas.objects import canonical

VERSION: Final = 1
MAX_FRAME: Final = 64 * 1024 * 1024
CHECK_SIZE: Final = 8
LENGTH: Final = Struct("<I")
PREFIX: Final = LENGTH.size + CHECK_SIZE
ALIVE: Final = "alive"  # the type of a frame that only says that the run lives
AT: Final = "at"  # where a frame begins, as it says itself


@dataclass(frozen=True, slots=True)
class Header:
    """Which run a journal belongs to, and where that run lives; `started` in microseconds."""

    run: str
    ref: str
    uid: bytes
    host: str
    boot: str
    pidns: str
    pid: int
    started: int

    UID_SIZE: ClassVar[int] = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            if type(getattr(self, field.name)) is not field.type:
                raise InvalidInputError(f"journal header: {field.name} is not {field.type}")
        if len(self.uid) != self.UID_SIZE:
            raise InvalidInputError(f"a run's uid is {self.UID_SIZE} bytes, not {len(self.uid)}")

    def to_value(self) -> dict[str, Any]:
        """Return the header as the map that stands in the first frame."""
        return {"v": VERSION} | {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Read the first frame of a journal."""
        if not isinstance(value, dict) or type(value.get("v")) is not int:
            raise CorruptionError("not a journal: it starts without a header")
        if value["v"] > VERSION:
            raise UnsupportedError(f"journal version {value['v']}; this cas reads up to {VERSION}")
        try:
            return cls(**{name: item for name, item in value.items() if name != "v"})
        except (TypeError, InvalidInputError) as error:
            raise CorruptionError(f"journal header is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as read: `positions[i]` is where the file stood after `frames[i]`."""

    header: Header
    frames: tuple[Any, ...]
    positions: tuple[int, ...]
    torn: bool

    def after(self, position: int) -> tuple[Any, ...]:
        """Return the frames that a commit at `position` does not include."""
        pairs = zip(self.frames, self.positions, strict=True)
        return tuple(frame for frame, end in pairs if end > position)


def read_journal(path: Path) -> Journal:
    """Read a journal up to its end, or to the first frame that is torn or not where it belongs."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError("journal", str(path)) from error
    except OSError as error:
        raise while_reading(error, str(path), f"the journal {path}") from error
    frames: list[Any] = []
    positions: list[int] = []
    for value, end in scan_values(raw):
        frames.append(value)
        positions.append(end)
    if not frames:
        raise CorruptionError(f"{path} is no journal: its header cannot be read")
    torn = positions[-1] != len(raw)
    return Journal(frames[0], tuple(frames[1:]), tuple(positions[1:]), torn)


def to_frame(payload: object) -> bytes:
    """Return one frame as it stands in the file."""
    body = canonical.encode(payload)
    if len(body) > MAX_FRAME:
        raise InvalidInputError(f"a journal frame is at most {MAX_FRAME} bytes, not {len(body)}")
    return _framed(body)


def placed(payloads: Iterable[object], position: int) -> bytes:
    """Return frames as they stand in the file from a position on; each says where it begins."""
    raw = bytearray()
    for payload in payloads:
        if isinstance(payload, dict):
            body = canonical.encode({**payload, AT: position + len(raw)})
            if len(body) <= MAX_FRAME:
                raw += _framed(body)
                continue
        raw += to_frame(payload)
    return bytes(raw)


def _framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + digest(body, size=CHECK_SIZE) + body


def scan_values(raw: bytes) -> Iterator[tuple[Any, int]]:
    """Yield what each frame says and where it ends, the header as a `Header`.

    Stops at the first frame that is not whole, or says that it begins elsewhere: one before it is
    gone, or it stands there twice. Raises the errors of `Header.from_value`, and CorruptionError.
    """
    start = 0
    for payload, end in scan_frames(raw):
        value: Any = canonical.decode(payload)
        if not start:
            # Before anything else is decoded: a newer version may differ there.
            value = Header.from_value(value)
        elif isinstance(value, dict) and value.pop(AT, start) != start:
            return
        yield value, end
        start = end


def scan_frames(raw: bytes) -> Iterator[tuple[memoryview, int]]:
    """Yield each whole frame's payload and where it ends; stop at the first that is not whole."""
    view = memoryview(raw)
    start = 0
    while len(raw) - start >= PREFIX:
        (length,) = LENGTH.unpack_from(raw, start)
        end = start + PREFIX + length
        if length > MAX_FRAME or end > len(raw):
            return
        payload = view[start + PREFIX : end]
        if digest(payload, size=CHECK_SIZE) != view[start + LENGTH.size : start + PREFIX]:
            return
        yield payload, end
        start = end
