"""`cas export`."""

from pathlib import Path

import click

from .session import Session, pass_session


@click.command()
@click.argument("rev", default="HEAD")
@click.option(
    "--to",
    "form",
    type=click.Choice(["json", "yaml"]),
    help="The form; by the name of FILE, else json.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of standard output.")
@pass_session
def export(session: Session, rev: str, form: str | None, output: str | None) -> None:
    """Write the whole record of REV as one document.

    Params, metrics with all their points, environment, code state, labels, notes and checkpoints;
    of files their paths, sizes and ids. The keys are described in `docs/format/export.md`.
    """
    from cas.repo.revision import resolve
    from cas.tracking.export import dumps, record, save

    repo = session.repo
    told = record(repo, resolve(repo, rev))
    suffix = Path(output or "").suffix.lower()
    text = dumps(told, form or ("yaml" if suffix in {".yaml", ".yml"} else "json"))
    if output is None:
        session.emit(told, [text.removesuffix("\n")])
    else:
        save(Path(output), text)
