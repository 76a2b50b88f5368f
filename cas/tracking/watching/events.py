"""What happened in a run that somebody may want to be told of: a rule that spoke up, an alert.

Events stand in the run's journal and, at its end, in `events.json`; they are never compared.
Format: docs/format/run.md.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from cas.tracking.privacy.secrets import scrub_text, valid_text

ALERT: Final = "alert"  # the kind of an event that the user's program wrote
MAX_TEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `time` in seconds since the epoch, `kind` the rule's name or `alert`."""

    time: float
    kind: str
    title: str
    text: str = ""
    metric: str = ""
    step: int | None = None

    def document(self) -> dict[str, Any]:
        """Return the event as JSON data."""
        return asdict(self)

    def frame(self) -> dict[str, Any]:
        """Return the frame of a journal that tells of it."""
        return {"t": "event", **self.document()}


def event(
    time: float, kind: str, title: str, text: str = "", *, metric: str = "", step: int | None = None
) -> Event:
    """Return an event that may be stored and sent: without secrets, and of bounded size."""
    return Event(time, kind, _told(title), _told(text), metric, step)


def as_event(frame: Mapping[str, Any]) -> Event:
    """Read the event of a frame; raise ValueError and its like for what is none."""
    found = Event(**{name: frame[name] for name in Event.__slots__})
    texts = (found.kind, found.title, found.text, found.metric)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("an event is told in text")
    if type(found.time) is not float or type(found.step) not in {int, type(None)}:
        raise ValueError("an event has a time, and a step that is a whole number")
    return found


def _told(text: str) -> str:
    return scrub_text(valid_text(str(text)))[0][:MAX_TEXT]
