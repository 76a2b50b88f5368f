"""The code blocks of a page: what a reader would type, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its language, the words behind it, and the text."""

    language: str
    words: tuple[str, ...]
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page."""
    for found in FENCE.finditer(page):
        language, *words = found["info"].split() or [""]
        yield Block(language, tuple(words), found["text"])


def squeezed(text: str) -> list[str]:
    """Return the lines of a text with every run of white space as one space."""
    return [" ".join(line.split()) for line in text.splitlines()]
