"""Names of files: which may go into a tree and come back out of one, on every platform.

A name that is unusual but harmless where cas runs (a colon, a backslash, a newline, bytes that are
not text) comes back as it was. Refused is only what on some platform would leave the folder that
is written to, or would be the metadata folder of cas or git under another spelling.
Format: docs/format/checkout.md.
"""

import re
from typing import Final

METADATA: Final = frozenset({".cas", ".git"})
LEFT_OUT: Final = frozenset({b".cas", b".git"})  # by ingest, below the folder that is stored
MAX_NESTING: Final = 128  # folders in folders, in and out

# What HFS+ and case-insensitive ext4 pass over when they compare names.
_IGNORED: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_SHORT: Final = re.compile(r"(?:cas|git)~[0-9]+")  # what FAT and NTFS call `.cas` and `.git`
_DRIVE: Final = re.compile(r"[a-z]:")
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_.+=@,-]*")  # none of these is ever refused


def refusal(name: bytes) -> str | None:
    """Return why a name is refused on every platform, None when it is not."""
    if _PLAIN.fullmatch(name):
        return None
    text = name.decode("utf-8", "surrogateescape")
    if not text.isascii():
        text = _IGNORED.sub("", text)
    text = text.casefold()
    if text in {"", ".", ".."} or "/" in text or "\0" in text:
        return "it is no name"
    if text.startswith("\\") or _DRIVE.match(text):
        return "it is an absolute path on some systems"
    for part in text.split("\\"):
        # NTFS takes what follows a colon for a stream of the file, and drops dots and spaces.
        stem = part.partition(":")[0]
        if stem.rstrip(" ") == "..":
            return "it leaves its folder on some systems"
        stem = stem.rstrip(" .")
        if stem in METADATA or _SHORT.fullmatch(stem):
            return "it is a metadata folder of cas or git, on some systems at least"
    return None


def shown(path: bytes) -> str:
    """Return a path for a message, on one line, whatever is in it."""
    text = path.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
