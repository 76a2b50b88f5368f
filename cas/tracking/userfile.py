"""A file of the user's that is written as a whole, or stays as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from cas.errors import InvalidInputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file that is at `path` once the block has ended without an error.

    Its folder is made. Raises InvalidInputError, naming the path, where it cannot be written.
    """
    if path.is_dir() or not path.name:
        raise InvalidInputError(f"cannot write {path}: it is a folder; name a file in it")
    part = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror or error}") from error
