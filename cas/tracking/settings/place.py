"""Where a value of a config stands: its file, its line and its name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cas.tracking.settings.lines import NOTHING, Lines, line_of

NO_LINES: Final[Callable[[], Lines]] = lambda: NOTHING  # noqa: E731 - of what stands in no file


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a config; as text it is what an error begins with: `exp.yaml line 3: seed`.

    `keys` lead to it, from the top or from the environment `within`; `lines` tells the lines of the
    file once they are wanted.
    """

    source: str
    keys: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    lines: Callable[[], Lines] = field(default=NO_LINES, compare=False)

    def __str__(self) -> str:
        return self.on(self.keys)

    @property
    def top(self) -> "Place":
        """The place without the last of its keys."""
        return replace(self, keys=self.keys[:-1])

    def at(self, *keys: str | int) -> "Place":
        """Return a place below this one: of a key, or of an item of a list."""
        return replace(self, keys=(*self.keys, *map(str, keys)))

    def on(self, keys: tuple[str, ...]) -> str:
        """Return this place as text, but for its line, which is that of these keys."""
        name = "".join(f"[{key}]" if key.isdigit() else f".{key}" for key in self.keys)
        parts = (self.source + self._line(keys), ".".join(self.within), name.removeprefix("."))
        return ": ".join(part for part in parts if part)

    def _line(self, keys: tuple[str, ...]) -> str:
        lines = self.lines()
        line = (
            line_of(lines, (*self.within, *keys), len(self.within))
            or line_of(lines, keys)
            or line_of(lines, self.within)
        )
        return "" if line is None else f" line {line}"
