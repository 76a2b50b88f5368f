"""`cas whence`."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cas.errors import InvalidInputError

from . import exits, render
from .exits import printable
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.lineage.whence import Answer, Holder, Match

SHOWN: Final = 10
UNKNOWN: Final = 3  # as for everything else that is not found


@click.command()
@click.argument("file")
@json_option
@pass_session
def whence(session: Session, file: str) -> int:
    """Say which commits a file belongs to.

    A file is known by its content, wherever it lies. Weights (safetensors, .npy, .npz, torch.save,
    GGUF) are also known by their tensors, which are looked for in checkpoints and in files of any
    of these kinds; told is what has all of them, else what comes nearest. Exit code 3 when nothing
    is known.
    """
    from cas.lineage.whence import whence as ask
    from cas.plain import plain

    if not file:
        raise InvalidInputError("an empty path: name one file")
    answer = ask(session.repo, Path(file), progress=session.progress)
    told = {"known": answer.known} | plain(answer)
    for holder in [*told["exact"], *(one for match in told["matches"] for one in match["holders"])]:
        holder["time"] = render.iso(holder["time"]) or None
    session.emit(told, lambda: _lines(session, answer))
    if answer.known:
        return exits.OK
    lost = f" ({render.count(answer.pruned, 'pruned payload')} could not be looked at)"
    session.say(f"cas: nothing is known of {file} here{lost if answer.pruned else ''}")
    return UNKNOWN


def _lines(session: Session, answer: "Answer") -> Iterator[str]:
    yield f"{printable(answer.path)}: {_kind(answer)}, id {answer.id.short}"
    if answer.exact:
        yield "these very bytes are in"
        yield from _holders(session, answer.exact)
    for match in answer.matches:
        yield _told(answer, match)
        yield from _holders(session, match.holders)


def _kind(answer: "Answer") -> str:
    size = render.human_bytes(answer.size_bytes)
    if answer.tensors is None:
        return size
    kind = f"{size}, {answer.format} with {render.count(answer.tensors, 'tensor')}"
    if answer.not_compared:
        kind += f" ({answer.not_compared} not compared: not stored row by row)"
    return kind


def _told(answer: "Answer", match: "Match") -> str:
    total = (answer.tensors or 0) - answer.not_compared
    which = f"all {total} tensors are" if match.equal == total else ""
    if total == 1:
        which = "its one tensor is"
    among = "that" if total == 1 else "those"
    if match.tensors != match.equal:
        among = f"among the {match.tensors}"
    part = f" part {printable(match.part)} of" if match.part is not None else ""
    return f"{which or f'{match.equal} of {total} tensors are'} {among} of{part}"


def _holders(session: Session, holders: "Sequence[Holder]") -> Iterator[str]:
    # The commits of one run mostly hold the same: the newest stands for all.
    groups: dict[tuple[str, str], list[Holder]] = {}
    for one in holders:
        groups.setdefault((one.run or str(one.commit), one.path), []).append(one)
    rows = []
    for group in islice(groups.values(), SHOWN):
        newest, others = group[0], len(group) - 1
        rows.append(
            (
                session.paint(printable(newest.title), bold=True),
                session.paint(newest.commit.short, fg="yellow"),
                printable(newest.path),
                render.moment(session.now, newest.time, terminal=session.terminal),
                f"and {render.count(others, 'older commit')} of this run" if others else "",
            )
        )
    yield from (f"    {line}" for line in render.table(rows))
    if len(groups) > SHOWN:
        yield f"    and {len(groups) - SHOWN} more: `--json` has all"
