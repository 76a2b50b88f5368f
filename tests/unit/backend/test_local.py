"""What is special to files: modes, handles, threads, forks, and what does not belong there."""

import errno
import gc
import os
import threading
from pathlib import Path
from stat import S_IMODE

import pytest

from cas.backend.base import WHOLE, Sink, Span
from cas.backend.handles import Handles
from cas.backend.local import LocalBackend, create_local
from cas.errors import (
    BackendError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
)
from tests.support.faulty import RecordingOps


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path)


class TestRoot:
    def test_is_created_with_its_parents_durably(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        backend = create_local(tmp_path / "a" / "b", ops=ops)
        assert ("fsync_dir", str(tmp_path)) in ops.calls
        assert ("fsync_dir", str(tmp_path / "a")) in ops.calls
        backend.put_new("config", b"")
        assert create_local(tmp_path / "a" / "b").size("config") == 0

    def test_cannot_be_created_over_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        with pytest.raises(BackendError, match="a: file exists"):
            create_local(tmp_path / "a")

    def test_that_was_removed_does_not_come_back_as_a_fragment(self, tmp_path: Path) -> None:
        backend = create_local(tmp_path / "repo")
        backend.put_new("roots/1", b"")
        for path in ("repo/roots/1", "repo/roots", "repo/tmp", "repo"):
            (tmp_path / path).unlink() if path.endswith("1") else (tmp_path / path).rmdir()
        for call in (lambda: backend.put_new("roots/2", b""), lambda: backend.create("packs/a")):
            with pytest.raises(NotFoundError, match=r"repository folder .*repo not found"):
                call()
        backend.write_hint("newest", "1")
        assert not (tmp_path / "repo").exists()

    def test_that_never_was_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="never made"):
            LocalBackend(tmp_path / "repo").put_new("a", b"")


class TestAccess:
    @pytest.mark.parametrize(
        ("root", "file", "folder"),
        [(0o700, 0o600, 0o700), (0o770, 0o660, 0o770), (0o755, 0o644, 0o755)],
    )
    @pytest.mark.parametrize("umask", [0o077, 0o022, 0])
    def test_comes_from_the_root_folder_whatever_the_umask(
        self, root: int, file: int, folder: int, umask: int, tmp_path: Path
    ) -> None:
        tmp_path.chmod(root)
        before = os.umask(umask)
        try:
            backend = LocalBackend(tmp_path)
            backend.put_new("roots/1", b"")
            backend.create("packs/a").seal()
            backend.write_hint("newest", "1")
        finally:
            os.umask(before)
        modes = {path.name: S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
        assert modes == {
            "roots": folder, "packs": folder, "tmp": folder, "hints": folder,
            "1": file, "a": file, "newest": file,
        }  # fmt: skip

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_nobody_may_write_says_so(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(ReadOnlyError, match="ask its owner"):
            LocalBackend(tmp_path).put_new("a", b"")


class TestHandles:
    def test_one_open_serves_many_reads(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        backend = LocalBackend(tmp_path, ops=ops)
        backend.put_new("packs/a", b"0123456789")
        for number in range(10):
            assert backend.read("packs/a", [Span(number, 1)]) == [b"%d" % number]
        assert ops.count("open_read") == 1

    def test_the_oldest_is_closed_first(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        handles = Handles(ops, limit=2)
        paths = [str(tmp_path / name) for name in "abc"]
        for path in paths:
            Path(path).write_text(path)
        for path in (*paths[:2], paths[0], paths[2], paths[0]):
            handles.release(handles.acquire(path))
        assert [path for name, path in ops.calls if name == "open_read"] == paths
        assert [path for name, path in ops.calls if name == "close"] == [paths[1]]

    def test_a_handle_in_use_outlives_its_eviction(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        handles = Handles(ops, limit=1)
        for name in "ab":
            (tmp_path / name).write_text(name)
        first = handles.acquire(str(tmp_path / "a"))
        handles.release(handles.acquire(str(tmp_path / "b")))
        assert ops.pread(first.fd, 1, 0) == b"a"
        assert ops.count("close") == 0
        handles.release(first)
        assert ops.count("close") == 1

    def test_a_handle_is_closed_by_the_last_of_its_users(self, tmp_path: Path) -> None:
        ops = RecordingOps()
        handles = Handles(ops)
        (tmp_path / "a").write_text("a")
        first, second = (handles.acquire(str(tmp_path / "a")) for _ in range(2))
        handles.close()
        handles.release(first)
        assert ops.count("close") == 0
        handles.release(second)
        assert ops.count("close") == 1

    def test_a_deleted_file_is_not_held_open(self, backend: LocalBackend) -> None:
        before = open_descriptors()
        backend.put_new("packs/a", b"1")
        backend.read("packs/a", [WHOLE])
        backend.delete("packs/a")
        assert open_descriptors() == before  # or its space would not come free

    def test_a_key_that_another_process_deleted_is_gone(self, tmp_path: Path) -> None:
        ours, theirs = LocalBackend(tmp_path), LocalBackend(tmp_path)
        ours.put_new("packs/a", b"old")
        assert ours.read("packs/a", [WHOLE]) == [b"old"]
        theirs.delete("packs/a")
        with pytest.raises(NotFoundError):
            ours.read("packs/a", [WHOLE])
        theirs.put_new("packs/a", b"new")
        assert ours.read("packs/a", [WHOLE]) == [b"new"]

    def test_what_is_appended_after_the_open_is_seen(self, backend: LocalBackend) -> None:
        sink = backend.create("packs/a")
        sink.write([b"one"])
        assert backend.read("packs/a", [WHOLE]) == [b"one"]
        sink.write([b"two"])
        assert backend.read("packs/a", [WHOLE]) == [b"onetwo"]
        sink.seal()

    def test_no_descriptor_is_left_open(self, backend: LocalBackend) -> None:
        before = open_descriptors()
        for number in range(40):
            key = f"packs/{number}"
            backend.put_new(key, b"1")
            backend.read(key, [WHOLE])
            backend.create(f"{key}-b").discard()
        with pytest.raises(CorruptionError):
            backend.read("packs/1", [Span(9)])
        assert open_descriptors() == before + 32
        backend.close()
        assert open_descriptors() == before
        assert backend.read("packs/1", [WHOLE]) == [b"1"]
        backend.close()

    def test_many_threads_read_while_keys_come_and_go(self, tmp_path: Path) -> None:
        backend = LocalBackend(tmp_path)
        backend._handles = Handles(backend._ops, limit=3)
        values = {f"packs/{number}": b"%d" % number * 5000 for number in range(8)}
        for key, value in values.items():
            backend.put_new(key, value)
        wrong: list[object] = []

        def read_all(shift: int) -> None:
            for turn in range(150):
                key = f"packs/{turn * (shift + 1) % len(values)}"
                if not reads_right(backend, key, values[key], may_be_gone=key == "packs/7"):
                    wrong.append(key)

        threads = [threading.Thread(target=read_all, args=(shift,)) for shift in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            backend.delete("packs/7")
            backend.put_new("packs/7", values["packs/7"])
        for thread in threads:
            thread.join()
        assert not wrong


def test_a_backend_that_is_let_go_of_leaves_no_open_files(tmp_path: Path) -> None:
    ops = RecordingOps()
    backend = LocalBackend(tmp_path, ops=ops)
    backend.put_new("packs/a", b"value")
    backend.read("packs/a", [WHOLE])
    closed = ops.count("close")
    del backend
    gc.collect()
    assert ops.count("close") == closed + 1


class TestFork:
    # The threads of the test runner are not ours.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_a_child_reads_afresh_and_leaves_the_parents_sink_alone(
        self, backend: LocalBackend
    ) -> None:
        backend.put_new("packs/a", b"value")
        backend.read("packs/a", [WHOLE])
        sink = backend.create("packs/b")
        sink.write([b"parent"])
        # As if another thread were just using it: in the child nobody would ever release it.
        backend._handles._lock.acquire()
        descriptors = open_descriptors()
        child = os.fork()
        if child == 0:
            os._exit(0 if _child_is_right(backend, sink, descriptors) else 1)
        backend._handles._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        sink.write([b" again"])
        sink.seal()
        assert backend.read("packs/b", [WHOLE]) == [b"parent again"]
        assert backend.read("packs/a", [WHOLE]) == [b"value"]


def _child_is_right(backend: LocalBackend, sink: Sink, descriptors: int) -> bool:
    try:
        # The handle that came along is closed, and reading opens one of our own.
        fresh = open_descriptors()
        read = backend.read("packs/a", [WHOLE]) == [b"value"]
        if not read or fresh >= descriptors or open_descriptors() != fresh + 1:
            return False
        try:
            sink.write([b"child"])
        except InvalidInputError:
            sink.discard()
            return backend.size("packs/b") == 6
    except BaseException:
        return False
    return False


class TestStrangers:
    """What somebody else put into the folder is neither a key nor a trap."""

    def test_is_not_scanned(self, backend: LocalBackend, tmp_path: Path) -> None:
        backend.put_new("roots/1", b"")
        for name in (".nfs0001", "Thumbs.db", "roots/.DS_Store", "roots/a b", "tmp/x", "roots/ä"):
            (tmp_path / name).write_text("")
        (tmp_path / "roots" / "dangling").symlink_to("nowhere")
        os.mkfifo(tmp_path / "roots" / "pipe")
        assert [info.key for info in backend.scan("")] == ["roots/1"]

    def test_a_pipe_or_a_folder_is_no_value_and_nobody_waits_for_it(
        self, backend: LocalBackend, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        for key in ("pipe", "folder"):
            with pytest.raises(NotFoundError):
                backend.read(key, [])
            assert backend.size(key) is None

    def test_a_size_is_asked_of_the_file_and_not_of_what_is_remembered_of_its_name(
        self, tmp_path: Path
    ) -> None:
        class Remembering(RecordingOps):
            """A client of a file server that goes on answering for a name that is gone."""

            def stat(self, path: str) -> os.stat_result:
                return os.stat(tmp_path / "a")

        ops = Remembering()
        backend = LocalBackend(tmp_path, ops=ops)
        (tmp_path / "a").write_bytes(b"1")
        (tmp_path / "b").write_bytes(b"22")
        assert backend.read("b", [WHOLE]) == [b"22"]
        (tmp_path / "b").unlink()
        assert backend.size("b") is None
        assert backend.size("a") == 1
        assert ops.count("open_read") == ops.count("close") + 1 + 1  # one is kept, one is not there

    def test_a_size_closes_others_where_too_many_files_are_open(self, tmp_path: Path) -> None:
        class Full(RecordingOps):
            def open_read(self, path: str) -> int:
                if self.count("open_read") > self.count("close"):
                    raise OSError(errno.EMFILE, "too many open files")
                return super().open_read(path)

        backend = LocalBackend(tmp_path, ops=Full())
        (tmp_path / "a").write_bytes(b"1")
        assert backend.read("a", [WHOLE]) == [b"1"]
        assert backend.size("a") == 1

    def test_a_hint_that_is_nonsense_is_none(self, backend: LocalBackend, tmp_path: Path) -> None:
        backend.write_hint("newest", "1")
        (tmp_path / "hints" / "newest").write_bytes(b"\xff\xfe")
        assert backend.read_hint("newest") is None
        (tmp_path / "hints" / "newest").write_bytes(b"1" * 100_000)
        assert backend.read_hint("newest") is None


def reads_right(backend: LocalBackend, key: str, value: bytes, *, may_be_gone: bool) -> bool:
    try:
        return backend.read(key, [Span(1000, 3000)]) == [value[1000:4000]]
    except NotFoundError:
        return may_be_gone


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))
