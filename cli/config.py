"""`cas config`."""

import click

from cas.errors import InvalidInputError, NotFoundError

from . import render
from .exits import printable
from .session import Session, json_option, pass_session


@click.command()
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Go back to the default of KEY.")
@json_option
@pass_session
def config(session: Session, key: str | None, value: str | None, *, unset: bool) -> None:
    """Show or change settings.

    Without KEY: all settings. With KEY: its value. With KEY and VALUE: set it.
    """
    from cas.repo import config as settings

    if unset and (key is None or value is not None):
        raise InvalidInputError("say which setting: `cas config --unset KEY`")
    repo = session.repo
    if key is None:
        known = settings.load(repo)
        rows = [
            (name, printable(known[name]) if name in known else "-", setting.about)
            for name, setting in settings.SETTINGS.items()
        ]
        session.emit(known, lambda: render.table(rows))
    elif value is None and not unset:
        found = settings.get(repo, key)
        if found is None:
            raise NotFoundError("setting", key, "it is not set")
        session.emit({key: found}, [printable(found)])
    else:
        session.emit({key: settings.change(repo, key, value)}, [])
