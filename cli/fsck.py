"""`cas fsck`."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cas.errors import CasError, CorruptionError, InvalidInputError, RefusedError
from cas.plain import few

from . import exits, render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.backend.local import LocalBackend
    from cas.repo.check.fsck import Examined, Finding
    from cas.repo.check.losses import Loss
    from cas.repo.check.repair import Repaired, RepairPlan

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}
SHARE = "10"
SHOWN = 10  # paths of a commit, and commits, that are named; --json has all


@click.command()
@click.option("--full", is_flag=True, help="Read and check every stored byte too.")
@click.option(
    "--data",
    metavar="[PERCENT]",
    is_flag=False,
    flag_value=SHARE,
    help="Read the next PERCENT of all stored bytes; 10 when no number is given.",
)
@click.option("--repair", is_flag=True, help="Make whole again what can be.")
@click.option(
    "--from",
    "sources",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another copy of the repository, to repair from; may be repeated.",
)
@click.option("--accept-loss", is_flag=True, help="Give up what is lost, so that gc goes on.")
@click.option("--yes", is_flag=True, help="Do not ask before something is given up.")
@json_option
@pass_session
def fsck(
    session: Session,
    /,
    full: bool,
    data: str | None,
    repair: bool,
    **options: Any,
) -> int:
    r"""Check every promise that the format makes.

    Without an option: that everything is there and in order, which reads little. --data reads a
    part of the stored bytes as well, and the next run goes on where this one ended: 10 runs of
    10 percent read everything. --full reads everything at once. Nothing is changed.

    --repair reads everything too, then saves what can be saved. Records that are whole move from
    damaged packs to new ones, and what is left of the others to the folder lost-and-found. What
    is missing is looked for in packs that are not listed and in the copies that --from names.
    Nothing that can be read is taken away. What is lost is named; committing the same content
    again brings it back. --accept-loss gives up what is lost then, so that `cas gc` works again,
    and refs and roots that are gone though no operation says so.

    \b
    Exit codes:
      0  all is well, or was made so
      7  something that is kept is damaged or missing
      6  --accept-loss was not confirmed
    """
    from cas.repo.check import fsck as checker

    share = _percent(data)
    if share and full:
        raise InvalidInputError("--data reads a part and --full everything: give one of both")
    if options["sources"] and not repair:
        raise InvalidInputError("--from says where --repair may look: give --repair as well")
    if repair or options["accept_loss"]:
        return _Repairing(session, **options).run()
    found = _examined(session, full=full, data=share)
    told = _told(found) | {"full": full, "data_percent": float(share) if share else None}
    session.emit(told, lambda: _lines(session, found))
    if failure := checker.failure(found.report):
        raise failure
    return exits.OK


class _Repairing:
    """One repair: look, show, do, look again."""

    def __init__(
        self, session: Session, sources: tuple[Path, ...], accept_loss: bool, yes: bool
    ) -> None:
        self._session = session
        self._sources = sources
        self._accept = accept_loss
        self._yes = yes
        self._done: dict[str, Any] = {}

    def run(self) -> int:
        """Repair, and tell how it is in the end."""
        from cas.repo.check import fsck as checker

        session = self._session
        try:
            session.repo.refresh()
        except CorruptionError as error:
            self._go_on(error)
        if session.repo.skipped:
            self._settle()
        found = self._look()
        found = self._repair(found, give_up=False)
        if found.damage.lost_root:
            found = self._bring_back(found)
        if self._accept and found.report.errors:
            found = self._give_up(found)
        told = _told(found) | {"full": True, "data_percent": None, "repaired": self._done}
        session.emit(told, lambda: _lines(session, found))
        if failure := checker.failure(found.report):
            raise failure
        return exits.OK

    def _look(self) -> "Examined":
        return _examined(self._session, full=True)

    def _go_on(self, error: CorruptionError) -> None:
        """Go on behind a newest root that cannot be read."""
        from cas.repo.check import lostroots

        root = lostroots.go_on(self._session.repo)
        self._tell([f"repair: {error}: the repository goes on at root {root.seq}"])

    def _bring_back(self, found: "Examined") -> "Examined":
        """Give names to the commits that a lost root may have named."""
        from cas.repo.check import lostroots

        session = self._session
        back = lostroots.bring_back(session.repo)
        self._done["brought_back"] = back
        lines = (f"{name} is at {id.short}, which no root names" for name, id in back.items())
        self._tell([f"repair: {exits.printable(line)}" for line in sorted(lines)])
        return self._look() if back else found

    def _tell(self, lines: list[str]) -> None:
        if not self._session.json:
            self._session.emit(None, lines)

    def _settle(self) -> None:
        """Make one root of a copy that was taken while others wrote."""
        from cas.repo.check import copiedrepair

        session = self._session
        back = copiedrepair.settle(session.repo)
        session.say(f"cas: this copy goes on at root {session.repo.root.seq}")
        for name in sorted(back):
            left = session.repo.root.refs.get(name)
            where = f"is at {left.short}" if left else "is not in this copy"
            session.say(f"cas: {name} {where}: commit {back[name].short} has not come whole")
        self._done["went_back"] = sorted(back)

    def _repair(self, found: "Examined", *, give_up: bool) -> "Examined":
        from cas.repo.check import repair

        session = self._session
        plan = repair.plan(session.repo, found.damage, give_up=give_up)
        if plan.empty:
            return found
        if not session.json:
            session.emit(None, (*_findings(session, found), *_plan_lines(plan)))
        done = repair.execute(session.repo, plan, others=self._others(), progress=session.progress)
        self._note(done)
        return self._look()

    def _others(self) -> "list[LocalBackend]":
        from cas.backend.local import LocalBackend
        from cas.repo.place import find

        return [LocalBackend(find(path)) for path in self._sources]

    def _give_up(self, found: "Examined") -> "Examined":
        from cas.repo.check import repair

        session = self._session
        lost = len(found.damage.missing | found.damage.absent)
        others = found.damage.vanished or found.damage.lost_roots
        what = [render.count(lost, "object")] if lost or not others else []
        if found.damage.vanished:
            what.append(render.count(len(found.damage.vanished), "ref"))
        if found.damage.lost_roots:
            what.append(render.count(len(found.damage.lost_roots), "root"))
        if not session.json:
            session.emit(None, (*_findings(session, found), *_loss_lines(found.losses)))
        if not (self._yes or session.confirm(f"Give up {' and '.join(what)} for good?")):
            raise RefusedError("nothing was given up: --yes says that it shall be")
        while found.damage.helpless:
            found = self._repair(found, give_up=True)
        why = f"lost: given up by {session.who}"
        self._done["given_up"] = repair.accept(session.repo, found.damage, why)
        return self._look()

    def _note(self, done: "Repaired") -> None:
        from cas.plain import plain

        for name, value in plain(done).items():
            self._done[name] = self._done.get(name, 0) + value


def _examined(session: Session, *, full: bool, data: Fraction = Fraction(0)) -> "Examined":
    """Look at everything, the journals of runs that have not ended too."""
    from cas.repo.check import fsck as checker
    from cas.tracking.journals import journalcheck

    found = checker.examine(session.repo, full=full, data=data, progress=session.progress)
    with suppress(CasError):  # without a root, of which it was told
        journals = list(journalcheck.findings(session.repo))
        found.findings += journals
        found.report.errors += sum(finding.severity == checker.ERROR for finding in journals)
    return found


def _percent(text: str | None) -> Fraction:
    """Return the share to read; raise InvalidInputError unless it is above 0 and up to 100."""
    if text is None:
        return Fraction(0)
    try:
        share = Fraction(text.removesuffix("%"))
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 100:
        raise InvalidInputError(f"--data takes a number above 0 and up to 100, not {text!r}")
    return share


def _told(found: "Examined") -> dict[str, Any]:
    from cas.plain import plain

    checked = plain(found.report)
    checked["size_bytes"] = checked.pop("bytes")
    return {
        "ok": found.report.errors == 0,
        "findings": found.findings,
        "damaged_commits": found.losses,
        "checked": checked,
    }


def _lines(session: Session, found: "Examined") -> Iterator[str]:
    yield from _findings(session, found)
    yield from _loss_lines(found.losses)
    report = found.report
    checked = [
        render.count(report.objects, "object"),
        render.count(report.commits, "commit"),
        render.count(report.refs, "ref"),
        render.count(report.packs, "pack"),
        render.count(report.roots, "root"),
    ]
    end = render.count(report.errors, "error") if report.errors else "all is well"
    size = render.human_bytes(report.bytes)
    if report.read_bytes:
        size += f", {render.human_bytes(report.read_bytes)} read"
    if report.whole_commits < report.commits:
        yield f"{report.whole_commits:,} of {render.count(report.commits, 'commit')} are whole"
    yield f"checked {', '.join(checked)} ({size}): {end}"


def _findings(session: Session, found: "Examined") -> Iterator[str]:
    yield from (_line(session, finding) for finding in found.findings)


def _line(session: Session, finding: "Finding") -> str:
    severity = session.paint(finding.severity, fg=COLOURS[finding.severity])
    return f"{severity}: {exits.printable(f'{finding.what}: {finding.name}: {finding.detail}')}"


def _loss_lines(losses: "list[Loss]") -> Iterator[str]:
    for loss in losses[:SHOWN]:
        paths = few(loss.paths, SHOWN) or "all of it"
        yield exits.printable(f"not whole: {loss.name} ({loss.ref}): {paths}")
    if len(losses) > SHOWN:
        yield f"not whole: {render.count(len(losses) - SHOWN, 'commit')} more; --json names all"


def _plan_lines(plan: "RepairPlan") -> Iterator[str]:
    for pack in plan.packs:
        yield f"repair: {pack.key}: what is whole moves to a new pack"
    for pack in plan.gone:
        yield f"repair: {pack.key}: its file is not here; put it back from a copy, or use --from"
    for key in plan.indexes:
        yield f"repair: {key}: is made again"
    if plan.missing:
        yield f"repair: {render.count(len(plan.missing), 'missing object')}: looked for elsewhere"
