"""The promises that every Backend keeps, with those of Exists and Hints."""

from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Protocol

import pytest

from cas.backend.base import WHOLE, Backend, Exists, Hints, Span
from cas.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError

NOT_KEYS = [
    "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "./a", ".hidden", "a/.b", "a.", "A", "ä",
    "a b", "a\\b", "a\n", "a\0", "c:", "tmp/a", "hints/a", "a" * 201,
]  # fmt: skip


class WholeBackend(Backend, Exists, Hints, Protocol):
    """A backend with every extra ability."""


class BackendContract:
    """Subclass it with a `backend` fixture to test one implementation."""

    def test_returns_what_was_put(self, backend: WholeBackend) -> None:
        backend.put_new("roots/1", b"hello")
        assert backend.read("roots/1", [WHOLE]) == [b"hello"]
        spans = [Span(1, 3), Span(0, 0), Span(4), Span(5), Span(5, 0), Span(0, 5)]
        assert backend.read("roots/1", spans) == [b"ell", b"", b"o", b"", b"", b"hello"]

    def test_keeps_a_value_without_bytes(self, backend: WholeBackend) -> None:
        backend.put_new("empty", b"")
        assert backend.read("empty", [WHOLE, Span(0, 0)]) == [b"", b""]
        assert backend.size("empty") == 0

    def test_names_the_missing_key(self, backend: WholeBackend) -> None:
        backend.put_new("roots/1", b"")
        for key in ("roots/2", "packs/1", "roots"):
            for spans in ([WHOLE], []):
                with pytest.raises(NotFoundError) as caught:
                    backend.read(key, spans)
                assert caught.value.name == key

    @pytest.mark.parametrize("span", [Span(6), Span(0, 6), Span(5, 1), Span(1 << 62, 1 << 62)])
    def test_a_span_beyond_the_end_is_corruption(self, backend: WholeBackend, span: Span) -> None:
        backend.put_new("packs/a", b"hello")
        with pytest.raises(CorruptionError, match="packs/a is cut short"):
            backend.read("packs/a", [Span(0, 1), span])

    def test_create_only_put_leaves_a_taken_key_alone(self, backend: WholeBackend) -> None:
        backend.put_new("roots/1", b"first")
        with pytest.raises(ConflictError) as caught:
            backend.put_new("roots/1", b"second")
        assert caught.value.name == "roots/1"
        with pytest.raises(ConflictError):
            backend.create("roots/1")
        assert backend.read("roots/1", [WHOLE]) == [b"first"]

    def test_of_many_that_put_at_once_one_succeeds(self, backend: WholeBackend) -> None:
        start, won, lost = Barrier(8), list[int](), list[int]()

        def put(number: int) -> None:
            start.wait()
            try:
                backend.put_new("roots/7", b"%d" % number * 1000)
            except ConflictError:
                lost.append(number)
            else:
                won.append(number)

        threads = [Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 7)
        assert backend.read("roots/7", [WHOLE]) == [b"%d" % won[0] * 1000]

    def test_a_sealed_value_is_what_was_written(self, backend: WholeBackend) -> None:
        sink = backend.create("packs/a")
        sink.write([b"one", bytearray(b"two"), b"", memoryview(b"three")])
        sink.write([])
        sink.write([memoryview(b"\1\0\2\0").cast("H")])
        sink.seal()
        backend.sync("packs/")
        assert backend.read("packs/a", [WHOLE]) == [b"onetwothree\1\0\2\0"]
        assert backend.size("packs/a") == 15

    def test_a_write_of_many_buffers_keeps_their_order(self, backend: WholeBackend) -> None:
        parts = [b"%d," % number for number in range(3000)]
        sink = backend.create("packs/a")
        sink.write(parts)
        sink.seal()
        assert backend.read("packs/a", [WHOLE]) == [b"".join(parts)]

    def test_a_key_is_taken_as_soon_as_it_is_created(self, backend: WholeBackend) -> None:
        sink = backend.create("packs/a")
        with pytest.raises(ConflictError):
            backend.create("packs/a")
        with pytest.raises(ConflictError):
            backend.put_new("packs/a", b"")
        sink.seal()
        assert backend.read("packs/a", [WHOLE]) == [b""]

    def test_a_discarded_value_leaves_nothing(self, backend: WholeBackend) -> None:
        sink = backend.create("packs/a")
        sink.write([b"one"])
        sink.discard()
        sink.discard()
        assert backend.size("packs/a") is None
        assert list(backend.scan("")) == []
        with pytest.raises(InvalidInputError):
            sink.write([b"two"])
        with pytest.raises(InvalidInputError):
            sink.seal()
        backend.create("packs/a").seal()

    def test_a_discard_after_the_seal_removes_nothing(self, backend: WholeBackend) -> None:
        sink = backend.create("packs/a")
        sink.write([b"one"])
        sink.seal()
        sink.discard()
        with pytest.raises(InvalidInputError):
            sink.write([b"two"])
        assert backend.read("packs/a", [WHOLE]) == [b"one"]

    def test_a_deleted_key_is_gone_and_can_be_taken_again(self, backend: WholeBackend) -> None:
        backend.put_new("packs/a", b"old")
        assert backend.read("packs/a", [WHOLE]) == [b"old"]
        backend.delete("packs/a")
        backend.delete("packs/a")
        backend.delete("never/was")
        assert backend.size("packs/a") is None
        with pytest.raises(NotFoundError):
            backend.read("packs/a", [WHOLE])
        backend.put_new("packs/a", b"new")
        assert backend.read("packs/a", [WHOLE]) == [b"new"]

    def test_scan_yields_only_the_prefix_in_key_order(self, backend: WholeBackend) -> None:
        for key in ("b/2", "a/1", "b/1", "b-x/1", "b0", "b/c/d", "b/c-d", "ba/1"):
            backend.put_new(key, b"123")
        assert [info.key for info in backend.scan("b/")] == ["b/1", "b/2", "b/c-d", "b/c/d"]
        assert [info.key for info in backend.scan("b/c")] == ["b/c-d", "b/c/d"]
        everything = [info.key for info in backend.scan("")]
        assert len(everything) == 8
        assert everything == sorted(everything)
        assert list(backend.scan("nothing/")) == []

    def test_scan_tells_size_and_age(self, backend: WholeBackend) -> None:
        backend.put_new("a", b"123")
        (info,) = backend.scan("")
        assert (info.key, info.size_bytes) == ("a", 3)
        assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=5)

    def test_scan_passes_over_what_goes_meanwhile(self, backend: WholeBackend) -> None:
        for key in ("a/1", "a/2", "a/3"):
            backend.put_new(key, b"")
        scan = backend.scan("a/")
        assert next(scan).key == "a/1"
        backend.delete("a/2")
        assert [info.key for info in scan] == ["a/3"]

    def test_syncs_a_folder_without_names(self, backend: WholeBackend) -> None:
        backend.sync("packs/")
        backend.sync("packs")
        backend.sync("")

    @pytest.mark.parametrize("key", NOT_KEYS)
    def test_refuses_what_is_not_a_key(self, backend: WholeBackend, key: str) -> None:
        for call in (
            lambda: backend.create(key),
            lambda: backend.put_new(key, b""),
            lambda: backend.read(key, []),
            lambda: backend.delete(key),
            lambda: backend.size(key),
        ):
            with pytest.raises(InvalidInputError, match="not a key"):
                call()

    def test_refuses_prefixes_that_lead_elsewhere(self, backend: WholeBackend) -> None:
        for prefix in ("../", "tmp/", "/", "a/../"):
            with pytest.raises(InvalidInputError):
                list(backend.scan(prefix))
            with pytest.raises(InvalidInputError):
                backend.sync(prefix)

    def test_a_hint_is_the_last_text(self, backend: WholeBackend) -> None:
        assert backend.read_hint("newest-root") is None
        backend.write_hint("newest-root", "7")
        backend.write_hint("newest-root", "8 ä")
        assert backend.read_hint("newest-root") == "8 ä"
        assert list(backend.scan("")) == []
        with pytest.raises(InvalidInputError):
            backend.write_hint("a/b", "")
