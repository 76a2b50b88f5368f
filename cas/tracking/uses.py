"""What a run is made from, and what it makes: datasets, models, tokenizers, other commits, files.

These calls store what they are given before they return.
"""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cas.errors import CasError, InvalidInputError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import BASE_MODEL, DATASET, Parent
from cas.objects.document import document
from cas.objects.tree import Entry
from cas.repo.revision import resolve_path
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.repo.trees.contents import at
from cas.tracking.captured.capture import as_data, as_params
from cas.tracking.checkpoints.checkpoint import write_state
from cas.tracking.guard import guarded
from cas.tracking.inputs import dataset_name, edge_attrs, input_edge
from cas.tracking.media.content import clean
from cas.tracking.media.table import is_frame, prepare
from cas.tracking.models import model_entry, write_model, write_tokenizer
from cas.tracking.names import check_name, make_name
from cas.tracking.shown.shows import Shows

TOKENIZER: Final = "tokenizer"
INPUT: Final = "input"
PARENTS: Final = "parents"  # where the report says that an edge lacks something


class Uses(Shows):
    """The calls of a run that name its inputs and outputs."""

    @guarded
    def log_artifact(self, given: object, name: str | None = None) -> None:
        """Store an artifact: the file or directory at a path, or an object in memory.

        In memory that is bytes, an `io.StringIO` or `io.BytesIO`, what is left of a file open in
        binary, plain data (as JSON), a frame (as Parquet), or arrays and tensors, nested or not (as
        a state). What has no path needs a name. A text is a path.
        """
        if isinstance(given, str | os.PathLike):
            source = Path(os.path.abspath(os.fsdecode(given)))
            stored_as, write = name or source.name, _of_path(source)
        elif name is None:
            raise InvalidInputError("an artifact that is no file needs a name")
        else:
            with self._telling(f"artifacts/{name}"):
                stored_as, write = name, _in_memory(given)
        self._live.add_artifact(stored_as.strip("/"), write)

    @guarded
    def log_model(self, model: object, name: str = "model", *, weights: bool = True) -> None:
        """Store a model as the artifact `models/NAME`: its structure and its weights.

        `cas.load("REV:artifacts/models/NAME/weights")` gives the weights back.
        """
        place = f"models/{check_name(name, 'model')}"
        self._live.add_artifact(place, lambda tx: model_entry(tx, model, weights=weights))

    @guarded
    def track_dataset(
        self,
        data: object,
        name: str | None = None,
        *,
        split: str | None = None,
        role: str = DATASET,
        metadata: Mapping[str, Any] | None = None,
    ) -> CommitId:
        """Store a file, directory, or arrays as an input of this run; return its commit.

        Equal data is one commit for all runs; split, role and metadata stand on the edge.
        """
        known = dataset_name(data, name)
        with self._telling(PARENTS):
            attrs = edge_attrs(data, self._live.top, split, as_params(metadata or {}))
        return self._live.add_input(
            f"dataset {known}", lambda tx: input_edge(tx, data, known, role, attrs)
        )

    @guarded
    def track_model(
        self,
        model: object,
        name: str,
        *,
        weights: bool = False,
        role: str = BASE_MODEL,
        metadata: Mapping[str, Any] | None = None,
    ) -> CommitId:
        """Name the model that this run begins from; return its commit.

        Structure and the id of the weights are recorded, and with `weights` these themselves.
        """
        known = check_name(name, "model")
        with self._telling(PARENTS):
            attrs = edge_attrs(None, self._live.top, None, as_params(metadata or {}))
        return self._live.add_input(
            f"model {known}",
            lambda tx: Parent(role, write_model(tx, model, known, weights=weights), "", attrs),
        )

    @guarded
    def track_tokenizer(
        self, tokenizer: object, name: str | None = None, *, role: str = TOKENIZER
    ) -> CommitId:
        """Store a tokenizer as an input: what it saves of itself, its files, or a dict of words."""
        known = make_name(name or type(tokenizer).__name__, "tokenizer")
        with self._telling(PARENTS):
            attrs = edge_attrs(tokenizer, self._live.top, None, {})
        return self._live.add_input(
            f"tokenizer {known}",
            lambda tx: Parent(role, write_tokenizer(tx, tokenizer, known), "", attrs),
        )

    @guarded
    def use(self, what: str | os.PathLike[str], role: str | None = None) -> CommitId:
        """Name something that this run is made from; return its commit.

        A revision, REV:PATH for one artifact in it, or a path, which is stored as a dataset.
        Without `role`, a dataset or file has the role dataset, a tokenizer tokenizer, and a model,
        checkpoint or run base-model.
        """
        found = self._revision(what)
        if found is None:
            return self.track_dataset(what, role=role or DATASET)  # type: ignore[return-value]
        id, path = found
        kind = self.repo.commit(id).kind
        if role is None:
            role = (
                _role(self.repo.document(self.repo.commit(id).tree, "input.json"))
                if kind == INPUT
                else BASE_MODEL
            )
        return self._live.add_input(f"use {what}", lambda _: Parent(role, id, path, {}))

    def _revision(self, what: str | os.PathLike[str]) -> tuple[CommitId, str] | None:
        """Return the commit and path that a text names; None when it is a path on disk."""
        if not isinstance(what, str):
            return None
        self.repo.refresh()
        there = Path(what).exists()
        try:
            id, raw = resolve_path(self.repo, what)
            if raw:
                at(self.repo, id, raw)
            path = raw.decode()
        except (CasError, UnicodeDecodeError) as error:
            if there:
                return None
            if isinstance(error, NotFoundError) and os.sep in what:
                raise NotFoundError("revision or path", what) from error
            raise
        if there:
            raise InvalidInputError(
                f"{what} names a commit and a file: give pathlib.Path({what!r}) for the file"
            )
        return id, path


def _role(about: object) -> str:
    kind = about.get("kind") if isinstance(about, dict) else None
    return {"model": BASE_MODEL, "tokenizer": TOKENIZER}.get(str(kind), DATASET)


def _of_path(path: Path) -> Callable[[Transaction], Entry]:
    return lambda tx: ingest.add(tx.writer, path, follow=True)


def _in_memory(given: object) -> Callable[[Transaction], Entry]:
    """Return what stores an object as an artifact."""
    if isinstance(given, io.StringIO):
        given = clean(given.getvalue()).encode()
    if isinstance(given, io.BytesIO):
        given = given.getvalue()
    if isinstance(given, io.BufferedReader):
        given = given.read()
    if is_frame(given):
        given = prepare(given).encode().value
    if isinstance(given, bytes | bytearray | memoryview):
        data = bytes(given)
        return lambda tx: ingest.file_entry(tx.writer, b"artifact", data)
    if _is_plain(given):
        told = document(clean(as_data(given)))
        return lambda tx: ingest.file_entry(tx.writer, b"artifact", told)
    return lambda tx: write_state(tx.writer, given, b"artifact")


def _is_plain(value: object) -> bool:
    """Say whether a value is the same once it was written as JSON."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
