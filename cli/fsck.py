"""`cas fsck`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from . import exits, render
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.repo.fsck import Finding, Report

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command()
@click.option("--full", is_flag=True, help="Read and check every stored byte too.")
@json_option
@pass_session
def fsck(session: Session, full: bool) -> None:
    """Check every promise that the format makes.

    Changes nothing. Ends with exit code 7 when something kept is damaged or missing.
    """
    from cas.plain import plain
    from cas.repo import fsck as checker

    report = checker.Report()
    findings = checker.check(session.repo, full=full, report=report, progress=session.progress)
    if session.json:
        found = list(findings)
        checked = plain(report)
        checked["size_bytes"] = checked.pop("bytes")
        value = {"ok": report.errors == 0, "full": full, "findings": found, "checked": checked}
        session.emit(value, ())
    else:
        session.emit(None, _lines(session, findings, report))
    if failure := checker.failure(report):
        raise failure


def _lines(session: Session, findings: "Iterator[Finding]", report: "Report") -> Iterator[str]:
    for finding in findings:
        severity = session.paint(finding.severity, fg=COLOURS[finding.severity])
        told = exits.printable(f"{finding.what}: {finding.name}: {finding.detail}")
        yield f"{severity}: {told}"
    checked = [
        render.count(report.objects, "object"),
        render.count(report.commits, "commit"),
        render.count(report.refs, "ref"),
        render.count(report.packs, "pack"),
        render.count(report.roots, "root"),
    ]
    end = render.count(report.errors, "error") if report.errors else "all is well"
    yield f"checked {', '.join(checked)} ({render.human_bytes(report.bytes)}): {end}"
