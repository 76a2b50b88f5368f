"""A run is watched over from outside: what is found is written down, told, and never compared."""

import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cas.errors import InvalidInputError
from cas.ids import blob_id
from cas.repo.repo import Repo
from cas.tracking import observer as module
from cas.tracking.captured.capture import Start
from cas.tracking.ends.rescue import commit_lost, from_journals
from cas.tracking.execute import run_program
from cas.tracking.journals.journal import read_journal
from cas.tracking.measures import Measures, as_observing
from cas.tracking.numbers.curve import read_curves, read_system
from cas.tracking.program import Program
from cas.tracking.settings.config import in_effect
from cas.tracking.start import begin
from cas.tracking.watching.watch import Watch
from tests.support.builders import Clock
from tests.support.runs import eventually

Begin = Callable[..., Measures]


@pytest.fixture
def opened(here: Path) -> Repo:
    return Repo.create(here / ".cas", who="ada@host", clock=Clock())


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def begun(opened: Repo, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Begin runs that are looked at very often."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.005)
    runs: list[Measures] = []

    def start(watch: object = False, system: object = False, **more: Any) -> Measures:
        live = begin(opened, Start("a", f"x{len(runs)}"))
        live.tell = told.append
        run = Measures(live)
        options = {"total": None, "log_every": 1} | more
        run._observe(as_observing(watch, system, **options))  # type: ignore[arg-type]
        runs.append(run)
        return run

    yield start
    for run in runs:
        run._live._feed.halt()
        run._live._feed.close()


def events(run: Measures) -> list[dict[str, Any]]:
    return list(run._live.state.events)


def finished(run: Measures) -> Any:
    id = run._live.finish(run._live.moment("finished"), lambda tx: ({}, {}))
    assert id is not None
    return id


def test_a_rule_that_speaks_is_an_event_and_may_ask_for_more(
    begun: Begin, opened: Repo, told: list[str]
) -> None:
    run = begun(Watch(stop=("not_finite",), checkpoint=("not_finite", "jump")))
    run.log_metrics({"loss": 1.0}, step=0)
    assert run._observer is not None
    assert run._observer.asked == set()
    run.log_metrics({"loss": math.nan, "fine": 1.0}, step=7)
    eventually(lambda: run.should_stop)
    found = eventually(lambda: events(run))[0]
    assert (found["kind"], found["metric"], found["step"]) == ("not_finite", "loss", 7)
    assert told == ["not a finite number: loss is nan at step 7"]
    assert [run.should_checkpoint for _ in range(2)] == [True, False]  # it was asked for once
    id = finished(run)
    assert opened.document(opened.commit(id).tree, "events.json") == [found]


def test_what_comes_last_is_looked_at_too(begun: Begin, opened: Repo) -> None:
    run = begun(True)
    run.log_metrics({"loss": math.inf}, step=3)
    id = finished(run)
    document = opened.document(opened.commit(id).tree, "events.json")
    assert isinstance(document, list)
    assert [found["step"] for found in document] == [3]


def test_an_event_survives_the_death_of_its_run(begun: Begin, opened: Repo) -> None:
    run = begun(True, 0.01, log_every=10)
    for step in range(25):
        run.log_metrics({"loss": math.nan if step == 24 else 1.0}, step, step // 10)
    eventually(lambda: events(run))
    eventually(run._live.state.system.summary)
    run._live.flush()
    state = run._live.state
    path = run._live._feed._journal.path
    assert any(frame["t"] == "system" for frame in read_journal(path).frames)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    lost = from_journals(opened, state.run, state.ref, state.uid, [copy])
    assert commit_lost(opened, lost) == state.run
    tip = opened.refresh().refs[state.ref]
    assert opened.document(opened.commit(tip).tree, "events.json") == events(run)
    assert read_system(opened, tip)
    (loss,) = read_curves(opened, tip).values()
    assert loss.steps.tolist() == [0, 10, 20]
    assert loss.epochs is not None
    assert loss.epochs.count.tolist() == [10, 10, 5]
    summary = opened.document(opened.commit(tip).tree, "summary.json")
    assert summary["loss"]["count"] == 25  # type: ignore[index]


def _has_progress(run: Measures) -> bool:
    return "progress" in run._live.state.system.summary()


def test_system_metrics_are_in_no_series_that_is_compared(begun: Begin, opened: Repo) -> None:
    trees = []
    for system in (0.01, False):
        run = begun(False, system, total=10)
        for step in range(3):
            run.log_metrics({"loss": 0.5 * step}, step, samples=32)
        if system:
            eventually(partial(_has_progress, run))
        tree = opened.commit(finished(run)).tree
        entries = {entry.name: entry for entry in opened.entries(tree)}
        trees.append({name: entries[name].id for name in (b"metrics", b"summary.json")})
        assert (b"system" in entries) == bool(system)
        assert b"events.json" not in entries
    assert trees[0] == trees[1]


def test_progress_of_a_run(begun: Begin) -> None:
    run = begun(total=10)
    assert run.progress.share == 0
    run.log_metrics({"loss": 1.0}, step=4, samples=64)
    assert (run.progress.step, run.progress.share) == (4, 0.5)
    run.log_metrics({"loss": 1.0}, step=5, samples=64)
    assert eventually(lambda: run.progress.step_seconds) > 0
    assert eventually(lambda: run.progress.samples_per_second) > 0
    assert Measures(run._live).progress.step == 5


def test_silence_is_an_event(begun: Begin) -> None:
    run = begun(Watch(stalled=0.05))
    run.log_metrics({"loss": 1.0})
    assert eventually(lambda: events(run))[0]["kind"] == "stalled"
    run.log_metrics({"loss": 1.0})
    eventually(lambda: len(events(run)) == 2)


def test_a_disk_that_fills_up_is_an_event(begun: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISK_SECONDS", 0.0)
    monkeypatch.setattr("cas.tracking.watching.rules.DISK_LEAST", 0.02)
    run = begun(Watch())
    assert run._observer is not None
    left = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(run._observer._sampler, "free_bytes", lambda: float(next(left)))
    assert eventually(lambda: events(run))[0]["kind"] == "disk_full"


def test_points_that_grow_into_much_memory_are_told_once(
    begun: Begin, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY_POINTS", 100)
    thin, run = begun(log_every=10), begun()
    for step in range(101):
        thin.log_metrics({"loss": 1.0}, step)
    for step in range(150):
        run.log_metrics({"loss": 1.0}, step)
    eventually(lambda: told)
    for one in (thin, run):
        finished(one)
    assert [line.partition(":")[0] for line in told] == [
        "150 points take 3.6 kB of memory until the run ends"
    ]


def test_a_command_gets_the_event(begun: Begin, here: Path) -> None:
    code = "import sys; open('event.json', 'w').write(sys.stdin.read())"
    run = begun(Watch(command=(sys.executable, "-c", code)))
    run.alert("look", "at this")
    finished(run)  # it waits for what is on its way
    found = json.loads((here / "event.json").read_text())
    assert (found["run"], found["kind"], found["title"]) == (run.name, "alert", "look")


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    got: list[bytes]

    def do_GET(self) -> None:
        self.got.append(b"GET")
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", "/token")
        else:
            self.send_response(500 if self.path.startswith("/bad") else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.got = []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_is_called(begun: Begin, hook: str) -> None:
    run = begun(Watch(webhook=f"{hook}/token"))
    run.log_metrics({"loss": math.nan}, step=2)
    eventually(lambda: Hook.got)
    assert json.loads(Hook.got[0])["step"] == 2


def test_a_webhook_that_leads_elsewhere_is_not_followed(
    begun: Begin, hook: str, told: list[str]
) -> None:
    run = begun(Watch(webhook=f"{hook}/elsewhere"))
    run.alert("one")
    finished(run)
    assert b"GET" not in Hook.got
    assert len(Hook.got) == 1
    assert told[-1] == (
        "warning: an event was not sent: the webhook answered 302: give the address it leads to"
    )


def test_a_command_that_hangs_is_ended_with_all_it_has_begun(
    begun: Begin, here: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cas.tracking.watching.notify.COMMAND_SECONDS", 0.5)
    script = "sleep 60 & echo $! > pid; wait"
    run = begun(Watch(command=("sh", "-c", script)))
    run.alert("one")
    finished(run)
    assert told[-1] == "warning: an event was not sent: the command took too long"
    status = Path(f"/proc/{(here / 'pid').read_text().strip()}/status")
    eventually(lambda: not status.exists() or "State:\tZ" in status.read_text())


def test_a_metric_that_is_bad_at_every_other_step_is_told_a_few_times(begun: Begin) -> None:
    run = begun(Watch(stop="not_finite"))  # type: ignore[arg-type]
    for step in range(1000):
        run.log_metrics({"loss": math.nan if step % 2 else 1.0}, step=step)
    eventually(lambda: run.should_stop)
    finished(run)
    assert len(events(run)) == 1


@pytest.mark.parametrize("watch", ["webhook", "ends", "missing"])
def test_what_cannot_be_sent_is_told_once_without_its_secrets(
    begun: Begin, hook: str, told: list[str], watch: str
) -> None:
    ends = (sys.executable, "-c", "raise SystemExit(3)", "geheim")
    run = begun(
        {
            "webhook": Watch(webhook=f"{hook}/bad?geheim"),
            "ends": Watch(command=ends),
            "missing": Watch(command=("geheim",)),
        }[watch]
    )
    run.alert("one")
    run.alert("two")
    finished(run)
    warnings = [line for line in told if line.startswith("warning")]
    assert len(warnings) == 1
    assert "an event was not sent: the " in warnings[0]
    assert "geheim" not in warnings[0]
    assert len(events(run)) == 2


def test_secrets_in_an_alert_are_taken_out(begun: Begin) -> None:
    run = begun()
    run.alert("token", "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345")
    assert "ghp_" not in json.dumps(events(run))


def test_a_metric_made_of_others(begun: Begin, told: list[str]) -> None:
    run = begun()
    run.define_metric("ppl", lambda m: math.exp(m["loss"]), of=["loss"])
    run.define_metric("half", lambda m: m["ppl"] / 2, of=["ppl"])
    run.define_metric("bad", lambda m: 1 / 0, of=["acc"])
    run.log_metrics({"loss": 0.0}, step=0)
    run.log_metrics({"acc": 0.5}, step=1)
    summary = run._live.state.metrics.summary()
    assert {name: one["last"] for name, one in summary.items()} == {
        "acc": 0.5, "half": 0.5, "loss": 0.0, "ppl": 1.0,
    }  # fmt: skip
    assert len(run._problems) == 1


def test_a_curve_of_an_open_run(begun: Begin) -> None:
    run = begun()
    for step in range(5):
        run.log_metrics({"loss": float(step)}, step, epoch=step / 2)
    curve = run.curve("loss")
    assert curve is not None
    assert curve.best("max") == (4, 4.0)
    assert curve.epochs is not None
    assert curve.epochs.mean.tolist() == [0.5, 2.5, 4.0]
    assert run.curve("nothing") is None
    assert len(run._problems) == 1


def test_metrics_of_a_file_come_in(begun: Begin, here: Path, opened: Repo) -> None:
    (here / "m.csv").write_text("metric,step,value\nloss,0,1.0\nloss,1,0.5\n")
    run = begun()
    run.log_metrics({"own": 1.0}, step=0)
    run.import_metrics("m.csv")
    found = read_curves(opened, finished(run))
    assert {name: len(curve) for name, curve in found.items()} == {"loss": 2, "own": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"total": 0},
        {"total": 1.5},
        {"log_every": 0},
        {"log_every": {"loss": True}},
        {"system": -1},
        {"system": "often"},
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused_before_the_run_begins(options: dict[str, Any]) -> None:
    given = {"watch": None, "system_metrics": options.pop("system", True), "total": None}
    with pytest.raises(InvalidInputError):
        as_observing(**{**given, "log_every": 1, **options})


def test_frames_of_others_do_not_mix_with_points_that_wait(begun: Begin, opened: Repo) -> None:
    run, other = begun(), begun()
    other.log_metrics({"loss": 5.0}, step=50)
    frame = other._live.state.metrics.drain()
    assert frame is not None
    run._live._feed.halt()
    for step in range(3):
        run.log_metrics({"loss": float(step)}, step)
    run._live.note(frame)
    run._live.flush()
    journal = read_journal(run._live._feed._journal.path)
    again = type(run._live.state)("a/x", "runs/a/x", b"u" * 16)
    again.replay(journal.frames)
    logs = again.metrics, run._live.state.metrics
    written, known = (log.series(None, blob_id) for log in logs)
    assert written == known


def test_an_event_goes_out_while_the_interpreter_ends(
    begun: Begin, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; open('event.json', 'w').write(sys.stdin.read())"
    run = begun(Watch(command=(sys.executable, "-c", code)))

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        run.alert("late")
    assert json.loads((here / "event.json").read_text())["title"] == "late"


def test_a_program_in_cas_run_is_watched_over_from_outside(
    here: Path, opened: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    config = in_effect({"system_metrics": 0.01}, "test")
    program = Program((sys.executable, "-c", "import time; time.sleep(0.3)"))
    outcome = run_program(opened, program, "a", here, config=config)
    assert outcome.commit is not None
    found = read_system(opened, outcome.commit)
    assert "memory_percent" in found
    assert not [name for name in found if name.startswith("process")]
