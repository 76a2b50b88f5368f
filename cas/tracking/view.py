"""Reading a run: `cas.open_run`.

What is asked for is read, and nothing else: a list of ten thousand images reads none of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cas.errors import AmbiguousError, InvalidInputError, NotFoundError
from cas.ids import BlobId, CommitId, ManifestId
from cas.objects.commit import CHECKPOINT, DRAFT, RUN, Parent
from cas.objects.kind import Kind
from cas.objects.tree import Entry, EntryKind
from cas.repo import place
from cas.repo.layout import OPEN, RUNS
from cas.repo.repo import Repo
from cas.repo.revision import resolve
from cas.repo.trees.contents import Held, at, inside
from cas.repo.trees.names import shown
from cas.tracking.checkpoints.checkpoint import read_state
from cas.tracking.ends.recovery import open_runs
from cas.tracking.ends.rescue import from_draft, from_journals
from cas.tracking.journals.state import RunState, open_ref
from cas.tracking.media.kinds import value_of
from cas.tracking.numbers.columns import COLUMNS
from cas.tracking.numbers.metrics import MetricLog
from cas.tracking.record import ARTIFACTS
from cas.tracking.runfiles import journals_of
from cas.tracking.shown.logged import STATE_FORMAT, Logged, Where
from cas.tracking.shown.loggedrecord import PRUNED, Index
from cas.tracking.start import asked_for, author

if TYPE_CHECKING:
    from cas.tracking.numbers.curve import Curve


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The points of one metric as arrays: int64 steps, float64 values and seconds since 1970."""

    steps: Any
    values: Any
    times: Any

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a run logged; its content is read when it is asked for."""

    kind: str
    key: str
    step: int
    time: float
    format: str
    size: int
    epoch: float | None
    options: Mapping[str, Any]
    _row: Logged = field(repr=False)
    _view: "RunView" = field(repr=False)

    def bytes(self) -> bytes:
        """Return the content as it is stored: a PNG, a WAV, a JSON document."""
        if self.format == STATE_FORMAT:
            raise InvalidInputError(f"{self.key} is stored as arrays: read its .value()")
        return self._view._index.content(self._row)

    def value(self) -> Any:
        """Return what was logged, as equal as its form allows (docs/logging.md says how)."""
        if self.format == STATE_FORMAT and self._row.id is not None:
            try:
                return read_state(self._view.repo, ManifestId(self._row.id))
            except NotFoundError as error:
                raise NotFoundError(self.kind, f"{self.key} at step {self.step}", PRUNED) from error
        return value_of(self.kind, self.format, self.bytes(), dict(self.options))


class Metrics(Mapping[str, Points]):
    """The metrics of a run by name; the points of one are read when they are asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], Points]) -> None:
        self._names = dict.fromkeys(sorted(names))
        self._read = read

    def __getitem__(self, name: str) -> Points:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class RunView:
    """A run, or a checkpoint of one, as its commit tells it; one that lives, as its journal."""

    def __init__(
        self,
        repo: Repo,
        id: CommitId,
        state: RunState | None = None,
        status: str | None = None,
    ) -> None:
        self.repo = repo
        self.commit = id
        self._commit = repo.commit(id)
        if self._commit.kind not in {RUN, DRAFT, CHECKPOINT}:
            raise InvalidInputError(
                f"{id.short} is no run: it is a commit of kind {self._commit.kind}"
            )
        self._state = state
        self._status = status
        self._index = Index(repo, id)

    @property
    def name(self) -> str:
        """The run's full name, EXPERIMENT/NAME."""
        return f"{self._commit.experiment}/{self._commit.run}"

    @property
    def status(self) -> str:
        """How it ended; or `running`, `lost` when its process is gone, as `cas log` says it."""
        return self._status or self._commit.status or ""

    @property
    def parents(self) -> tuple[Parent, ...]:
        """What it was made from, by role."""
        return self._commit.parents

    @property
    def params(self) -> dict[str, Any]:
        """The params, nested as they were given."""
        return self.document("params.json") if self._state is None else self._state.params

    @property
    def summary(self) -> dict[str, dict[str, Any]]:
        """Last, least, greatest and mean value and the count of each metric, by name."""
        if self._state is not None:
            return self._state.metrics.summary()
        return self.document("summary.json")

    @property
    def metadata(self) -> dict[str, Any]:
        """What the run said of itself that is no param."""
        return self.document("metadata.json") if self._state is None else self._state.metadata

    @property
    def metrics(self) -> Metrics:
        """The points of each metric, of a checkpoint all up to it."""
        if self._state is not None:
            return _of_log(self._state.metrics)
        from cas.lineage.curves import histories
        from cas.tracking.numbers.curve import read_curves

        def read(name: str) -> Points:
            curve = read_curves(self.repo, self.commit, [name])[name]
            return Points(curve.steps, curve.values, curve.times)

        return Metrics(histories(self.repo, self.commit), read)

    def curves(self, *names: str, system: bool = False) -> "dict[str, Curve]":
        """Return metrics as curves by name, all or some, or what was seen of the machine.

        Raises NotFoundError for a metric that there is none of.
        """
        from cas.tracking.numbers.curve import of_logs, read_curves, read_system

        if self._state is not None:
            return of_logs(self._state.system if system else self._state.metrics, names or None)
        return (read_system if system else read_curves)(self.repo, self.commit, names or None)

    @property
    def system(self) -> Metrics:
        """What was seen of the machine, by name; `steps` are microseconds since 1970."""
        if self._state is not None:
            return _of_log(self._state.system)
        from cas.tracking.numbers.curve import read_system

        found = read_system(self.repo, self.commit)
        return Metrics(found, lambda name: Points(*_columns(found[name])))

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the rules of the run's watch found and the program alerted of, in order."""
        if self._state is not None:
            return list(self._state.events)
        told = self._json("events.json")
        return told if isinstance(told, list) else []

    @property
    def resumed(self) -> list[dict[str, Any]]:
        """The times that the run broke off and went on: docs/format/run.md says what of each."""
        told = self.document("resumed.json").get("resumed")
        return told if isinstance(told, list) else []

    @property
    def artifacts(self) -> list[str]:
        """The paths of all artifacts that are files or states."""
        return [path for path, _ in self._artifacts()]

    def artifact(self, path: str) -> Any:
        """Return an artifact: a file as its bytes, a state as its value; raise NotFoundError."""
        raw = f"{ARTIFACTS}/{path}".encode("utf-8", "surrogateescape")
        entry = at(self.repo, self.commit, raw)[0].entry
        if entry.kind is EntryKind.STATE:
            return read_state(self.repo, ManifestId(entry.id))
        if entry.kind is not EntryKind.FILE:
            raise InvalidInputError(f"{path} is a folder: `artifacts` lists what is in it")
        return self._blob(BlobId(entry.id))

    def keys(self) -> dict[str, dict[str, int]]:
        """Return how many things were logged, by kind and key; reads none of them."""
        found: dict[str, dict[str, int]] = {}
        for (kind, key), count in sorted(self._counts().items()):
            found.setdefault(kind, {})[key] = count
        return found

    def logged(self, key: str, kind: str | None = None) -> list[Item]:
        """Return what was logged under a key, in order; `kind` where a key has several.

        Raises NotFoundError and AmbiguousError.
        """
        known = [where for where in self._counts() if where[1] == key]
        found: list[Where] = [where for where in known if kind in {None, where[0]}]
        if not found:
            raise NotFoundError("logged", key, "`keys()` lists what there is")
        if len(found) > 1:
            raise AmbiguousError(key, sorted(where[0] for where in found))
        if self._state is not None:
            rows = [row for row in self._state.logged.rows() if row.where == found[0]]
        else:
            rows = self._index.rows(found[0])
        return [self._item(row) for row in rows]

    def document(self, name: str) -> dict[str, Any]:
        """Return a document of the record, `environment.json` for instance; empty without it."""
        told = self._json(name)
        return told if isinstance(told, dict) else {}

    def _json(self, name: str) -> object:
        return self.repo.document(self._commit.tree, name)

    def _counts(self) -> dict[Where, int]:
        return self._index.counts() if self._state is None else self._state.logged.counts()

    def _blob(self, id: BlobId) -> bytes:
        return bytes(self.repo.store.read(Kind.BLOB, id))

    def _item(self, row: Logged) -> Item:
        options = dict(row.options)
        epoch = options.pop("epoch", None)
        return Item(
            row.kind, row.key, row.step, row.time, row.format, row.size, epoch, options, row, self
        )

    def _artifacts(self) -> Iterator[tuple[str, Entry]]:
        try:
            pending = [at(self.repo, self.commit, ARTIFACTS.encode())]
        except NotFoundError:
            return
        while pending:
            same: list[Held]
            for same in inside(self.repo, pending.pop()):
                if same[0].folder:
                    pending.append(same)
                else:
                    yield shown(same[0].path.partition(b"/")[2]), same[0].entry


def open_run(rev: str, *, repo: str | os.PathLike[str] | None = None) -> RunView:
    """Open a run, or a checkpoint of one, to read it; raise NotFoundError.

    A run that still goes on is what its journal says now.
    """
    named = asked_for(repo)
    return view_of(Repo.open(place.find(Path(named or ".").absolute()), who=author()), rev)


def read_metrics(
    rev: str, *names: str, repo: str | os.PathLike[str] | None = None
) -> "dict[str, Curve]":
    """Return the metrics of a run up to a revision as curves, by name; of all, or of some.

    Of a run that still goes on, as they are now. Raises NotFoundError for a metric that there is
    none of.
    """
    return open_run(rev, repo=repo).curves(*names)


def view_of(opened: Repo, rev: str) -> RunView:
    """Return what `open_run` does, of a repository that is open."""
    id = resolve(opened, rev)
    ref = RUNS + rev.removeprefix("refs/").removeprefix(RUNS)
    draft = opened.root.refs.get(open_ref(ref))
    if draft is None and opened.commit(id).kind != DRAFT:
        return RunView(opened, id)
    return _living(opened, draft or id)


def _living(repo: Repo, id: CommitId) -> RunView:
    """Return a run by what its journals say; where they are not here, by what its commits say."""
    draft, refs = repo.commit(id), repo.root.refs
    ref = next((ref for ref in refs if ref.startswith(OPEN) and refs[ref] == id), None)
    if ref is None:
        return RunView(repo, id)  # of a while ago: the run has another by now
    known = next(one for one in open_runs(repo, orphans=True) if one.draft == ref)
    uid = draft.journal.run if draft.journal is not None else bytes(16)
    if parts := journals_of(repo, uid):
        lost = from_journals(repo, known.run, known.ref, uid, parts)
    else:
        lost = from_draft(repo, known.run, known.ref)
    return RunView(repo, id, lost.state, known.status)


def _of_log(log: MetricLog) -> Metrics:
    """Return the points of a run that lives."""
    import numpy as np

    def read(name: str) -> Points:
        part = log.points(name)
        return Points(*(np.array(part[key]) for key in COLUMNS))

    return Metrics(log.mark().counts, read)


def _columns(curve: "Curve") -> tuple[Any, Any, Any]:
    return curve.steps, curve.values, curve.times
