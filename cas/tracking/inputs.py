"""Inputs: data that a run was made from, each content one commit for every run and host.

An input commit holds nothing of when, where or by whom; role, split and metadata stand on the
run's edge.
Format: docs/format/run.md.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cas.errors import InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import Commit, Parent
from cas.objects.document import document
from cas.objects.manifest import State
from cas.objects.states import build_state
from cas.objects.tree import EntryKind
from cas.repo.layout import DATASETS
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured import frameworks
from cas.tracking.captured.variables import REPRODUCTION_VARIABLE
from cas.tracking.checkpoints.checkpoint import state_entry
from cas.tracking.journals.state import text_or_bytes
from cas.tracking.names import check_name, make_name
from cas.tracking.privacy.secrets import scrub_text, valid_text

DATA = b"data"


def dataset_name(data: object, name: str | None) -> str:
    """Return the name of a dataset: the one given, else the nearest valid one to the path's."""
    if name is not None:
        return check_name(name, "dataset")
    if isinstance(data, str | os.PathLike):
        base = os.path.basename(os.path.abspath(_text(data)))
        return make_name(scrub_text(base)[0], "data")
    raise InvalidInputError("data that is not a path needs a name: track_dataset(data, name=…)")


def write_dataset(tx: Transaction, data: object, name: str) -> CommitId:
    """Store data as an input, point its ref there, and return the input's commit."""
    if isinstance(data, str | os.PathLike):
        path = Path(_text(data))
        if not path.exists():
            raise InvalidInputError(f"no such data: {path}")
        modes = ingest.Modes.PORTABLE
        entry = replace(ingest.add(tx.writer, path, modes=modes, follow=True), name=DATA)
        about: dict[str, Any] = {"kind": "directory" if entry.kind is EntryKind.TREE else "file"}
    else:
        state = build_state(data, frameworks.adapters(), tx.writer.blob)
        entry = state_entry(tx.writer, state, DATA)
        about = {"kind": "arrays", "arrays": _schema(state)}
    about |= {"name": name, "bytes": entry.size}
    items = [(b"input.json", ingest.file_entry(tx.writer, b"input.json", document(about)))]
    commit = Commit(
        kind="input",
        tree=ingest.nest(tx.writer, items).id,
        payload=ingest.nest(tx.writer, [(DATA, entry)]).id,
    )
    id = tx.record(commit)
    if REPRODUCTION_VARIABLE not in os.environ:  # a reproduction moves nothing of the user's
        tx.set_ref(f"{DATASETS}{name}", id)
    return id


def input_edge(
    tx: Transaction, data: object, name: str, role: str, attrs: Mapping[str, Any]
) -> Parent:
    """Store data as an input and return the edge to it."""
    return Parent(role, write_dataset(tx, data, name), "", attrs)


def edge_attrs(
    data: object, top: Path, split: str | None, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the run's edge says of its input, where it stood included."""
    attrs: dict[str, Any] = {}
    if split is not None:
        attrs["split"] = scrub_text(valid_text(str(split)))[0]
    if metadata:
        attrs["metadata"] = dict(metadata)
    if isinstance(data, str | os.PathLike):
        attrs["at"] = text_or_bytes(scrub_text(place_in(Path(_text(data)), top))[0])
    return attrs


def place_in(path: Path, top: Path) -> str:
    """Return where a path is, seen from the top of the code, links in it left as they are.

    A program that is run again opens the same words; what stands above the top begins with `..`.
    """
    given, root = os.path.abspath(path), os.path.realpath(top)
    for inside in (os.path.abspath(top), root):
        if Path(given).is_relative_to(inside):
            return os.path.relpath(given, inside)
    folder, name = os.path.split(given)
    return os.path.relpath(os.path.join(os.path.realpath(folder), name), root)


def _text(path: "str | os.PathLike[str]") -> str:
    return os.fsdecode(path)


def _schema(state: State) -> list[dict[str, Any]]:
    return [
        {"path": list(row.path), "dtype": row.dtype, "shape": list(row.shape)} for row in state.rows
    ]
