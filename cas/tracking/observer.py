"""The thread that looks at a run from outside: system metrics, its pace, and the rules of a watch.

Nothing of it costs a call of the training loop anything, and nothing that it finds is compared.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cas.plain import human_bytes
from cas.tracking.live import Live
from cas.tracking.numbers.pace import Pace, Progress
from cas.tracking.numbers.tap import Tap, in_order
from cas.tracking.watching.events import Event, event
from cas.tracking.watching.hush import Hush
from cas.tracking.watching.notify import Notifier
from cas.tracking.watching.rules import DiskFull, Finding, Stalled, column_rules, point_rules
from cas.tracking.watching.sampler import Sampler
from cas.tracking.watching.watch import Watch

LOOK_SECONDS: Final = 1.0
DISK_SECONDS: Final = 10.0  # between two looks at the disk
CALLS: Final = 20_000  # between two looks; of more, all but the cheapest rules see the last

MANY_POINTS: Final = 20_000_000  # of which the user is told what they take
SELDOM: Final = frozenset({"stalled", "disk_full"})  # seconds have to pass before they speak
TITLES: Final = {
    "not_finite": "not a finite number",
    "jump": "the loss jumped",
    "patience": "no improvement",
    "gap": "validation falls behind",
    "stalled": "nothing is logged",
    "disk_full": "the disk fills up",
}


class Observer:
    """Watches over one open run, from `start` to `halt`.

    `every` are the seconds between two samples of system metrics, None for none. Without `process`
    it is another program that is tracked, of which only the machine tells.
    """

    def __init__(
        self,
        live: Live,
        watch: Watch,
        *,
        every: float | None,
        total: int | None,
        clock: Callable[[], float],
        process: bool = True,
    ) -> None:
        self.samples = 0  # how many of them the program said that it has processed
        self.asked: set[str] = set()  # `checkpoint`, `stop`
        self._live = live
        self._watch = watch
        self._total = total
        self._clock = clock
        self._every = every
        self._sampler = Sampler(live.repo.path, machine=not live.joined, process=process)
        self._pace = Pace()
        self._column_rules, self._rules = column_rules(watch), point_rules(watch)
        self._stalled = Stalled(watch.stalled) if watch.stalled is not None else None
        full_in = None if live.joined else watch.disk_full  # the owner of a run tells of the disk
        self._disk = DiskFull(full_in) if full_in is not None else None
        self._hush = Hush()
        self._notifier = Notifier(live.state.run, watch.command, watch.webhook, live.tell)
        self._began = self._heard = time.monotonic()
        self._sampled = self._looked_at_disk = self._began
        self._known = (-1, 0)
        self._many = False
        self._lock = threading.Lock()
        self._halted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cas-observer", daemon=True)
        if self._rules or self._column_rules:
            live.state.metrics.tap = Tap()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def halt(self) -> None:
        """Look a last time, and end."""
        self._halted.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(Exception):
            self._see_points()
        self._live.state.metrics.tap = None
        self._notifier.close()
        self._sampler.close()

    def progress(self) -> Progress:
        """Return how far the run is and how fast it goes."""
        with self._lock:
            step = self._live.state.metrics.last_step
            return self._pace.look(time.monotonic(), step, self.samples, self._total)

    def announce(self, told: Event) -> None:
        """Write an event down, say it, and send it to whom it is to be told."""
        self._live.tell(f"{told.title}: {told.text}" if told.text else told.title)
        self._live.note(told.frame())
        self._notifier.send(told)

    def _work(self) -> None:
        with suppress(Exception):
            self._sampler.sample(self._began)  # rates are from here on
        while not self._halted.wait(LOOK_SECONDS):
            with suppress(Exception):  # it looks on: what fails once may be there the next time
                self._look(time.monotonic())

    def _look(self, now: float) -> None:
        self._see_points()
        self._see_size()
        told = self.progress()
        self._see_silence(now)
        if self._disk is not None and now - self._looked_at_disk >= DISK_SECONDS:
            self._looked_at_disk = now
            free = self._sampler.free_bytes()
            if free is not None:
                self._found(self._disk.tick(now, free))
        if self._every is not None and now - self._sampled >= self._every:
            self._sampled = now
            found = self._sampler.sample(now) | told.numbers()
            moment = self._clock()
            self._live.state.system.add(found, int(moment * 1e6), moment)

    def _see_points(self) -> None:
        """Show the rules what has come since the last look."""
        metrics = self._live.state.metrics
        tap = metrics.tap
        if tap is None:
            return
        metrics.take_in()  # what still waits
        chunks = tap.take()
        for rule in self._column_rules:
            for chunk in chunks:
                for name, values in zip(chunk.names, chunk.columns, strict=True):
                    for finding in rule.see_all(name, chunk.steps, values):
                        self._found(finding)
        for name, step, value in in_order(chunks, CALLS) if self._rules else ():
            for each in self._rules:
                self._found(each.see(name, step, value))

    def _see_size(self) -> None:
        """Say once that the points of a run grow into what a machine feels."""
        metrics = self._live.state.metrics
        if self._many or metrics.total < MANY_POINTS or metrics.kept < MANY_POINTS:
            return
        self._many = True
        size = human_bytes(24 * metrics.kept)
        self._live.tell(
            f"{metrics.kept:,} points take {size} of memory until the run ends: "
            "log_every=N keeps one in N steps, and the summary still counts all"
        )

    def _see_silence(self, now: float) -> None:
        metrics = self._live.state.metrics
        known = metrics.last_step, metrics.total
        if known != self._known:
            self._known, self._heard = known, now
        if self._stalled is not None:
            self._found(self._stalled.tick(now - self._heard, known[0]))

    def _found(self, finding: Finding | None) -> None:
        if finding is None:
            return
        rule = finding.rule
        self.asked |= {
            action for action in ("checkpoint", "stop") if rule in getattr(self._watch, action)
        }
        held = 0
        if rule not in SELDOM:
            again = self._hush.held((rule, finding.metric), time.monotonic())
            if again is None:
                return
            held = again
        text = finding.text + (f" ({held:,} more times since this was last told)" if held else "")
        metric, step = finding.metric, finding.step
        self.announce(event(self._clock(), rule, TITLES[rule], text, metric=metric, step=step))
