"""The whole record of a run as plain data: for other tools, archives and people.

It says all that the record says, and of what is heavy the names, sizes and ids. Every key is
described in the format page; what JSON has no number for stands as text.
Format: docs/format/export.md.
"""

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cas.errors import CasError, InvalidInputError
from cas.ids import CommitId
from cas.objects.commit import CHECKPOINT, Commit, Monitor
from cas.plain import plain
from cas.repo.annotations import of_run
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.retain.choice import segment
from cas.repo.trees.contents import Held, inside, top
from cas.tracking.settings.config import Config
from cas.tracking.settings.configkeys import EXPORT_FOLDER
from cas.tracking.start import say
from cas.tracking.userfile import replacing

FORMAT: Final = "cas record"
VERSION: Final = 1
FORMS: Final = ("json", "yaml")
TRACEBACK: Final = b"traceback.txt"
MAX_TRACEBACK: Final = 1024 * 1024
DOCUMENT: Final = ".json"
# Documents of a record that stand elsewhere in what is exported.
PLACED: Final = frozenset({"notes", "checkpoint"})
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def record(repo: Repo, id: CommitId) -> dict[str, Any]:
    """Return all that is recorded of a run up to a commit, as plain data that JSON can say."""
    from cas.tracking.numbers.curve import read_curves
    from cas.tracking.numbers.exchange import as_json
    from cas.tracking.view import RunView

    commit = repo.commit(id)
    said = of_run(repo, commit)
    notes = repo.document(commit.tree, "notes.json")
    told = {
        "format": FORMAT,
        "version": VERSION,
        "id": str(id),
        "kind": commit.kind,
        "experiment": commit.experiment,
        "run": commit.run,
        "status": commit.status,
        "step": commit.step,
        "time": _iso(commit.time),
        "author": commit.author,
        "message": commit.message,
        "labels": list(said.labels),
        "group": notes.get("group") if isinstance(notes, dict) else None,
        "notes": said.notes,
        "monitor": _monitor(commit.monitor),
        "parents": [
            {"role": it.role, "commit": str(it.commit), "path": it.path, "attrs": plain(it.attrs)}
            for it in commit.parents
        ],
        "metrics": as_json(read_curves(repo, id)),
        "logged": RunView(repo, id).keys(),
        "checkpoints": list(_checkpoints(repo, id)),
        "artifacts": list(_files(repo, id, b"artifacts")),
        "traceback": _traceback(repo, commit),
    }
    return _finite({**dict(_documents(repo, commit)), **told})  # type: ignore[no-any-return]


def dumps(told: object, form: str) -> str:
    """Return a record as text; `form` is json or yaml."""
    if form not in FORMS:
        raise InvalidInputError(f"a record is written as {' or '.join(FORMS)}, not {form!r}")
    if form == "json":
        return json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    from cas.tracking.settings import yamlfile

    return yamlfile.write(told)


def write(repo: Repo, id: CommitId, folder: Path, form: str) -> Path:
    """Write the record of a run to FOLDER/EXPERIMENT/RUN.json, or .yaml; return that path.

    An older file is replaced as a whole. Raises InvalidInputError where it cannot be written.
    """
    commit = repo.commit(id)
    path = folder / (commit.experiment or "") / f"{commit.run or id.short}.{form}"
    save(path, dumps(record(repo, id), form))
    return path


def at_end(repo: Repo, config: Config, cwd: Path) -> tuple[Callable[[CommitId], None], ...]:
    """Return what a config wants to be done once a run has ended, wherever its program goes."""
    told = config.words.get("export")
    if told is None:
        return ()
    folder, form = cwd / told.get("folder", EXPORT_FOLDER), told["to"]
    return (lambda id: say(f"wrote {write(repo, id, folder, form)}"),)


def save(path: Path, text: str) -> None:
    """Replace a file as a whole; raise InvalidInputError where that cannot be."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _documents(repo: Repo, commit: Commit) -> Iterator[tuple[str, object]]:
    """Yield every document of a record by its name, those of newer versions too."""
    for entry in repo.entries(commit.tree):
        name = entry.name.decode("utf-8", "replace")
        stem = name.removesuffix(DOCUMENT)
        if stem != name and stem not in PLACED:
            yield stem, plain(repo.document(commit.tree, name))


def _checkpoints(repo: Repo, id: CommitId) -> Iterator[dict[str, Any]]:
    """Yield the checkpoints of the run up to a commit, oldest first."""
    refs = repo.root.refs
    for at, commit in reversed(list(segment(repo.commit, id))):
        if commit.kind == CHECKPOINT:
            told = repo.document(commit.tree, "checkpoint.json")
            details = told if isinstance(told, dict) else {}
            yield {
                "id": str(at),
                "step": commit.step,
                "epoch": details.get("epoch"),
                "time": _iso(commit.time),
                "metrics": plain(details.get("metrics", {})),
                "monitor": _monitor(commit.monitor),
                "kept": f"{HOLDS}{at}" in refs,
            }


def _files(repo: Repo, id: CommitId, folder: bytes) -> Iterator[dict[str, Any]]:
    """Yield path, size and id of everything below a folder of the record or the payload."""
    for same in top(repo, id):
        if same[0].entry.name == folder:
            for held in _below(repo, same):
                path = held.path.removeprefix(folder + b"/").decode("utf-8", "backslashreplace")
                size, stored = held.entry.size, str(held.entry.id)
                yield {"path": path, "size": size, "id": stored, "part": held.part}


def _below(repo: Repo, same: list[Held]) -> Iterator[Held]:
    if not same[0].folder:
        yield same[0]
        return
    for inner in inside(repo, same):
        yield from _below(repo, inner)


def _traceback(repo: Repo, commit: Commit) -> str | None:
    from cas.objects.kind import Kind

    entry = repo.lookup(commit.tree, TRACEBACK)
    if entry is None or entry.size > MAX_TRACEBACK:
        return None
    try:
        return repo.store.read(Kind.BLOB, entry.id).decode("utf-8", "replace")
    except CasError:
        return None  # the rest is worth having without it


def _monitor(monitor: Monitor | None) -> dict[str, Any] | None:
    return None if monitor is None else plain(monitor)


def _iso(time: int | None) -> str | None:
    """Return microseconds since the epoch as ISO 8601, UTC."""
    if time is None:
        return None
    try:
        return (EPOCH + timedelta(microseconds=time)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return None


def _finite(value: Any) -> Any:
    """Return JSON data with the numbers that JSON does not know as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
