"""Sinks: where what a run logs goes as well, while it goes on.

A sink takes plain data, one map for each thing, in the order in which it was logged, with a `type`:
`begin`, `params`, `point`, `event`, `end`. It is fed behind the loop from the run's own journal, so
that it costs the loop nothing; one that fails is told of once and gets no more. The run has all of
it anyway: a sink is a copy for others.
"""

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from struct import iter_unpack
from typing import IO, Any, Final, Protocol, runtime_checkable

from cas.errors import InvalidInputError
from cas.objects import canonical
from cas.tracking.journals.journal import AT, MAX_FRAME, scan_frames
from cas.tracking.live import Live

EVERY_SECONDS: Final = 1.0
PART: Final = 2 * MAX_FRAME  # of a journal is read at a time: a whole frame at least
END: Final = "end"
KINDS: Final = ("jsonl",)


@runtime_checkable
class Sink(Protocol):
    """Takes what a run logs; called by one thread, never by that of the training loop."""

    def take(self, line: Mapping[str, Any]) -> None:
        """Take one thing that was logged, as plain data with a `type`."""

    def close(self) -> None:
        """End; called once, when the run has ended or the sink has failed."""


class JsonLines:
    """A file of JSON lines, one for each thing that is logged; it is appended to.

    What JSON has no number for stands as the text NaN, Infinity or -Infinity.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._file.write(json.dumps(_finite(line), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Follower:
    """Reads the journal of an open run as it grows, and feeds a sink with it."""

    def __init__(self, live: Live, sink: Sink) -> None:
        self._live = live
        self._sink = sink
        self._journal = live.journal
        self._at = 0
        self._inode: int | None = None
        self._end: list[Mapping[str, Any]] = []  # it may be noted before the last points are
        self._failed = False
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cas-sink", daemon=True)

    def start(self) -> None:
        """Begin to feed the sink."""
        state = self._live.state
        self._offer([{"type": "begin", "run": state.run, "uid": state.uid.hex()}])
        self._thread.start()

    def halt(self) -> None:
        """Feed it with what is left, and close it."""
        self._halted.set()
        self._thread.join()
        with suppress(Exception):  # the run itself tells of a journal that cannot be written
            self._live.flush()
        self._read()
        self._offer(self._end)
        with suppress(Exception):
            self._sink.close()

    def _work(self) -> None:
        while not self._halted.wait(EVERY_SECONDS):
            self._read()

    def _read(self) -> None:
        try:
            with open(self._journal, "rb") as file:
                self._follow(file)
        except OSError:
            pass  # it is not there any more, or not yet

    def _follow(self, file: IO[bytes]) -> None:
        inode = os.fstat(file.fileno()).st_ino
        if self._inode not in {None, inode}:
            self._at = file.seek(0, os.SEEK_END)  # written anew: what it says was said before
        self._inode = inode
        while not self._failed:
            file.seek(self._at)
            raw = file.read(PART)
            frames, end = [], 0
            for payload, end in scan_frames(raw):  # noqa: B007
                frames.append(canonical.decode(payload))
            if not frames:
                return
            self._at += end
            self._offer(line for frame in frames for line in lines(frame))

    def _offer(self, told: Iterable[Mapping[str, Any]]) -> None:
        if self._failed:
            return
        try:
            for line in told:
                if line["type"] == END and told is not self._end:
                    self._end = [line]
                else:
                    self._sink.take(line)
        except Exception as error:
            self._failed = True
            self._live.tell(f"warning: a sink has failed and gets no more: {error}")


def lines(frame: object) -> Iterator[dict[str, Any]]:
    """Yield what one frame of a journal says to a sink; of what no sink is told, nothing."""
    if not isinstance(frame, dict):
        return
    match frame.get("t"):
        case "params":
            yield {"type": "params", "params": frame["params"]}
        case "points":
            columns = (frame[key] for key in ("names", "steps", "values", "times"))
            for name, *points in zip(*columns, strict=True):
                yield from _points(name, *points)
        case "event":
            yield {
                "type": "event",
                **{key: it for key, it in frame.items() if key not in {"t", AT}},
            }
        case "finish":
            yield {"type": END, "status": frame["status"]}


def _points(name: str, steps: bytes, values: bytes, times: bytes) -> Iterator[dict[str, Any]]:
    columns = (iter_unpack("<q", steps), iter_unpack("<d", values), iter_unpack("<d", times))
    for (step,), (value,), (time,) in zip(*columns, strict=True):
        yield {"type": "point", "metric": name, "step": step, "value": value, "time": time}


def as_sinks(told: object) -> list[Sink]:
    """Return the sinks that a user names: objects, kinds, or maps as a config has them.

    `{"kind": "jsonl", "path": FILE}` appends to FILE, which without a path is `cas.jsonl` in
    the current folder: a line `begin` tells one run from another. Raises InvalidInputError.
    """
    if told is None:
        return []
    given = told if isinstance(told, Sequence) and not isinstance(told, str) else [told]
    return [one if isinstance(one, Sink) else _of_words(one) for one in given]


def _of_words(told: object) -> Sink:
    words = {"kind": told} if isinstance(told, str) else told
    if not isinstance(words, Mapping) or words.get("kind") not in KINDS:
        raise InvalidInputError(
            f"a sink has take() and close(), or is a map whose kind is {' or '.join(KINDS)}, "
            f"not {told!r}"
        )
    return JsonLines(Path(words.get("path") or "cas.jsonl").absolute())


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
