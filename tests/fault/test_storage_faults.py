"""The n-th file operation of a command fails, once or from then on, in every way that it may."""

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cas.backend.files import FileOps
from cas.backend.sink import FileSink
from cas.backend.wholefile import replace_file
from cas.errors import CasError
from cas.ids import Buffer
from cas.repo.collect import reserve
from cas.repo.layout import RESERVE
from tests.support.faultworld import (
    COMMANDS,
    READING,
    Command,
    Place,
    check,
    faults,
    origin,
    shape,
    sound,
)
from tests.support.faulty import SHORT, Fault, FaultyOps
from tests.support.torture import amount, tell

T = TypeVar("T")
pytestmark = pytest.mark.torture


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return origin(tmp_path_factory.mktemp("origin"))


@pytest.fixture
def place(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in ("CAS_DIR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(FileOps, "fsync", lambda *_: None)  # nothing here is about power cuts
    return Place(project, tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_operation_may_fail(name: str, place: Place) -> None:
    command = COMMANDS[name]
    sites = place.sites(command)
    wanted = shape(place.project)
    every = list(faults(sites))
    some = random.Random(name).sample(every, min(len(every), amount(9, 10**9)))
    told = Counter(check(place, command, fault, wanted) for fault in some)
    tell(f"faults, {name}: {len(some)} of {len(every)} at {len(sites)} operations: {dict(told)}")


TRIES = 5  # a fresh copy of a repository is looked at with a few operations more or fewer


class SyncFails(FaultyOps):
    """File operations whose n-th sync fails, and that know what is done to that file later."""

    def __init__(self, at: int, operation: str) -> None:
        super().__init__(Fault(at, errno.EIO, operation))
        self.failed: int | None = None
        self.reserve = False
        self.before: list[tuple[str, str]] = []
        self.later: list[str] = []

    def watch(self, operation: str, path: str, run: Callable[[], T]) -> T:
        try:
            return super().watch(operation, path, run)
        finally:
            if not self.happened:
                self.before.append((operation, path))

    def fsync(self, fd: int) -> None:
        self._touch("fsync", fd)
        try:
            super().fsync(fd)
        except OSError:
            self.failed = fd
            # It is as good as done without, and nothing else is as large as that at once.
            self.reserve = os.fstat(fd).st_size == reserve.SIZE
            raise

    def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
        self._touch("write", fd)
        return super().write(fd, buffers)

    def close(self, fd: int) -> None:
        super().close(fd)
        if fd == self.failed:
            self.failed = None

    def link(self, source: str, target: str) -> None:
        if self.happened and source == self.happened[0][1]:
            self.later.append("link")
        super().link(source, target)

    def _touch(self, operation: str, fd: int) -> None:
        if fd == self.failed:
            self.later.append(operation)


def sync_fails(place: Place, command: Command, at: int, operation: str) -> None:
    """Let one sync fail; insist that it is reported, and that its file is given up."""
    ops = SyncFails(at, operation)
    error = place.attempt(command, ops)
    ((_, path),) = ops.happened
    assert not ops.later, f"{ops.later} after a sync of {path} failed"
    assert error is not None or disposable(ops, path), f"nobody was told of {path}"
    assert isinstance(error, CasError | None), error
    if (place.project / ".cas" / "format").exists():
        sound(place.project / ".cas", f"sync {at} of {path}")


def disposable(ops: SyncFails, path: str) -> bool:
    """Say whether a sync was for what all stands without: index, hint, cache, the reserve."""
    made = [place for name, place in ops.before if name in {"mkdir", "link"}]
    last = Path(made[-1] if made and path.endswith(".cas") else path)
    return ops.reserve or "/index/" in path or last.name in {"index", "hints", "cache", RESERVE}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in READING])
def test_a_sync_fails_once_at_every_site(name: str, place: Place) -> None:
    command = COMMANDS[name]
    sites = place.sites(command)
    done = 0
    for operation in ("fsync", "fsync_dir"):
        for at in range(1, sites.count(operation) + 1):
            sync_fails(place, command, at, operation)
            done += 1
    assert done > 0
    tell(f"syncs that fail, {name}: {done}")


class TestPlanted:
    """Each is a bug that a careless change would make; the check must not miss one."""

    def caught(self, place: Place, name: str, kind: int | str, operation: str) -> str:
        command = COMMANDS[name]
        for _ in range(TRIES):
            sites = place.sites(command)
            wanted = shape(place.project)
            try:
                check(place, command, Fault(1 + sites.index(operation), kind), wanted)
            except AssertionError as found:
                return str(found)
        raise RuntimeError("the bug was not found")

    def test_an_error_without_a_type(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cas.repo.session.while_writing", lambda error, _: error)
        assert "untyped" in self.caught(place, "tag", errno.EIO, "lock")

    def test_a_file_that_stays_open(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cas.repo.session.Session.close", lambda _: None)
        assert "left open" in self.caught(place, "tag", errno.EIO, "link")

    def test_a_failure_that_nobody_hears_of(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def quietly(*arguments: Any, **options: Any) -> None:
            with suppress(CasError):
                replace_file(*arguments, **options)

        monkeypatch.setattr("cas.repo.config.replace_file", quietly)
        assert "without effect" in self.caught(place, "config", errno.ENOSPC, "write")

    def test_a_short_write_that_is_taken_for_a_whole_one(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = COMMANDS["commit"]
        sites = place.sites(command)
        wanted = shape(place.project)
        monkeypatch.setattr("cas.backend.sink.write_fully", lambda ops, fd, b: ops.write(fd, b))
        found = 0
        for at, name in list(enumerate(sites, 1)) * TRIES:
            if name == "write":
                try:
                    check(place, command, Fault(at, SHORT), wanted)
                except (AssertionError, CasError):
                    found += 1
                    break
        # A short pack is seen before the root, and written again; a short root is not.
        assert found >= 1

    def test_a_short_read_that_is_taken_for_the_end(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "cas.backend.local.read_fully", lambda ops, fd, length, at: ops.pread(fd, length, at)
        )
        assert "CorruptionError" in self.caught(place, "tag", SHORT, "pread")

    def test_a_sync_that_is_tried_again(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def again(ops: SyncFails, fd: int) -> None:
            try:
                sync(ops, fd)
            except OSError:
                sync(ops, fd)

        sync = SyncFails.fsync
        monkeypatch.setattr(SyncFails, "fsync", again)
        with pytest.raises(AssertionError, match=r"fsync.* after a sync of"):
            sync_fails(place, COMMANDS["commit"], 1, "fsync")

    def test_a_sync_that_nobody_hears_of(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FileSink, "seal", FileSink.close)
        with pytest.raises((AssertionError, ValueError)):
            sync_fails(place, COMMANDS["commit"], 1, "fsync")
