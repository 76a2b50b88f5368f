"""`cas tag`."""

from typing import TYPE_CHECKING

import click

from cas.errors import InvalidInputError, NotFoundError, RefusedError

from . import render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.ids import CommitId
    from cas.repo.transaction import Transaction


@click.command()
@click.argument("name", required=False)
@click.argument("rev", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete the tag NAME.")
@json_option
@pass_session
def tag(session: Session, name: str | None, rev: str | None, *, delete: bool) -> None:
    """Give a commit a fixed name, or list and delete such names.

    REV is HEAD by default. A tag is never moved: delete it first.
    """
    if name is None and not delete:
        _list(session)
    elif name is None or (delete and rev is not None):
        raise InvalidInputError("say which tag: `cas tag -d NAME`")
    elif delete:
        _delete(session, name)
    else:
        _make(session, name, rev or "HEAD")


def _list(session: Session) -> None:
    from cas.repo.layout import TAGS

    repo = session.repo
    tags = {
        ref.removeprefix(TAGS): id for ref, id in repo.root.refs.items() if ref.startswith(TAGS)
    }
    rows = []
    for name in sorted(tags):
        commit = repo.commit(tags[name])
        run = commit.full_name or commit.kind
        step = "" if commit.step is None else f"step {commit.step}"
        rows.append((session.paint(name, bold=True), tags[name].short, run, step))
    data = [{"name": name, "id": tags[name]} for name in sorted(tags)]
    session.emit(data, lambda: render.table(rows))


def _make(session: Session, name: str, rev: str) -> None:
    from cas.repo.layout import TAGS
    from cas.repo.repo import check_ref
    from cas.repo.revision import ALIASES, resolve
    from cas.repo.transaction import transact

    ref = f"{TAGS}{check_ref(name)}"
    if name in ALIASES:
        raise InvalidInputError(f"{name} cannot be a tag: it names what was committed last")
    repo = session.writing()
    id = resolve(repo, rev)

    def build(tx: "Transaction") -> None:
        if tx.ref(ref) not in (None, id):
            raise RefusedError(f"tag {name} is taken: delete it first with `cas tag -d {name}`")
        tx.set_ref(ref, id)

    transact(repo, f"tag {name}", build)
    session.emit({"name": name, "id": id}, [f"{name} {id.short}"])


def _delete(session: Session, name: str) -> None:
    from cas.repo.layout import TAGS
    from cas.repo.transaction import transact

    def build(tx: "Transaction") -> "CommitId":
        id = tx.ref(f"{TAGS}{name}")
        if id is None:
            raise NotFoundError("tag", name, "`cas tag` lists them")
        tx.set_ref(f"{TAGS}{name}", None)
        return id

    id = transact(session.writing(), f"delete tag {name}", build)
    session.emit({"name": name, "id": id}, [f"deleted {name}, which was {id.short}"])
