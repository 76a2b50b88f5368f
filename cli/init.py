"""`cas init`."""

import click

from .session import Session, json_option, pass_session


@click.command()
@json_option
@pass_session
def init(session: Session) -> None:
    """Make a new repository.

    It stands inside git's own folder where there is one, otherwise in `.cas`. An existing one stays
    as it is.
    """
    from cas.repo.layout import FORMAT

    made = not (session.new_place / FORMAT).exists()
    repo = session.create() if made else session.repo
    said = "made a repository in" if made else "there is a repository in"
    session.emit({"path": repo.path, "created": made}, [f"{said} {repo.path}"])
