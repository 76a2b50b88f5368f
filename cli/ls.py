"""`cas ls`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.objects.manifest import Manifest
    from cas.repo.repo import Repo
    from cas.repo.trees.contents import Held


@click.command()
@click.argument("rev", metavar="REV[:PATH]", default="HEAD")
@click.option("-r", "--recursive", is_flag=True, help="List what is in directories too.")
@json_option
@pass_session
def ls(session: Session, rev: str, *, recursive: bool) -> None:
    """List what a revision holds.

    Kind, mode, size, id and name of each entry: the payload first, then the record; a directory in
    both is listed as one. Of a state, and of a file of tensors (safetensors, .npy, .npz,
    torch.save, GGUF): id, dtype, shape and path of each tensor; it has one id wherever it stands.
    Of a series: its metrics. The id of a file is what `b3sum` prints.
    """
    from cas.repo.revision import resolve_path
    from cas.repo.trees.contents import at, inside, top

    repo = session.repo
    id, path = resolve_path(repo, rev)
    found = at(repo, id, path) if path else []
    rows = _inner_rows(repo, found[0]) if found else None
    if rows is not None:
        session.emit(rows, lambda: render.table([_cells(row) for row in rows]), paged=True)
        return
    if found and not found[0].folder:
        listed = [found]
    else:
        inner = inside(repo, found) if path else top(repo, id)
        listed = list(_below(repo, inner) if recursive else inner)
    front = len(path) + 1 if path and found[0].folder else 0
    session.emit(
        [_data(same) for same in listed],
        lambda: render.table([_line(same, front) for same in listed], right=(2,)),
        paged=True,
    )


def _inner_rows(repo: "Repo", held: "Held") -> list[dict[str, Any]] | None:
    """Return what a state, a series or a file of tensors holds; None for anything else."""
    from cas.ids import BlobId, ManifestId
    from cas.objects.tree import EntryKind

    entry = held.entry
    if entry.kind in {EntryKind.STATE, EntryKind.SERIES}:
        return rows_of(repo.manifest(ManifestId(entry.id)))
    if entry.kind is not EntryKind.FILE or not entry.stored:
        return None
    from cas.repo.trees.tensors import tensors_of

    listing = tensors_of(repo, BlobId(entry.id))
    if listing is None:
        return None
    return [
        {
            "path": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "size_bytes": tensor.nbytes,
            "id": str(tensor.id) if tensor.id else None,
        }
        for tensor in listing.tensors
    ]


def rows_of(manifest: "Manifest") -> list[dict[str, Any]]:
    """Return what a state or a series holds, row by row."""
    from cas.objects.manifest import State
    from cas.objects.pystate import readable

    if isinstance(manifest, State):
        return [
            {
                "path": readable(row.path),
                "dtype": row.dtype,
                "shape": list(row.shape),
                "size_bytes": row.nbytes,
                "id": str(row.id),
            }
            for row in manifest.rows
        ]
    return [
        {"name": row.name, "count": row.count, "id": str(row.values.id)} for row in manifest.rows
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    if "dtype" in row:
        return [row["id"] or "-", row["dtype"], str(row["shape"]), printable(row["path"])]
    return [row["id"], render.count(row["count"], "point"), printable(row["name"])]


def _below(repo: "Repo", listing: "Iterator[list[Held]]") -> "Iterator[list[Held]]":
    from cas.repo.trees.contents import inside

    for same in listing:
        yield same
        if same[0].folder:
            yield from _below(repo, inside(repo, same))


def _line(same: "list[Held]", front: int) -> list[str]:
    entry = same[0].entry
    name = printable(same[0].path[front:]) + ("/" if same[0].folder else "")
    if entry.link is not None:
        name += f" -> {printable(entry.link)}"
    return [
        entry.kind.name.lower() + ("" if entry.stored else " (named)"),
        f"{entry.mode:04o}" if entry.mode else "-",
        str(sum(held.entry.size for held in same)),
        str(entry.id) if len(same) == 1 else "(payload and record)",
        name,
    ]


def _data(same: "list[Held]") -> dict[str, Any]:
    entry = same[0].entry
    return {
        "path": same[0].path,
        "kind": entry.kind,
        "mode": f"{entry.mode:04o}" if entry.mode else None,
        "size_bytes": sum(held.entry.size for held in same),
        "id": entry.id if len(same) == 1 else None,
        "link": entry.link,
        "stored": entry.stored,
        "parts": [held.part for held in same],
    }
