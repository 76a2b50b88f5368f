"""A file of JSON lines, one for each thing that a run logs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final


class JsonLines:
    """A file of JSON lines that is appended to.

    What JSON has no number for stands as the text NaN, Infinity or -Infinity. Of what was logged
    beside numbers texts stand in it, of all else what it is and how large.
    """

    contents: Final = frozenset({"text"})

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        told = dict(line)
        if isinstance(content := told.pop("content", None), bytes):
            told["text"] = content.decode("utf-8", "replace")
        self._file.write(json.dumps(_finite(told), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
