"""`cas archive`."""

import click

from cas.errors import InvalidInputError

from .render import count
from .session import Session, json_option, pass_session


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN|EXP]...")
@click.option("--undo", "back", is_flag=True, help="Show them again.")
@json_option
@pass_session
def archive(session: Session, runs: tuple[str, ...], *, back: bool) -> None:
    """Hide runs from the lists that show all of them.

    Of an experiment all that there are now. Nothing else changes: `cas log --all` lists them, and
    their names and checkpoints stay as they are. Without a name, the archived runs are listed.
    """
    from cas.repo.layout import RUNS
    from cas.repo.retain import archive as archiving

    if not runs:
        if back:
            raise InvalidInputError("say which: `cas archive` lists the archived runs")
        refs = session.repo.root.refs
        names = sorted(ref.removeprefix(RUNS) for ref in archiving.archived(refs))
        session.emit({"archived": names}, names)
        return
    change = archiving.restore if back else archiving.archive
    names = list(change(session.writing(), runs))
    said = f"{'shown again' if back else 'archived'}: {count(len(names), 'run')}"
    session.emit({"brought_back" if back else "archived": names}, [said])
