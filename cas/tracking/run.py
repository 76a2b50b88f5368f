"""A run as a training script sees it: what it logs and saves, and how it ends.

Nothing here ends a training loop: see `guard`.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from cas.errors import CasError, InvalidInputError, TrackingError
from cas.ids import CommitId
from cas.plain import human_share
from cas.repo.retain.retention import Keep
from cas.repo.transaction import Transaction
from cas.repo.trees import ingest
from cas.tracking.checkpoints.sharded import Sharded
from cas.tracking.checkpoints.strategy import Strategy
from cas.tracking.ends import ending
from cas.tracking.ends.ending import FAILED, FINISHED, INTERRUPTED
from cas.tracking.live import Live
from cas.tracking.numbers.monitor import monitor
from cas.tracking.privacy import redacted
from cas.tracking.privacy.secrets import scrub_file, scrub_text, valid_text
from cas.tracking.record import Items, run_volume
from cas.tracking.start import say
from cas.tracking.upkeep import after_run

SHOWN_VALUES: Final = 4
ENDS: Final = (FINISHED, FAILED, INTERRUPTED)


class Run(Sharded):
    """An execution being tracked."""

    def __init__(
        self, live: Live, keep: Keep | None = None, strategy: Strategy | None = None
    ) -> None:
        super().__init__(live, keep, strategy)
        self._commit: CommitId | None = None
        self._ending = threading.RLock()
        live.tell = say
        ending.watch(self._at_exit)
        if self._strategy.on_signal and not live.joined:
            self._emergency.install()

    def finish(self, status: str = FINISHED, message: str = "") -> CommitId | None:
        """End the run and return its commit; raise TrackingError when tracking failed on the way.

        `status` is finished, failed or interrupted. Called again, it does nothing.
        """
        if status not in ENDS:
            raise InvalidInputError(f"a run ends as {', '.join(ENDS)}, not {status!r}")
        return self._finish(status, message, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        status = ending.status_of(error)
        if error is None or status == FINISHED:
            self._finish(FINISHED, "", None)
            return
        with suppress(Exception):  # the user's own exception is the one to see
            self._save_last()
            self._finish(status, "", ending.told(error))

    def _finish(self, status: str, message: str, crash: str | None) -> CommitId | None:
        if os.getpid() != self._pid:
            return None
        with self._ending:
            if self._ended:
                return self._commit
            self._storing.settle()
            self._catch_up()
            self._gather(status)
            texts = self._files() | ({} if crash is None else {"traceback.txt": crash})
            with self._telling("message"):
                told = valid_text(scrub_text(message)[0])
            moment = self._live.moment(status, message=told)
            try:
                # Ctrl-C leaves the run open: the end of the interpreter then ends it.
                self._commit = self._live.finish(
                    moment, lambda tx: (_documents(tx, texts, self._live), {})
                )
            except Exception as error:
                self._leave()
                with suppress(Exception):
                    self._live.abandon()
                raise TrackingError(f"run {self.name} could not be committed: {error}") from error
            self._leave()
        self._tell(status)
        self._pass_on(self._commit)
        self._storing.ended()
        after_run(self.repo)
        if self._problems:
            count = self._failures
            calls = "1 call" if count == 1 else f"{count} calls"
            raise TrackingError(f"{calls} of run {self.name} failed; first: {self._problems[0]}")
        return self._commit

    def _leave(self) -> None:
        self._ended = True
        self._emergency.remove()
        ending.leave(self._at_exit)

    def _die(self, why: str) -> None:
        with suppress(Exception):  # it is dying of something else
            self._finish(INTERRUPTED, f"ended by {why}", None)

    def _at_exit(self, status: str, crash: str | None) -> None:
        try:
            if crash is not None:
                self._save_last()
            self._finish(status, "", crash)
        except CasError as error:
            say(f"error: {error}")

    def _tell(self, status: str) -> None:
        """Say how the run ended; it has, so that no failure here is one of the run's."""
        with suppress(Exception):
            if self._commit is None:
                return
            state = self._live.state
            shown = _shown(state.metrics.summary(), monitor(state.metrics.summary(), *state.chosen))
            volume = run_volume(self.repo, self._commit)
            head = f"{status} {self.name} {self._commit.short}"
            stored = f"stored {human_share(volume.stored_bytes, volume.given_bytes)}"
            say(" · ".join([head, *shown, stored]))


def _shown(summary: Mapping[str, Any], best_by: tuple[str, str] | None) -> list[str]:
    """Return the last values of a few metrics: what runs are judged by, then what came most."""

    def rank(name: str) -> tuple[bool, int, str]:
        return (best_by is None or name != best_by[0], -summary[name]["count"], name)

    return [
        f"{name} {summary[name]['last']:.4g}" for name in sorted(summary, key=rank)[:SHOWN_VALUES]
    ]


def _documents(tx: Transaction, texts: Mapping[str, str], live: Live) -> Items:
    clean = {name: scrub_file(valid_text(text).encode()) for name, text in texts.items()}
    taken = {name: found for name, (_, found) in clean.items()}
    items = redacted.at_the_end(tx, live.captured, taken, live.state.redacted)
    for name, (data, _) in clean.items():
        items[name] = ingest.file_entry(tx.writer, name.encode(), data)
    return items
