"""`cas cat`."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .session import Session, pass_session

if TYPE_CHECKING:
    from cas.ids import ManifestId
    from cas.objects.manifest import Column, Series
    from cas.repo.repo import Repo


@click.command()
@click.argument("rev", metavar="REV:PATH")
@pass_session
def cat(session: Session, rev: str) -> None:
    """Write a file of a revision to standard output.

    The payload is searched first, then the record. A series of metrics comes as lines of
    metric,step,value; of a state its tensors are listed.
    """
    from cas.ids import BlobId, ManifestId
    from cas.objects.tree import EntryKind
    from cas.repo.contents import file_at
    from cas.repo.revision import resolve_path

    repo = session.repo
    id, path = resolve_path(repo, rev)
    entry = file_at(repo, id, path)
    match entry.kind:
        case EntryKind.FILE:
            parts = repo.store.pieces(BlobId(entry.id))
        case EntryKind.LINK:
            parts = iter([entry.link or b""])
        case _:
            parts = _lines(repo, ManifestId(entry.id))
    out = sys.stdout.buffer
    for part in parts:
        out.write(part)
    out.flush()


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
