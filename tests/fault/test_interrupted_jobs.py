"""Jobs beside the caller: run once, waited for before a file is closed, and never forgotten."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from cas.backend.files import FileOps
from cas.backend.local import LocalBackend, create_local
from cas.backend.memory import MemoryBackend
from cas.codec.element import Element
from cas.errors import (
    BackendError,
    CasError,
    CorruptionError,
    InvalidInputError,
    StorageFullError,
)
from cas.ids import Buffer, blob_id
from cas.store.pack import GATHER, WRITES, PackClass, PackWriter
from cas.store.packed import PackedStore
from cas.store.pieces import WholeHash
from cas.store.pool import AWAY, Lane, Ordered, ordered
from cas.store.writer import ObjectWriter
from tests.support.builders import noise
from tests.support.faulty import Fault, FaultyOps
from tests.support.stores import Shelf

MIB = 1024 * 1024


class Holder:
    """Keeps a thread waiting, and interrupts the main thread when somebody comes to it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def hold(self) -> None:
        self.reached.set()
        assert self.go_on.wait(10)

    def interrupt(self, after: float = 0.05) -> threading.Timer:
        """Press Ctrl-C soon, and let the held thread go on later."""
        timer = threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        threading.Timer(4 * after, self.go_on.set).start()
        return timer


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets no thread start any more, as a limit on processes does."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


class TestThreadsThatDoNotStart:
    def test_a_job_runs_once(self, no_more_threads: Callable[[], None]) -> None:
        ran: list[int] = []
        holder = Holder()
        first, second = Lane(), Lane()
        first.put(holder.hold)
        assert holder.reached.wait(10)
        no_more_threads()
        # The executor has queued it before it finds that it gets no thread for it.
        second.put(lambda: ran.append(1))
        holder.go_on.set()
        first.settle()
        second.settle()
        first.put(lambda: ran.append(2))
        first.settle()
        assert sorted(ran) == [1, 2]

    def test_an_id_is_that_of_the_bytes(self, no_more_threads: Callable[[], None]) -> None:
        holder, lane = Holder(), Lane()
        lane.put(holder.hold)
        assert holder.reached.wait(10)
        no_more_threads()
        whole = WholeHash()
        for part in (b"one", b"two", b"three"):
            whole.update(part)
        holder.go_on.set()
        lane.settle()
        lane.put(int)
        lane.settle()
        assert whole.id() == blob_id(b"onetwothree")

    def test_jobs_of_all_cores_come_once_and_in_order(
        self, no_more_threads: Callable[[], None]
    ) -> None:
        no_more_threads()
        ran: list[int] = []
        jobs = ((lambda number=number: ran.append(number), AWAY) for number in range(20))
        assert len(list(ordered(jobs, 4 * AWAY))) == 20
        assert sorted(ran) == list(range(20))


class TestInterrupted:
    def test_a_lane_that_was_left_waiting_still_knows_its_job(self) -> None:
        holder, lane, done = Holder(), Lane(), []

        def job() -> None:
            holder.hold()
            done.append(1)

        lane.put(job)
        holder.interrupt()
        with pytest.raises(KeyboardInterrupt):
            lane.settle()
        lane.drop()
        assert done == [1]

    def test_no_file_is_closed_under_a_write(self, tmp_path: Path) -> None:
        class Slow(FileOps):
            def __init__(self) -> None:
                self.holder = Holder()
                self.closed: set[int] = set()
                self.late: list[int] = []

            def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
                if sum(map(len, buffers)) >= GATHER:
                    self.holder.hold()
                # The number may be another file's by now.
                if fd in self.closed:
                    self.late.append(fd)
                return super().write(fd, buffers)

            def close(self, fd: int) -> None:
                self.closed.add(fd)
                super().close(fd)

        ops = Slow()
        create_local(tmp_path / "repo").close()
        sink = LocalBackend(tmp_path / "repo", ops=ops).create("packs/x")
        thread = threading.Thread(target=lambda: _quietly(sink.write, [bytes(GATHER)]))
        thread.start()
        assert ops.holder.reached.wait(10)
        threading.Timer(0.1, ops.holder.go_on.set).start()
        sink.discard()
        thread.join()
        assert ops.late == []
        assert list((tmp_path / "repo" / "packs").iterdir()) == []

    def test_a_pack_that_is_interrupted_leaves_no_file(self, tmp_path: Path) -> None:
        holder = Holder()

        class Slow(FileOps):
            def write(self, fd: int, buffers: Sequence[Buffer]) -> int:
                holder.hold()
                return super().write(fd, buffers)

        create_local(tmp_path / "repo").close()
        backend = LocalBackend(tmp_path / "repo", ops=Slow())
        writer = ObjectWriter(backend, PackedStore(MemoryBackend(), list), lambda: os.urandom(16))
        threading.Thread(target=lambda: holder.reached.wait(10) and holder.interrupt()).start()

        def store() -> None:
            # One write too many waits for the first: as the blob is cut, or the rest is settled.
            writer.blob(noise(1, (WRITES + 2) * GATHER))
            writer.seal()

        with pytest.raises(KeyboardInterrupt):
            store()
        writer.discard()
        assert list((tmp_path / "repo" / "packs").iterdir()) == []


class TestAfterAnError:
    def test_jobs_that_were_dropped_are_not_forgotten(self) -> None:
        taken: list[int] = []
        queue = Ordered(taken.append, 100 * AWAY)

        def fail() -> int:
            raise ValueError("broken")

        for job in (fail, lambda: 2):
            with suppress(ValueError):
                queue.put(job, AWAY)
        with suppress(ValueError):
            queue.settle()
        # Whoever took no notice of it must not take the rest for done.
        with pytest.raises(ValueError, match="broken"):
            queue.settle()
        with pytest.raises(ValueError, match="broken"):
            queue.put(lambda: 3, 1)
        assert taken == []

    def test_nothing_is_listed_without_what_was_lost(self, tmp_path: Path) -> None:
        create_local(tmp_path / "repo").close()
        backend = LocalBackend(tmp_path / "repo", ops=FaultyOps(Fault(1, errno.ENOSPC, "open_new")))
        writer = ObjectWriter(backend, PackedStore(MemoryBackend(), list), lambda: os.urandom(16))
        for seed in range(8):  # the pack cannot be opened once; then there is room again
            with suppress(StorageFullError):
                writer.blob(noise(seed, 60_000))
        with pytest.raises(StorageFullError):
            writer.seal()

    def test_what_was_given_up_is_not_sealed_by_anybody(self) -> None:
        writer = Shelf().writer()
        writer.blob(b"x" * 100)
        writer.discard()
        with pytest.raises(InvalidInputError, match="given up"):
            writer.seal()

    def test_an_error_beside_the_caller_is_seen_before_a_pack_is_named(
        self, tmp_path: Path
    ) -> None:
        create_local(tmp_path / "repo").close()
        backend = LocalBackend(tmp_path / "repo", ops=FaultyOps(Fault(2, errno.EIO, "write")))
        pack = PackWriter(backend, b"n" * 16, PackClass.DATA)
        shelf = Shelf()
        writer = shelf.writer()
        id = writer.blob(noise(1, 300_000))
        shelf.publish(writer)
        place = shelf.store.find(id)
        assert place is not None
        header, body = shelf.store.body(place)
        for _ in range(20):
            with suppress(BackendError):
                pack.add(header, body)
        for _ in range(2):
            with pytest.raises(BackendError, match="input/output error"):
                pack.seal()


class TestMemoryThatChanges:
    @pytest.mark.parametrize("look", range(6))
    def test_a_large_blob_is_never_other_bytes_than_its_id_says(self, look: int) -> None:
        memory = bytearray(noise(1, 9 * MIB))
        shelf = Shelf()

        class Changing(PackedStore):
            looks = 0

            def locate(self, id: object) -> None:
                Changing.looks += 1
                if Changing.looks == look + 1:
                    memory[5 * MIB] ^= 1  # another thread trains on

        writer = shelf.writer(Changing(shelf.backend, list))
        try:
            id = writer.blob(memory, Element(4, floating=True))
            shelf.publish(writer)
        except CorruptionError:
            return
        assert blob_id(b"".join(shelf.store.pieces(id))) == id


def _quietly(action: Callable[..., object], *arguments: object) -> None:
    with suppress(CasError, OSError):
        action(*arguments)
