"""Metrics that were made elsewhere, as a run of their own."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cas.errors import InvalidInputError
from cas.ids import CommitId
from cas.repo.repo import Repo
from cas.tracking.captured.capture import Start
from cas.tracking.ends.ending import FINISHED
from cas.tracking.start import begin

IMPORTED: Final = "imported"  # the label of such a run


def import_run(
    repo: Repo, named: str, frames: Iterable[Mapping[str, Any]]
) -> tuple[str, CommitId | None]:
    """Commit a finished run of frames of points; return its name and commit.

    `named` is EXPERIMENT/NAME or an experiment alone; a name that is taken gets a number.
    """
    experiment, _, name = named.rpartition("/")
    if not named.strip("/"):
        raise InvalidInputError("an imported run is named EXPERIMENT/NAME")
    if not experiment:
        experiment, name = name, ""
    live = begin(repo, Start(experiment, name or None, {}, labels=(IMPORTED,)))
    try:
        for frame in frames:
            live.note(frame)
        return live.state.run, live.finish(live.moment(FINISHED), lambda tx: ({}, {}))
    except BaseException:
        live.discard()
        raise
