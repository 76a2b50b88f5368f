"""Labels and notes, given to a run at any time.

What is written passes the filter for secrets first. The commits of the run stay as they are:
`cas.repo.annotations` says where this stands instead.
"""

from collections.abc import Sequence

from cas.errors import InvalidInputError
from cas.ids import CommitId
from cas.repo import annotations
from cas.repo.annotations import Annotation, Change, check_label
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.tracking.privacy.redaction import Redaction
from cas.tracking.privacy.secrets import scrub_text, valid_text


def label(
    repo: Repo, id: CommitId, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> Annotation:
    """Add and remove labels of the run that a commit belongs to; return what is said of it then.

    Raises InvalidInputError for what is no label, or a commit of no run.
    """
    rules = rules_of(repo, id)
    new, old = clean(add, rules), clean(remove, rules)
    return _of_commit(repo, id, lambda said: said.labelled(new, old), "label")


def note(repo: Repo, id: CommitId, text: str, *, append: bool = False) -> Annotation:
    """Change the notes of the run that a commit belongs to; return what is said of it then.

    With `append` the text goes below what was said before. Raises InvalidInputError for a text that
    is too long, or a commit of no run.
    """
    told = cleaned(text, rules_of(repo, id))
    return _of_commit(repo, id, lambda said: noted(said, told, append=append), "note")


def _of_commit(repo: Repo, id: CommitId, how: Change, what: str) -> Annotation:
    commit = repo.commit(id)
    uid = annotations.uid_of(commit)
    first = annotations.at_start(repo, commit)
    return changed(repo, uid, first, how, f"{what} {commit.full_name or id.short}")


def changed(
    repo: Repo, uid: bytes, first: Annotation, how: Change, what: str, *, run: str = ""
) -> Annotation:
    """Publish a change of what is said of a run; `first` is what was said as it began.

    `run` is the run that does so itself.
    """

    def build(tx: Transaction) -> Annotation:
        return annotations.change(tx, uid, first, how, what)

    return transact(repo, what, build, run=run)


def noted(said: Annotation, text: str, *, append: bool) -> Annotation:
    """Return what is said of a run with other notes, which are `cleaned`."""
    return said.noted(f"{said.notes}\n{text}" if append and said.notes else text)


def cleaned(text: str, rules: Redaction | None = None) -> str:
    """Return notes as valid text free of secrets, by the rules in force or these."""
    told = valid_text(str(text))
    return scrub_text(told, rules)[0]


def clean(labels: Sequence[str], rules: Redaction | None = None) -> tuple[str, ...]:
    """Return valid labels free of secrets, by the rules in force or these.

    Raises InvalidInputError.
    """
    return tuple(check_label(cleaned(check_label(one), rules)) for one in labels)


def rules_of(repo: Repo, id: CommitId) -> Redaction | None:
    """Return what a run's own config says of redaction: it holds after its end too."""
    tree = repo.commit(id).tree
    if repo.lookup(tree, b"config.json") is None:
        return None
    told = repo.document(tree, "config.json")
    try:
        return Redaction.of(told.get("redaction") if isinstance(told, dict) else None)
    except InvalidInputError:
        return None  # of another version: what is in force holds
