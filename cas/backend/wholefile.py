"""A small file that is replaced as a whole: settings, and notes that may be lost.

Whoever reads it finds the old content or the new one, never a part of either.
"""

import os
from contextlib import suppress
from pathlib import Path

from cas.backend.base import TEMPORARY
from cas.backend.files import OPS, FileOps, while_writing
from cas.backend.folders import Folders
from cas.backend.sink import FileSink
from cas.errors import OutcomeUnknownError
from cas.ids import Buffer


def replace_file(
    base: Path, name: str, data: Buffer, *, ops: FileOps = OPS, durable: bool = True
) -> None:
    """Give the file `name` below the repository's folder `base` this content.

    Raises BackendError, with the old content in place, and OutcomeUnknownError when nobody can say
    which of both a power failure would leave. Without `durable` nothing is promised of that; then
    the file may be found empty, and whoever reads it must be able to tell.
    """
    folders = Folders(os.fspath(base.absolute()), ops)
    path = os.fspath(base.absolute() / name)
    temporary = os.fspath(base.absolute() / TEMPORARY / os.urandom(8).hex())
    try:
        _write(folders, ops, temporary, data, path, durable=durable)
        try:
            folders.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                ops.unlink(temporary)
            raise
    except OSError as error:
        raise while_writing(error, path) from error
    if durable:
        try:
            ops.fsync_dir(os.path.dirname(path))
        except OSError as error:
            raise OutcomeUnknownError(name, str(while_writing(error, path))) from error


def _write(
    folders: Folders, ops: FileOps, temporary: str, data: Buffer, shown: str, *, durable: bool
) -> None:
    sink = FileSink(ops, folders.open_new(temporary), temporary, shown=shown)
    sink.write([data])
    if durable:
        sink.seal()
    else:
        sink.close()
