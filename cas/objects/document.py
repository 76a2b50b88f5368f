"""JSON documents of a record (params, environment, summary): one form, readable by people.

UTF-8, keys sorted, one space of indent, a newline at the end, so that equal data has one id.

Format: docs/format/objects.md.
"""

from typing import Any, Final

from cas.errors import CorruptionError, InvalidInputError
from cas.ids import Buffer

MAX_DOCUMENT: Final = 64 << 20  # bytes that are read as one: in memory it is many times that


def document(value: object) -> bytes:
    """Return plain JSON data as the bytes of a document; raise InvalidInputError."""
    import json

    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
        return f"{text}\n".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"value cannot be written as JSON: {error}") from error


def read_document(raw: Buffer) -> Any:
    """Return the value of a document; raise CorruptionError when it is not JSON, or too long."""
    import json

    check_size(len(raw))
    try:
        return json.loads(bytes(raw).decode())
    except (ValueError, RecursionError) as error:
        raise CorruptionError(f"document is not JSON: {error}") from error


def check_size(nbytes: int) -> None:
    """Refuse what is too long for a document, best before it is read; raise CorruptionError."""
    if nbytes > MAX_DOCUMENT:
        raise CorruptionError(f"a document of {nbytes} bytes; {MAX_DOCUMENT} are read at most")
