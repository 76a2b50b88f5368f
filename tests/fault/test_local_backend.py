"""Whatever fails below a local backend: the error has a name, and no half of a value stays."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.backend.base import WHOLE, Sink, Span
from cas.backend.files import FileOps
from cas.backend.local import LocalBackend
from cas.errors import (
    BackendError,
    ConflictError,
    CorruptionError,
    NotFoundError,
    OutcomeUnknownError,
    ReadOnlyError,
    StorageFullError,
    UnsupportedError,
)
from tests.support.faulty import CHANGES, Crash, Fault, FaultyOps, RecordingOps

VALUE = b"value" * 100
MEANING = {errno.EIO: BackendError, errno.ENOSPC: StorageFullError, errno.EROFS: ReadOnlyError}


def put(backend: LocalBackend) -> None:
    backend.put_new("roots/1", VALUE)


def write(backend: LocalBackend) -> None:
    sink = backend.create("roots/1")
    sink.write([VALUE[:100]])
    sink.write([VALUE[100:], b""])
    sink.seal()
    backend.sync("roots/")


def operations(action: Callable[[LocalBackend], None], root: Path, *, warm: bool) -> int:
    """How many operations the action takes without a fault."""
    ops = RecordingOps()
    backend = prepared(root, warm=warm)
    action(LocalBackend(backend.root, ops=ops))
    return ops.count()


def prepared(root: Path, *, warm: bool) -> LocalBackend:
    root.mkdir()
    backend = LocalBackend(root)
    if warm:
        backend.put_new("roots/0", b"older")
    return backend


def value(root: Path) -> bytes | None:
    try:
        return LocalBackend(root).read("roots/1", [WHOLE])[0]
    except NotFoundError:
        return None


def temporary(root: Path) -> list[Path]:
    return list((root / "tmp").glob("*"))


every_action = pytest.mark.parametrize("action", [put, write])
cold_and_warm = pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])


@every_action
@cold_and_warm
@pytest.mark.parametrize("number", MEANING, ids=errno.errorcode.get)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_at_any_step_leaves_all_or_nothing(
    action: Callable[[LocalBackend], None], warm: bool, number: int, after: bool, tmp_path: Path
) -> None:
    steps = operations(action, tmp_path / "whole", warm=warm)
    assert steps > 5
    for step in range(1, steps + 1):
        root = tmp_path / str(step)
        prepared(root, warm=warm)
        ops = FaultyOps(Fault(step, number, after=after))
        outcome = attempt(action, LocalBackend(root, ops=ops))

        ((operation, path),) = ops.happened
        if after and operation == "open_new":
            continue  # an empty file that nobody has open: an orphan, whatever it is named
        if outcome is None:
            assert value(root) == VALUE
            assert operation in {"fstat", "stat", "unlink", "link", "chmod", "chown"}, operation
        elif isinstance(outcome, OutcomeUnknownError):
            assert (operation, path) == ("fsync_dir", str(root / "roots"))
            assert value(root) == VALUE
        elif operation == "fsync_dir" and action is write and value(root) == VALUE:
            assert path == str(root / "roots")  # sealed; only its name may not last
        else:
            assert isinstance(outcome, MEANING[number])
            assert value(root) is None
        if operation not in {"unlink", "open_new"}:
            assert not temporary(root)
        # What is left in the way of nobody: the next attempt goes through, or finds it done.
        assert isinstance(attempt(action, LocalBackend(root)), ConflictError | None), operation
        assert value(root) == VALUE


def attempt(
    action: Callable[[LocalBackend], None], backend: LocalBackend
) -> BackendError | ConflictError | None:
    try:
        action(backend)
    except (BackendError, ConflictError) as error:
        return error
    return None


@every_action
@cold_and_warm
def test_a_crash_at_any_step_shows_no_half_of_a_put(
    action: Callable[[LocalBackend], None], warm: bool, tmp_path: Path
) -> None:
    steps = operations(action, tmp_path / "whole", warm=warm)
    for step in range(1, steps + 1):
        root = tmp_path / str(step)
        prepared(root, warm=warm)
        ops = FaultyOps(Fault(step, Crash), max_write=100)
        with pytest.raises(Crash):
            action(LocalBackend(root, ops=ops))
        if action is put:
            assert value(root) in {None, VALUE}
            survivor = LocalBackend(root)
            assert isinstance(attempt(put, survivor), ConflictError | None)
            assert value(root) == VALUE
            assert {info.key for info in survivor.scan("")} <= {"roots/0", "roots/1"}


def test_short_writes_are_written_on(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path, ops=FaultyOps(max_write=7))
    put(backend)
    assert value(tmp_path) == VALUE
    sink = backend.create("packs/a")
    sink.write([b"12345", b"", b"6789012345678", VALUE])
    sink.seal()
    assert backend.read("packs/a", [WHOLE]) == [b"123456789012345678" + VALUE]


class Stuck(FileOps):
    def write(self, fd: int, buffers: object) -> int:
        return 0


def test_a_disk_that_takes_no_bytes_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="nothing was written"):
        put(LocalBackend(tmp_path, ops=Stuck()))
    assert not temporary(tmp_path)


def test_a_failed_sync_poisons_the_sink(tmp_path: Path) -> None:
    ops = FaultyOps(Fault(1, errno.EIO, "fsync"))
    backend = LocalBackend(tmp_path, ops=ops)
    sink = backend.create("packs/a")
    sink.write([VALUE])
    with pytest.raises(BackendError, match="packs/a: input/output error"):
        sink.seal()
    for again in (sink.seal, lambda: sink.write([b"more"])):
        with pytest.raises(ValueError, match="sealed or discarded"):
            again()
    assert ops.count("fsync") == 1
    assert backend.size("packs/a") is None


def test_a_failed_sync_of_a_new_folder_does_not_make_the_next_one_trust_it(tmp_path: Path) -> None:
    ops = FaultyOps(Fault(1, errno.EIO, "fsync_dir"))
    backend = LocalBackend(tmp_path, ops=ops)
    with pytest.raises(BackendError):
        backend.create("packs/a")
    backend.create("packs/a").seal()
    assert ops.calls.count(("fsync_dir", str(tmp_path))) == 2


def test_a_folder_that_somebody_else_is_just_making_is_synced_by_both(tmp_path: Path) -> None:
    class Raced(RecordingOps):
        def mkdir(self, path: str, mode: int) -> None:
            FileOps.mkdir(self, path, mode)
            raise FileExistsError(errno.EEXIST, "File exists", path)

    ops = Raced()
    LocalBackend(tmp_path, ops=ops).create("packs/a").seal()
    assert ("fsync_dir", str(tmp_path)) in ops.calls


class TestSyncs:
    """One barrier is a promise; a second one costs every commit its time again."""

    def test_a_put_takes_two(self, tmp_path: Path) -> None:
        prepared(tmp_path / "repo", warm=True)
        ops = RecordingOps()
        put(LocalBackend(tmp_path / "repo", ops=ops))
        changes = [name for name, _ in ops.calls if name in CHANGES]
        assert changes == ["open_new", "write", "fsync", "link", "unlink", "fsync_dir"]

    def test_a_sealed_value_takes_one_and_its_folder_one(self, tmp_path: Path) -> None:
        prepared(tmp_path / "repo", warm=True)
        ops = RecordingOps()
        write(LocalBackend(tmp_path / "repo", ops=ops))
        changes = [name for name, _ in ops.calls if name in CHANGES]
        assert changes == ["open_new", "write", "write", "fsync", "fsync_dir"]

    def test_new_folders_are_synced_into_their_parents(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        LocalBackend(tmp_path, ops=ops).create("a/b/c").seal()
        synced = [path for name, path in ops.calls if name == "fsync_dir"]
        assert synced == [str(tmp_path), str(tmp_path / "a")]

    def test_reading_and_hints_take_none(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        backend = LocalBackend(prepared(tmp_path / "repo", warm=True).root, ops=ops)
        backend.write_hint("newest", "1")
        backend.write_hint("newest", "2")
        ops.calls.clear()
        backend.write_hint("newest", "3")
        backend.read_hint("newest")
        backend.read("roots/0", [WHOLE])
        assert ops.count("fsync", "fsync_dir") == 0


class TestLink:
    def test_a_link_that_worked_and_was_refused_on_the_second_asking_counts(
        self, tmp_path: Path
    ) -> None:
        ops = FaultyOps(Fault(1, errno.EEXIST, "link", after=True))
        prepared(tmp_path / "repo", warm=True)
        put(LocalBackend(tmp_path / "repo", ops=ops))
        assert value(tmp_path / "repo") == VALUE

    def test_a_link_of_which_nobody_can_tell_is_an_unknown_outcome(self, tmp_path: Path) -> None:
        faults = [Fault(1, errno.EIO, "link", after=True), Fault(2, errno.EIO, "stat")]
        prepared(tmp_path / "repo", warm=True)
        with pytest.raises(OutcomeUnknownError) as caught:
            put(LocalBackend(tmp_path / "repo", ops=FaultyOps(*faults)))
        assert caught.value.operation == "roots/1"

    @pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV])
    def test_a_file_system_without_links_is_refused_by_name(
        self, number: int, tmp_path: Path
    ) -> None:
        prepared(tmp_path / "repo", warm=True)
        ops = FaultyOps(Fault(1, number, "link"))
        with pytest.raises(UnsupportedError, match=f"{tmp_path}/repo cannot make hard links"):
            put(LocalBackend(tmp_path / "repo", ops=ops))
        assert not temporary(tmp_path / "repo")


class TestReading:
    def failing(self, root: Path, *faults: Fault) -> LocalBackend:
        LocalBackend(root).put_new("roots/1", VALUE)
        return LocalBackend(root, ops=FaultyOps(*faults))

    @pytest.mark.parametrize("operation", ["open_read", "fstat", "pread"])
    def test_a_read_that_fails_has_a_name_and_the_next_one_works(
        self, operation: str, tmp_path: Path
    ) -> None:
        backend = self.failing(tmp_path, Fault(1, errno.EIO, operation))
        with pytest.raises(BackendError, match=r"cannot read .*roots/1: input/output error"):
            backend.read("roots/1", [WHOLE])
        assert backend.read("roots/1", [WHOLE]) == [VALUE]
        ops = backend._ops
        assert isinstance(ops, FaultyOps)
        backend.close()
        assert not ops.opened, "a file stays open"

    @pytest.mark.parametrize("operation", ["open_read", "fstat"])
    def test_a_size_that_cannot_be_told_is_no_missing_key(
        self, operation: str, tmp_path: Path
    ) -> None:
        """A pack that is taken for gone would be taken off the list, or written once more."""
        backend = self.failing(tmp_path, Fault(1, errno.EIO, operation))
        with pytest.raises(BackendError, match=r"cannot read .*roots/1: input/output error"):
            backend.size("roots/1")
        assert backend.size("roots/1") == len(VALUE)

    @pytest.mark.parametrize("operation", ["open_read", "fstat", "pread"])
    def test_a_forgotten_handle_is_opened_anew(self, operation: str, tmp_path: Path) -> None:
        backend = self.failing(tmp_path, Fault(1, errno.ESTALE, operation))
        assert backend.read("roots/1", [WHOLE]) == [VALUE]

    def test_no_permission_is_no_missing_key(self, tmp_path: Path) -> None:
        backend = self.failing(tmp_path, Fault(1, errno.EACCES, "open_read"))
        with pytest.raises(BackendError, match="ask its owner for read permission"):
            backend.read("roots/1", [WHOLE])

    def test_too_many_open_files_closes_what_is_idle(self, tmp_path: Path) -> None:
        ops = FaultyOps(Fault(2, errno.EMFILE, "open_read"))
        backend = LocalBackend(tmp_path, ops=ops)
        backend.put_new("roots/1", VALUE)
        backend.put_new("roots/2", b"2")
        assert backend.read("roots/1", [WHOLE]) == [VALUE]
        ops.calls.clear()
        assert backend.read("roots/2", [WHOLE]) == [b"2"]
        assert [name for name, _ in ops.calls[:3]] == ["open_read", "close", "open_read"]

    def test_too_many_open_files_elsewhere_may_pass(self, tmp_path: Path) -> None:
        faults = [Fault(number, errno.EMFILE, "open_read") for number in (1, 2)]
        with pytest.raises(BackendError, match="ulimit -n") as caught:
            self.failing(tmp_path, *faults).read("roots/1", [WHOLE])
        assert caught.value.transient

    def test_short_reads_are_read_on(self, tmp_path: Path) -> None:
        LocalBackend(tmp_path).put_new("roots/1", VALUE)

        class Short(FileOps):
            def pread(self, fd: int, length: int, offset: int) -> bytes:
                return FileOps.pread(self, fd, min(length, 7), offset)

        backend = LocalBackend(tmp_path, ops=Short())
        spans = [WHOLE, Span(3, 50), Span(0, 7), Span(0, 14)]
        assert backend.read("roots/1", spans) == [VALUE, VALUE[3:53], VALUE[:7], VALUE[:14]]

    @pytest.mark.parametrize("some", [512, 4096, 5000])
    def test_short_reads_past_the_page_cache_are_read_on(self, some: int, tmp_path: Path) -> None:
        data = bytes(range(256)) * 100
        LocalBackend(tmp_path).put_new("roots/1", data)

        class Short(FileOps):
            def open_direct(self, path: str) -> int:
                return FileOps.open_read(self, path)  # or the kernel would mind where they begin

            def pread_into(self, fd: int, memory: memoryview, offset: int) -> int:
                return FileOps.pread_into(self, fd, memory[:some], offset)

        backend = LocalBackend(tmp_path, ops=Short()).uncached()
        spans = [WHOLE, Span(3000, 50), Span(4095, 2), Span(12_000, 13_600), Span(25_599, 1)]
        assert backend.read("roots/1", spans) == [
            data, data[3000:3050], data[4095:4097], data[12_000:], data[-1:],
        ]  # fmt: skip

    def test_a_value_that_shrinks_while_it_is_read_is_corruption(self, tmp_path: Path) -> None:
        LocalBackend(tmp_path).put_new("roots/1", VALUE)

        class Shrinking(FileOps):
            def pread(self, fd: int, length: int, offset: int) -> bytes:
                return FileOps.pread(self, fd, min(length, max(0, 50 - offset)), offset)

        with pytest.raises(CorruptionError, match="cut short while it was read"):
            LocalBackend(tmp_path, ops=Shrinking()).read("roots/1", [WHOLE])


def test_hints_never_fail(tmp_path: Path) -> None:
    LocalBackend(tmp_path).write_hint("newest", "7")
    for step in range(1, 20):
        backend = LocalBackend(tmp_path, ops=FaultyOps(Fault(step, errno.EIO)))
        backend.write_hint("newest", "7")
        assert backend.read_hint("newest") in {None, "7"}
    assert LocalBackend(tmp_path).read_hint("newest") == "7"


def test_a_sink_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(FileOps):
        def write(self, fd: int, buffers: object) -> int:
            raise KeyboardInterrupt

    backend = LocalBackend(tmp_path, ops=Interrupted())
    sink: Sink = backend.create("packs/a")
    with pytest.raises(KeyboardInterrupt):
        sink.write([VALUE])
    with pytest.raises(KeyboardInterrupt):
        put(backend)
    assert list(backend.scan("")) == []
    assert not temporary(tmp_path)
