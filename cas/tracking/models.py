"""Models and tokenizers as inputs and as artifacts of a run.

As an input a model is one commit for every run and host: its structure and the id of its weights,
which are stored with it only when they are asked for.
Format: docs/format/run.md.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.ids import CommitId, blob_id
from cas.objects.commit import Commit
from cas.objects.document import document
from cas.objects.states import build_state
from cas.objects.tree import Entry, EntryKind
from cas.repo.layout import MODELS
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.captured import frameworks
from cas.tracking.captured.variables import REPRODUCTION_VARIABLE
from cas.tracking.checkpoints.checkpoint import write_state
from cas.tracking.inputs import DATA
from cas.tracking.media.content import clean
from cas.tracking.structure import structure

STRUCTURE: Final = b"structure.json"
WEIGHTS: Final = b"weights"
TOKENIZER: Final = "tokenizers/"  # below the refs of models


def weights_of(model: object) -> object:
    """Return a model's weights as a state; raise InvalidInputError for what has none."""
    state_dict = getattr(model, "state_dict", None)
    if callable(state_dict):
        return state_dict()
    if isinstance(model, Mapping):
        return model
    kind = type(model).__name__
    raise InvalidInputError(f"a {kind} has no state_dict(): give its arrays as a dict")


def write_model(tx: Transaction, model: object, name: str, *, weights: bool) -> CommitId:
    """Store a model as an input, point its ref there, and return the input's commit."""
    state = weights_of(model)
    told = document(clean(structure(model)))
    entry = write_state(tx.writer, state, DATA) if weights else None
    if entry is not None:
        id, size = entry.id, entry.size
    else:
        named = build_state(state, frameworks.adapters(), lambda data, _: blob_id(data))
        id, size = named.id, named.size
    about = {"kind": "model", "name": name, "bytes": size, "weights": id.hex()}
    items = [
        (b"input.json", ingest.file_entry(tx.writer, b"input.json", document(about))),
        (STRUCTURE, ingest.file_entry(tx.writer, STRUCTURE, told)),
    ]
    return _publish(tx, items, entry, f"{MODELS}{name}")


def write_tokenizer(tx: Transaction, tokenizer: object, name: str) -> CommitId:
    """Store a tokenizer as an input, point its ref there, and return the input's commit."""
    with tempfile.TemporaryDirectory(prefix="cas-") as folder:
        path = _saved(tokenizer, Path(folder))
        modes = ingest.Modes.PORTABLE
        entry = replace(ingest.add(tx.writer, path, modes=modes, follow=True), name=DATA)
    about: dict[str, Any] = {"kind": "tokenizer", "name": name, "bytes": entry.size}
    if not isinstance(tokenizer, str | os.PathLike):
        about["class"] = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    items = [(b"input.json", ingest.file_entry(tx.writer, b"input.json", document(about)))]
    return _publish(tx, items, entry, f"{MODELS}{TOKENIZER}{name}")


def model_entry(tx: Transaction, model: object, *, weights: bool) -> Entry:
    """Store a model as an artifact: a folder with its structure and, if asked for, its weights."""
    told = document(clean(structure(model)))
    entries = [(STRUCTURE, ingest.file_entry(tx.writer, STRUCTURE, told))]
    if weights:
        entries.append((WEIGHTS, write_state(tx.writer, weights_of(model), WEIGHTS)))
    tree = ingest.nest(tx.writer, entries)
    return Entry(b"model", EntryKind.TREE, tree.id, tree.size, ingest.FOLDER_MODE)


def _publish(
    tx: Transaction, items: list[tuple[bytes, Entry]], entry: Entry | None, ref: str
) -> CommitId:
    payload = ingest.nest(tx.writer, [(DATA, entry)]).id if entry is not None else None
    id = tx.record(Commit(kind="input", tree=ingest.nest(tx.writer, items).id, payload=payload))
    if REPRODUCTION_VARIABLE not in os.environ:  # a reproduction moves nothing of the user's
        tx.set_ref(ref, id)
    return id


def _saved(tokenizer: object, folder: Path) -> Path:
    """Return the path where a tokenizer lies, or to where it was written."""
    given: Any = tokenizer
    if isinstance(tokenizer, str | os.PathLike):
        path = Path(os.fspath(tokenizer))
        if not path.exists():
            raise InvalidInputError(f"no such tokenizer: {path}")
        return path
    if callable(getattr(tokenizer, "save_pretrained", None)):
        given.save_pretrained(str(folder))
    elif callable(getattr(tokenizer, "to_str", None)):
        (folder / "tokenizer.json").write_text(given.to_str(), encoding="utf-8")
    elif isinstance(tokenizer, Mapping) or callable(getattr(tokenizer, "get_vocab", None)):
        words = given if isinstance(tokenizer, Mapping) else given.get_vocab()
        text = json.dumps(dict(words), sort_keys=True, ensure_ascii=False, indent=1)
        (folder / "vocab.json").write_text(text + "\n", encoding="utf-8")
    else:
        raise InvalidInputError(
            f"a {type(tokenizer).__name__} cannot be stored: give its files, or its words as a dict"
        )
    return folder
