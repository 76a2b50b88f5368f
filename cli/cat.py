"""`cas cat`."""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from cas.errors import InvalidInputError

from .session import Session, pass_session

if TYPE_CHECKING:
    from cas.ids import Buffer, ManifestId
    from cas.objects.manifest import Column, Series
    from cas.repo.repo import Repo


@click.command()
@click.argument("rev", metavar="REV:PATH")
@click.option("--tensor", metavar="NAME", help="Only the bytes of this tensor of a state or file.")
@click.option(
    "--range", "span", metavar="START:STOP", help="Only these bytes; both may be left out."
)
@pass_session
def cat(session: Session, *, rev: str, tensor: str | None, span: str | None) -> None:
    """Write a file of a revision to standard output.

    The payload is searched first, then the record. A series of metrics comes as lines of
    metric,step,value; of a state its tensors are listed. A tensor comes as its row-major,
    little-endian bytes; of a checkpoint, REV alone is enough then. Nothing else is read.
    """
    from cas.ids import BlobId, ManifestId
    from cas.objects.tree import EntryKind
    from cas.repo.revision import resolve_path
    from cas.repo.trees.contents import file_at

    repo = session.repo
    if tensor is not None or span is not None:
        _write(_part(session, rev, tensor, span))
        return
    id, path = resolve_path(repo, rev)
    entry = file_at(repo, id, path)
    match entry.kind:
        case EntryKind.FILE:
            parts = repo.store.pieces(BlobId(entry.id))
        case EntryKind.LINK:
            parts = iter([entry.link or b""])
        case _:
            parts = _lines(repo, ManifestId(entry.id))
    _write(parts)


def _write(parts: "Iterable[Buffer]") -> None:
    out = sys.stdout.buffer
    for part in parts:
        out.write(part)
    out.flush()


def _part(session: Session, rev: str, tensor: str | None, span: str | None) -> "Iterator[Buffer]":
    """Return a tensor's bytes, or a range of a file's or of a tensor's."""
    from cas.ids import BlobId
    from cas.objects.tree import EntryKind
    from cas.repo.trees.pick import pick_tensor
    from cas.tracking.reading import stored_at

    if tensor is not None and session.terminal:
        raise InvalidInputError("a tensor is raw bytes: send them to a file or a program")
    repo = session.repo
    path, entry = stored_at(repo, rev)
    if tensor is not None:
        found = pick_tensor(repo, entry, tensor)
        return found.pieces(repo, *_bounds(span, found.nbytes, found.name))
    if entry.kind is not EntryKind.FILE:
        raise InvalidInputError(f"{path} is no file: --range takes --tensor NAME with it")
    return repo.store.slice(BlobId(entry.id), *_bounds(span, entry.size, path))


def _bounds(span: str | None, size: int, name: str) -> tuple[int, int]:
    start, colon, stop = (":" if span is None else span).partition(":")
    numbers = [text or default for text, default in ((start, "0"), (stop, str(size)))]
    if not colon or not all(text.isascii() and text.isdigit() for text in numbers):
        raise InvalidInputError(f"--range takes START:STOP in bytes, not {span!r}")
    low, high = (int(text[:20]) for text in numbers)
    if not low <= high <= size:
        raise InvalidInputError(f"{name} has {size} bytes: there is no range {span}")
    return low, high


def _lines(repo: "Repo", id: "ManifestId") -> Iterator[bytes]:
    from cas.objects.manifest import State

    from .ls import rows_of

    manifest = repo.manifest(id)
    if isinstance(manifest, State):
        for row in rows_of(manifest):
            shape = "x".join(map(str, row["shape"]))
            yield f"{row['id']}  {row['dtype']}  [{shape}]  {row['path']}\n".encode()
    else:
        yield from _points(repo, manifest)


def _points(repo: "Repo", series: "Series") -> Iterator[bytes]:
    yield b"metric,step,value\n"
    for row in series.rows:
        name = (
            f'"{row.name.replace(chr(34), chr(34) * 2)}"' if set(row.name) & set(',"') else row.name
        )
        steps = _numbers(repo, row.steps, "q", row.count)
        values = _numbers(repo, row.values, "d", row.count)
        for step, value in zip(steps, values, strict=True):
            yield f"{name},{step},{value!r}\n".encode()


def _numbers(repo: "Repo", column: "Column", code: str, count: int) -> tuple[float, ...]:
    from struct import unpack

    from cas.errors import CorruptionError
    from cas.objects.kind import Kind

    data = column.data if column.data is not None else repo.store.read(Kind.BLOB, column.id)
    if len(data) != 8 * count:
        raise CorruptionError(f"a column of {count} points has {len(data)} bytes")
    return unpack(f"<{count}{code}", data)
