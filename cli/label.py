"""`cas label`."""

import click

from cas.errors import InvalidInputError

from . import render
from .session import Session, json_option, pass_session


@click.command()
@click.argument("rev", required=False)
@click.argument("labels", nargs=-1)
@click.option("-d", "--delete", is_flag=True, help="Take the labels away.")
@json_option
@pass_session
def label(session: Session, rev: str | None, labels: tuple[str, ...], *, delete: bool) -> None:
    """Label a run, or list labels.

    Without REV: every label, and how many runs have it. With REV: the labels of its run. With
    LABELS too: give them to the run. A label is a word to find runs by, which any number of runs
    may have (`cas log --label`); no commit changes by it. A fixed name of one commit is a tag.
    """
    if rev is None:
        _list(session)
        return
    if delete and not labels:
        raise InvalidInputError("say which labels: `cas label -d REV LABEL`")
    from cas.repo import annotations
    from cas.repo.revision import resolve

    repo = session.writing() if labels else session.repo
    id = resolve(repo, rev)
    if labels:
        from cas.tracking.labels import label as change

        said = change(repo, id, **{"remove" if delete else "add": labels})
    else:
        annotations.uid_of(repo.commit(id))
        said = annotations.of_run(repo, repo.commit(id))
    session.emit({"labels": list(said.labels)}, list(said.labels))


def _list(session: Session) -> None:
    from cas.repo.annotations import labelled

    counts = {name: len(uids) for name, uids in labelled(session.repo).items()}
    rows = [(session.paint(name, bold=True), render.count(n, "run")) for name, n in counts.items()]
    data = [{"label": name, "runs": number} for name, number in counts.items()]
    session.emit(data, lambda: render.table(rows))
