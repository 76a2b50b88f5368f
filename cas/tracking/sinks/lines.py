"""What a frame of a journal says to a sink, as plain data."""

from collections.abc import Callable, Container, Iterator
from struct import iter_unpack
from typing import Any, Final

from cas.tracking.journals.journal import AT
from cas.tracking.shown.logged import Logged, rows_of

BEGIN: Final = "begin"
POINTS: Final = "points"
END: Final = "end"

Content = Callable[[Logged], bytes | None]


def lines(
    frame: object, content: Content = lambda row: row.data, wanted: Container[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield what one frame of a journal says to a sink; of what no sink is told, nothing.

    What was logged of a kind that is wanted comes with its content, where there is one.
    """
    told = frame if isinstance(frame, dict) else {}
    match told.get("t"):
        case "params" | "metadata" as name:
            yield {"type": name, name: told[name]}
        case "points":
            yield from _points(told)
        case "logged":
            for row in rows_of(told):
                yield _logged(row, content(row) if row.kind in wanted else None)
        case "event":
            yield {"type": "event"} | {key: it for key, it in told.items() if key not in {"t", AT}}
        case "finish":
            yield {"type": END, "status": told["status"]}


def _points(frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns = zip(*(frame[key] for key in ("names", "steps", "values", "times")), strict=True)
    for name, steps, values, times in columns:
        one = (iter_unpack("<q", steps), iter_unpack("<d", values), iter_unpack("<d", times))
        for (step,), (value,), (time,) in zip(*one, strict=True):
            yield {"type": "point", "metric": name, "step": step, "value": value, "time": time}


def _logged(row: Logged, content: bytes | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "type": "logged",
        "kind": row.kind,
        "key": row.key,
        "step": row.step,
        "time": row.time,
        "format": row.format,
        "bytes": row.size,
        "options": dict(row.options),
    }
    return told if content is None else told | {"content": content}
