"""What an error of the operating system means."""

import errno

import pytest

from cas.backend.files import while_reading, while_writing
from cas.errors import BackendError, NotFoundError, ReadOnlyError, StorageFullError


@pytest.mark.parametrize(
    ("number", "error", "transient"),
    [
        (errno.ENOSPC, StorageFullError, False),
        (errno.EDQUOT, StorageFullError, False),
        (errno.EROFS, ReadOnlyError, False),
        (errno.EACCES, ReadOnlyError, False),
        (errno.EPERM, ReadOnlyError, False),
        (errno.EIO, BackendError, False),
        (errno.EMFILE, BackendError, True),
        (errno.ESTALE, BackendError, True),
    ],
)
def test_while_writing(number: int, error: type[BackendError], transient: bool) -> None:
    found = while_writing(OSError(number, "Some Reason"), "/r/packs/a")
    assert type(found) is error
    assert found.transient is transient
    assert str(found).startswith("cannot write /r/packs/a: some Reason: ")


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOENT, NotFoundError),
        (errno.ENOTDIR, NotFoundError),
        (errno.EISDIR, NotFoundError),
        (errno.EACCES, BackendError),
        (errno.EIO, BackendError),
        (errno.ENFILE, BackendError),
    ],
)
def test_while_reading(number: int, error: type[Exception]) -> None:
    found = while_reading(OSError(number, "Some reason"), "packs/a", "/r/packs/a")
    assert type(found) is error
    assert "packs/a" in str(found)


def test_an_error_without_a_number_is_still_told() -> None:
    assert "cannot write x: odd" in str(while_writing(OSError("odd"), "x"))
