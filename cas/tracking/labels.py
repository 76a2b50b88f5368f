"""Labels and notes, given to a run at any time.

What is written passes the filter for secrets first. The commits of the run stay as they are:
`cas.repo.annotations` says where this stands instead.
"""

from collections.abc import Sequence

from cas.ids import CommitId
from cas.repo import annotations
from cas.repo.annotations import Annotation, Change, check_label
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.tracking.privacy.secrets import scrub_text, valid_text


def label(
    repo: Repo, id: CommitId, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> Annotation:
    """Add and remove labels of the run that a commit belongs to; return what is said of it then.

    Raises InvalidInputError for what is no label, or a commit of no run.
    """
    new, old = clean(add), clean(remove)
    return _of_commit(repo, id, lambda said: said.labelled(new, old), "label")


def note(repo: Repo, id: CommitId, text: str, *, append: bool = False) -> Annotation:
    """Change the notes of the run that a commit belongs to; return what is said of it then.

    With `append` the text goes below what was said before. Raises InvalidInputError for a text that
    is too long, or a commit of no run.
    """
    return _of_commit(repo, id, lambda said: noted(said, text, append=append), "note")


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
    """Return what is said of a run with other notes, free of secrets."""
    told = scrub_text(valid_text(str(text)))[0]
    return said.noted(f"{said.notes}\n{told}" if append and said.notes else told)


def clean(labels: Sequence[str]) -> tuple[str, ...]:
    """Return valid labels free of secrets; raise InvalidInputError."""
    return tuple(check_label(scrub_text(valid_text(check_label(one)))[0]) for one in labels)
