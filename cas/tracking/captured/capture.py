"""What is captured as a run begins: code, environment, command, seeds, host.

Everything passes the filter for secrets before it is hashed, and nothing here fails a run.
Format: docs/format/run.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.ids import ManifestId
from cas.objects.commit import Commit, Parent
from cas.objects.document import document
from cas.objects.tree import Entry, EntryKind
from cas.repo.repo import Repo
from cas.repo.retain.retention import Keep
from cas.repo.retain.vocabulary import as_words
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.repo.trees.statcache import open_statcache
from cas.tracking.captured import frameworks
from cas.tracking.captured.codefiles import CodeFiles
from cas.tracking.captured.command import command
from cas.tracking.captured.environment import environment, host
from cas.tracking.captured.parts import EVERYTHING, Capture, was_captured
from cas.tracking.captured.source import Source
from cas.tracking.checkpoints import rng
from cas.tracking.checkpoints.checkpoint import read_state
from cas.tracking.inputs import place_in
from cas.tracking.privacy import redacted
from cas.tracking.privacy.secrets import Taken, scrub_params, scrub_text, valid_text
from cas.tracking.record import Items, captured_items

# What a reproduction takes from the original: it is what runs, laid out without its git.
NO_COMMAND: Final = {"kind": "not captured", "argv": [], "python": []}
SAME: Final = ("code", "source.json", redacted.DOCUMENT)


@dataclass(frozen=True, slots=True)
class Start:
    """What the user asked for."""

    experiment: str | None = None
    name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    labels: Sequence[str] = ()
    group: str | None = None
    notes: str = ""
    parents: Sequence[Parent] = ()
    command: Mapping[str, Any] | None = None
    retention: Keep | None = None
    strategy: Mapping[str, Any] = field(default_factory=dict)  # when to save, where it says so
    resume: str = "never"
    config: Mapping[str, Any] | None = None  # in effect, as `cas.tracking.settings.config` has it
    capture: Capture = EVERYTHING


def documents(start: Start, source: Source, cwd: Path, ordinal: int) -> dict[str, object]:
    """Return what is known of a run before it begins, but its code and its params."""
    parts = start.capture
    started = dict(start.command or command()) if parts.command else dict(NO_COMMAND)
    # A program may be started outside its code: seen from there, its paths begin with `..`.
    started |= {"cwd": source.cwd or place_in(cwd, source.top), "ordinal": ordinal}
    policy = {} if start.retention is None else {"retention.json": as_words(start.retention)}
    saves = {"strategy.json": as_params(start.strategy)} if start.strategy else {}
    return (
        policy
        | saves
        | {
            "environment.json": environment(frameworks.loaded(), parts, source.top),
            "seeds.json": parts.mark({"seed": start.seed}, "rng"),
            "command.json": parts.mark(started, "command"),
            "source.json": parts.mark(
                source.info | {"left_out": len(source.left_out)}, "code", "git"
            ),
            "host.json": as_params(
                host(parts)
                | {
                    "top": str(source.top),
                    "left_out": [*map(str, source.left_out)],
                    "problems": [*source.problems],
                }
            ),
            "notes.json": {
                "labels": [_clean(label) for label in start.labels],
                "group": None if start.group is None else _clean(start.group),
                "notes": _clean(start.notes),
            },
        }
    )


def as_params(params: object) -> dict[str, Any]:
    """Return params as canonical data without secrets; raise InvalidInputError."""
    if not isinstance(params, Mapping):
        kind = type(params).__name__
        raise InvalidInputError(f"params are a mapping of names to values, not {kind}: try vars()")
    try:
        return scrub_params(as_data(params))
    except RecursionError:
        raise InvalidInputError("params that contain themselves cannot be recorded") from None


def as_data(value: object) -> Any:
    """Return a value as canonical data: numbers, text, lists and maps with text keys."""
    if isinstance(value, Mapping):
        return {valid_text(str(key)): as_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((as_data(item) for item in value), key=repr)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        value = item()
    return _scalar(value)


def _scalar(value: object) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(value)
    return float(value) if isinstance(value, float) else valid_text(str(value))


def begin_generators(repo: Repo, again: Commit | None) -> dict[str, object]:
    """Return where the random generators stand as an unseeded run begins.

    A reproduction puts them back to where they stood. NumPy is loaded first: it would seed its own
    by chance when the program comes to it, and every checkpoint holds its state.
    """
    import numpy  # noqa: F401

    entry = repo.lookup(again.tree, b"rng") if again is not None else None
    if entry is not None:
        rng.restore(read_state(repo, ManifestId(entry.id)), frameworks.loaded())
    return rng.capture(frameworks.loaded())


def code(
    tx: Transaction,
    repo: Repo,
    source: Source,
    again: Commit | None,
    known: Mapping[str, object],
) -> Items:
    """Return the code as a tree: what was captured, or what the reproduction was laid out from.

    With it goes what was taken out of it, and of the documents that are `known`.
    """
    if again is not None:
        before = captured_items(repo, again.tree)
        return {name: before[name] for name in SAME if name in before}
    items: Items = {}
    taken: Mapping[bytes, Sequence[Taken]] = {}
    if was_captured(known.get("source.json"), "code"):
        with open_statcache(repo) as known_files:
            files = CodeFiles(tx.writer, known_files)
            files.store(source)
            known_files.save()
        code, taken = ingest.nest(tx.writer, files.entries), files.taken
        items["code"] = Entry(b"code", EntryKind.TREE, code.id, code.size, ingest.FOLDER_MODE)
    if told := redacted.report(taken, known):
        name = redacted.DOCUMENT
        items[name] = ingest.file_entry(tx.writer, name.encode(), document(told))
    return items


def _clean(text: str) -> str:
    return scrub_text(valid_text(str(text)))[0]
