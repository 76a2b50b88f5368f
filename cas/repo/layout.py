"""Every key and file that a repository uses, in one place.

Format: docs/format/layout.md.
"""

from typing import Final

FORMAT: Final = "format"
CONFIG: Final = "config.json"
RESERVE: Final = "reserve"
ROOTS: Final = "roots/"
SNAPSHOTS: Final = "snapshots/"
PACKS: Final = "packs/"
INDEX: Final = "index/"
TMP: Final = "tmp/"
LOST: Final = "lost-and-found/"  # bytes that a repair could make nothing of
JOURNALS: Final = "journals"  # a folder of plain files under OS locks, not a key prefix
SESSIONS: Final = "sessions"  # likewise
CACHE: Final = "cache"  # likewise, but nothing in it is needed

RUNS: Final = "runs/"
OPEN: Final = "open/"
TAGS: Final = "tags/"
HEADS: Final = "heads/"
DATASETS: Final = "datasets/"
MODELS: Final = "models/"
REPRODUCTIONS: Final = "reproductions/"
HOLDS: Final = "holds/"
ARCHIVED: Final = "archived/"
ANNOTATIONS: Final = "annotations/"
MAIN: Final = "heads/main"


def root_key(seq: int) -> str:
    """Return the key of the root with this number."""
    return f"{ROOTS}{seq:016d}"


def root_number(key: str) -> int | None:
    """Return the number of the root with this key; None for any other key."""
    text = key.removeprefix(ROOTS)
    return int(text) if text.isascii() and text.isdigit() and root_key(int(text)) == key else None


def snapshot_key(name: bytes) -> str:
    """Return the key of a snapshot of refs or of the pack list."""
    return f"{SNAPSHOTS}{name.hex()}"
