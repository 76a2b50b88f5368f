"""How long operations report what they do; the edges decide how it looks."""

from typing import Protocol


class Progress(Protocol):
    """A report of one long operation at a time."""

    def start(self, what: str, total: int | None = None) -> None:
        """Begin an operation of `total` units, unknown when None."""

    def advance(self, units: int = 1) -> None:
        """Say that this many more units are done."""

    def finish(self) -> None:
        """End the operation."""


class Silent:
    """Progress that nobody looks at."""

    def start(self, what: str, total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, units: int = 1) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""


SILENT = Silent()
