"""`cas init`."""

import click

from .session import Session, json_option, pass_session


@click.command()
@click.option("--shared", is_flag=True, help="Let the group of its folder write to it.")
@json_option
@pass_session
def init(session: Session, *, shared: bool) -> None:
    """Make a new repository.

    It stands inside git's own folder where there is one, otherwise in `.cas`. An existing one stays
    as it is; with --shared it is opened to its group.
    """
    from cas.repo.layout import FORMAT

    made = not (session.new_place / FORMAT).exists()
    if shared and made:
        _share(session)  # before anything is in it
    repo = session.create() if made else session.repo
    if shared and not made:
        _share(session)
    said = "made a repository in" if made else "there is a repository in"
    lines = [f"{said} {repo.path}"]
    if shared:
        lines.append(f"its group writes to it too: {_group_of(repo.path.stat().st_gid)}")
    told = {"path": repo.path, "created": made} | ({"shared": True} if shared else {})
    session.emit(told, lines)


def _share(session: Session) -> None:
    from cas.repo.sharing import share

    done = share(session.new_place)
    if done.others:
        count, first = len(done.others), done.others[0]
        more = "" if count == 1 else f" and {count - 1} more"
        session.say(f"cas: {first}{more} belong to others, who have to run this themselves")
    if done.closed is not None:
        session.say(f"cas: nobody else can pass through {done.closed}: chmod g+x it")


def _group_of(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return f"gid {number}"
