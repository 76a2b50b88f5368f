"""Names of files that mean something else somewhere, and names that are only odd."""

from itertools import product
from typing import Final

HIDDEN: Final = (".git", ".cas")
# What one file system or another passes over when it compares names.
PASSED_OVER: Final = (
    "\u00ad\u034f\u061c\u115f\u180b\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2063\u206a\u206f"
    "\u3164\ufe00\ufe0f\ufeff\uffa0\ufff0\U000e0001\U000e0100"
)


def _cases(word: str) -> list[str]:
    pairs = [(letter.lower(), letter.upper()) for letter in word]
    return sorted({"".join(letters) for letters in product(*pairs)})


def refused() -> list[str]:
    """Return names that would leave the folder, or be a metadata folder, on some system."""
    names = ["", ".", "..", "/", "a/b", "/abs", "../x", "a/../../x", "./x", "x/", "//x"]
    names += [f"{front}\0{back}" for front, back in (("", ""), ("x", ""), ("", "y"), ("..", "x"))]
    for word in HIDDEN:
        names += _cases(word)
        names += [f"{word}{end}" for end in (" ", ".", "..", "  ", " .", ". .", "...   ")]
        names += [f"{word}{end}" for end in (":", "::$DATA", "::$INDEX_ALLOCATION", ":a:$DATA")]
        names += [f"{word} :x", f"{word}.:x", f"{word.upper()}::$Index_Allocation"]
        names += [
            f"{word}\\config",
            f"\\{word}",
            f"a\\{word}",
            f"a\\{word.upper()}\\b",
            f"a\\{word} ",
        ]
        for sign in PASSED_OVER:
            names += [f"{sign}{word}", f"{word[:2]}{sign}{word[2:]}", f"{word}{sign}"]
        bare = word[1:]
        names += [f"{bare}~{n}" for n in (1, 2, 9, 10, 123)] + [f"{bare.upper()}~1", f"a\\{bare}~1"]
        names += [f"{bare}~1 ", f"{bare}~1.", f"{bare}~1:x"]
    names += [".ca\u017f", ".CA\u017f", ".\u200bca\u017f"]
    names += [f"{letter}:" for letter in "aczACZ"]
    names += ["C:x", "C:\\x", "c:/x", "C:..", "z:.git", "\u200bC:x"]
    names += [
        "..\\x",
        "x\\..",
        "a\\..\\..\\b",
        "..\\..\\..\\etc",
        "\\",
        "\\abs",
        "\\\\",
        "\\\\h\\s",
    ]
    names += [
        "\\\\?\\C:\\x",
        "\\\\.\\pipe\\x",
        "..:x",
        "..::$DATA",
        ".. ",
        "..   ",
        "..\u200b",
        "\u200b..",
    ]
    names += ["a\\.. ", ".. \\x", "..:a\\b", "a:b", "x:.git"]
    return sorted(set(names))


def harmless() -> list[str]:
    """Return names that mean nothing where cas runs, and come back as they were."""
    devices = ["CON", "PRN", "AUX", "NUL", "COM1", "COM9", "LPT1", "CONIN$", "CLOCK$"]
    names = [*devices, *(f"{name.lower()}.txt" for name in devices), "nul.", "con .txt", "aux:"]
    names += ["x.", "x ", "x. .", " x", "...", "....", ". .x", ".x", "~", "~root", "-rf", "--help"]
    names += ["$HOME", "`id`", "$(id)", "*", "?", "a|b", "a;b", "a&b", "<x>", '"', "'", "%s", "%00"]
    names += ["\n", "a\nb", "\r", "\t", "\x1b[2J", "\x07", "\x7f", "\x01", "a\u2028b", "\u0085"]
    names += ["\u202egnp.exe", "\u200fx", "\u2066x\u2069", "e\u0301", "\u00e9", "\u212b", "\u00c5"]
    names += [
        "\ufb01",
        "fi",
        "ﬀ",
        "I\u0307",
        "\u0131",
        "K",
        "\u212a",
        "\U0001f4a5",
        "\ufffd",
        "\u0378",
    ]
    names += [
        ".case",
        ".gitignore",
        ".github",
        "git",
        "cas",
        "git~",
        "git~x",
        "gi~1",
        "ab:c",
    ]
    names += ["x\\y", "x\\.gitx", "a\\b\\c", "xy:.git", "file:", "http:", "x" * 255, "é" * 127]
    names += [
        ".git-x",
        "x.git",
        ".gitt",
        ".cass",
        "_git",
        "\uff0egit",
        "\u2024git",
        "\u2025",
        "\uff0e\uff0e",
    ]
    return sorted(set(names))


def raw() -> list[bytes]:
    """Return harmless names that are no text at all."""
    return [b"\xff", b"a\x80b", b"\xc0\xae\xc0\xae", b"\xed\xa0\x80", b"\xff" * 255, b".git\xff"]
