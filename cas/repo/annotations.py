"""Labels and notes of runs: what people say of a run, also after it has ended.

A commit never changes. So what is said of a run stands in commits of their own, each with the one
before as `previous`, at the ref `annotations/UID`: UID is drawn for a run as it begins, and all of
its commits name it. Every change is an operation that can be seen and undone.
Format: docs/format/run.md, "Labels and notes".
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cas.errors import InvalidInputError
from cas.ids import TreeId
from cas.objects.commit import COMMIT, PREVIOUS, Commit, Parent
from cas.objects.document import document
from cas.repo.layout import ANNOTATIONS
from cas.repo.repo import Repo
from cas.repo.retain.choice import previous

if TYPE_CHECKING:
    from cas.repo.transaction import Transaction

NAME: Final = "annotation.json"
AT_START: Final = "notes.json"  # in a run's record: what was said as it began
MAX_LABEL: Final = 100
MAX_NOTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is said of a run: labels, in order of their bytes, and a text."""

    labels: tuple[str, ...] = ()
    notes: str = ""

    def labelled(self, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> "Annotation":
        """Return it with labels added and removed."""
        kept = {*self.labels, *map(check_label, add)} - set(remove)
        return Annotation(tuple(sorted(kept)), self.notes)

    def noted(self, notes: str) -> "Annotation":
        """Return it with another text; raise InvalidInputError for one that is too long."""
        if len(notes) > MAX_NOTES:
            raise InvalidInputError(
                f"notes have at most {MAX_NOTES:,} characters, not {len(notes):,}: commit a file"
            )
        return Annotation(self.labels, notes)

    def to_words(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"labels": list(self.labels), "notes": self.notes}


@dataclass(frozen=True, slots=True)
class Said:
    """One change: what was said from then on, when and by whom; `time` in microseconds."""

    annotation: Annotation
    time: int | None
    author: str | None


Change = Callable[[Annotation], Annotation]
Known = dict[TreeId, Annotation]  # by the tree that says it


def check_label(text: object) -> str:
    """Return a valid label: one line of printable text; raise InvalidInputError."""
    if not isinstance(text, str) or not text.isprintable():
        raise InvalidInputError(f"a label is one line of text, not {text!r}")
    label = text.strip()
    if not 0 < len(label) <= MAX_LABEL:
        raise InvalidInputError(f"a label has 1 to {MAX_LABEL} characters, not {len(label)}")
    return label


def uid_of(commit: Commit) -> bytes:
    """Return what all commits of a run have in common; raise InvalidInputError for another one."""
    if commit.journal is None:
        raise InvalidInputError(
            f"labels and notes are of runs, and this is a commit of kind {commit.kind}: "
            "`cas tag` names any commit"
        )
    return commit.journal.run


def of_run(repo: Repo, commit: Commit) -> Annotation:
    """Return what is said of the run that a commit belongs to; of none, nothing."""
    said = current(repo, commit.journal.run) if commit.journal is not None else None
    return at_start(repo, commit) if said is None else said


def current(repo: Repo, uid: bytes, known: Known | None = None) -> Annotation | None:
    """Return what was last said of a run, None when nothing was; as of the root that is open.

    `known` is for who asks of many runs: what is said of several of them alike is read once.
    """
    id = repo.root.refs.get(ref_of(uid))
    return None if id is None else _read(repo, repo.commit(id), known)


def labelled(repo: Repo, known: Known | None = None) -> dict[str, frozenset[str]]:
    """Return every label, in order, with the refs of what is said of the runs that have it."""
    found: dict[str, set[str]] = {}
    known = {} if known is None else known
    for ref, id in repo.root.refs.items():
        if ref.startswith(ANNOTATIONS):
            for label in _read(repo, repo.commit(id), known).labels:
                found.setdefault(label, set()).add(ref)
    return {label: frozenset(found[label]) for label in sorted(found)}


def history(repo: Repo, commit: Commit) -> Iterator[Said]:
    """Yield every change of what is said of a run, the newest first."""
    at = repo.root.refs.get(ref_of(uid_of(commit)))
    while at is not None:
        said = repo.commit(at)
        yield Said(_read(repo, said), said.time, said.author)
        at = previous(said)


def change(tx: "Transaction", uid: bytes, first: Annotation, how: Change, what: str) -> Annotation:
    """Change what is said of a run, as part of a transaction; return what is said then.

    `first` is what was said as the run began, for the first change of all.
    """
    ref = ref_of(uid)
    before = tx.ref(ref)
    old = first if before is None else _read(tx.repo, tx.repo.commit(before))
    new = how(old)
    if new != old or (before is None and new != Annotation()):
        from cas.repo.trees import ingest

        entry = ingest.file_entry(tx.writer, NAME.encode(), document(new.to_words()))
        tree = ingest.nest(tx.writer, [(NAME.encode(), entry)])
        said = Commit(
            kind=COMMIT,
            tree=tree.id,
            parents=() if before is None else (Parent(PREVIOUS, before),),
            time=tx.repo.clock(),
            author=tx.repo.who,
            message=what,
        )
        tx.set_ref(ref, tx.record(said))
    return new


def ref_of(uid: bytes) -> str:
    """Return the ref of what is said of a run."""
    return ANNOTATIONS + uid.hex()


def from_words(words: object) -> Annotation:
    """Return an annotation from plain data; what is none of it is passed over."""
    told = words if isinstance(words, Mapping) else {}
    labels, notes = told.get("labels"), told.get("notes")
    found = (
        {label for label in labels if isinstance(label, str)} if isinstance(labels, list) else ()
    )
    return Annotation(tuple(sorted(found)), notes if isinstance(notes, str) else "")


def at_start(repo: Repo, commit: Commit) -> Annotation:
    """Return what was said of a run as it began."""
    return from_words(repo.document(commit.tree, AT_START))


def _read(repo: Repo, said: Commit, known: Known | None = None) -> Annotation:
    found = None if known is None else known.get(said.tree)
    if found is None:
        found = from_words(repo.document(said.tree, NAME))
        if known is not None:
            known[said.tree] = found
    return found
