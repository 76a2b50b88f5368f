"""`cas status`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from . import render
from .log import live_runs
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.repo import Repo


WHY = {
    "lost": ": its process is gone",
    "elsewhere": ": whether its process lives cannot be told from here",
}


@click.command()
@json_option
@pass_session
def status(session: Session) -> None:
    """Show where the repository is and how it does."""
    repo = session.repo
    live = live_runs(session)
    counts = _counts(repo)
    packs = repo.root.packs
    stored = sum(info.length for info in packs)
    session.emit(
        {
            "path": repo.path,
            "root": repo.root.seq,
            **counts,
            "packs": len(packs),
            "packs_bytes": stored,
            "open_runs": live,
        },
        lambda: _lines(repo, counts, stored, live),
    )


def _counts(repo: "Repo") -> dict[str, int]:
    from cas.repo import layout

    rooms = {
        "runs": layout.RUNS,
        "tags": layout.TAGS,
        "datasets": layout.DATASETS,
        "models": layout.MODELS,
        "reproductions": layout.REPRODUCTIONS,
        "payloads_kept": layout.HOLDS,
    }
    refs = repo.root.refs
    counts = {name: sum(ref.startswith(room) for ref in refs) for name, room in rooms.items()}
    # Each reproduction has a ref for every run of it, and one for its verdict.
    again = {ref.rpartition("/")[0] for ref in refs if ref.startswith(layout.REPRODUCTIONS)}
    return counts | {"reproductions": len(again)}


def _lines(
    repo: "Repo", counts: dict[str, int], stored: int, live: dict[str, str]
) -> Iterator[str]:
    head = repo.root.refs.get("heads/main")
    rows: list[tuple[str, Any]] = [
        ("repository:", str(repo.path)),
        (
            "stored:",
            f"{render.human_bytes(stored)} in {render.count(len(repo.root.packs), 'pack')}",
        ),
        ("HEAD:", head.short if head else "nothing committed yet"),
    ]
    rows += [(f"{name.replace('_', ' ')}:", f"{count:,}") for name, count in counts.items()]
    yield from render.table(rows)
    for ref, state in sorted(live.items()):
        yield f"{ref.partition('/')[2]} is {state}{WHY.get(state, '')}"
    if "lost" in live.values():
        yield (
            'started again with resume="auto", a lost run goes on from its newest checkpoint; '
            "the next command that writes commits it as crashed, and it can go on all the same"
        )
