"""What a run has to do with the world outside its loop: other ranks, its notebook, its end.

`cas.track` says once what there is; here it is used, and as the run ends.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cas.errors import CasError
from cas.ids import CommitId
from cas.tracking import card, notebook, ranks
from cas.tracking.annotated import Annotated
from cas.tracking.ends.ending import FINISHED
from cas.tracking.ranks import LINGER_SECONDS, Gathering, Launch
from cas.tracking.start import say

HASTE_SECONDS: Final = 2.0  # for other ranks, when this one has failed


@dataclass(frozen=True, slots=True)
class Around:
    """What surrounds a run: its launch, if it has several processes, and what to do at its end."""

    launch: Launch | None = None
    at_end: tuple[Callable[[CommitId], None], ...] = ()


ALONE: Final = Around()


class Outside(Annotated):
    """The part of a run that looks beyond its own process."""

    _around: Around = ALONE
    _gathering: Gathering | None = None

    @property
    def rank(self) -> int:
        """Which of the processes of its launch this one is; 0 for a program that runs alone."""
        return self._around.launch.rank if self._around.launch is not None else 0

    @property
    def world_size(self) -> int:
        """How many processes the program runs as."""
        return self._around.launch.size if self._around.launch is not None else 1

    @property
    def _sharers(self) -> int:
        """How many processes of its launch are on this host, as far as the launcher tells."""
        return self._around.launch.local if self._around.launch is not None else 1

    def _surround(self, around: Around) -> None:
        self._around = around
        if around.launch is not None and not self._live.joined:
            self._gathering = Gathering(self._live)

    def _repr_html_(self) -> str | None:
        """Return the run as a notebook shows it: status, params, last values and small curves."""
        try:
            state = self._live.state
            summary = state.metrics.summary()
            status = state.status or "running"
            return card.html(self.name, status, self.params, summary, self._curve)
        except Exception:  # then it is shown as any other value is
            return None

    def _curve(self, metric: str) -> Sequence[float]:
        values: Sequence[float] = self._live.state.metrics.points(metric)["values"]
        return values

    def _files(self) -> dict[str, str]:
        """Return what the run leaves as its code beside what was captured at its start."""
        return {} if self._live.joined else notebook.files()

    def _gather(self, status: str) -> None:
        """Take over what other ranks have logged, before the end is committed."""
        if self._gathering is not None:
            seconds = LINGER_SECONDS if status == FINISHED else HASTE_SECONDS
            for problem in self._gathering.take(seconds):
                say(f"warning: {problem}")

    def _pass_on(self, commit: CommitId | None) -> None:
        """Do what was asked for at the end; the run has ended, so that nothing here fails it."""
        notebook.ended(self)
        if self._gathering is not None:
            with suppress(CasError, OSError):
                ranks.forget(self.repo, self._live.state.uid)
        if commit is None:
            return
        for action in self._around.at_end:
            try:
                action(commit)
            except Exception as error:
                say(f"warning: {error}")
