"""Sinks get what a run logs, in order and whole, and never disturb it."""

import json
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError
from cas.tracking.sinks import follower
from tests.support.runs import eventually


class Kept:
    """A sink that keeps what it gets, and fails after so many."""

    def __init__(self, fails_after: int = 10**9) -> None:
        self.lines: list[dict[str, Any]] = []
        self.closed = 0
        self._left = fails_after

    def take(self, line: Mapping[str, Any]) -> None:
        self._left -= 1
        if self._left < 0:
            raise OSError("the sink is full")
        self.lines.append(dict(line))

    def close(self) -> None:
        self.closed += 1


def test_a_sink_gets_all_that_is_logged_in_order(here: Path) -> None:
    kept = Kept()
    with cas.track("exp", name="r", params={"lr": 0.1}, sinks=[kept], system_metrics=False) as run:
        for step in range(1000):
            run.log({"loss": 1 / (step + 1)}, step)
        run.log_params({"late": 1})
    begin, first, *rest = kept.lines
    assert (begin["type"], begin["run"]) == ("begin", "exp/r")
    assert first == {"type": "params", "params": {"lr": 0.1}}
    points = [line for line in rest if line["type"] == "point"]
    assert [line["step"] for line in points] == list(range(1000))
    assert [line["value"] for line in points] == [1 / (step + 1) for step in range(1000)]
    assert {line["metric"] for line in points} == {"loss"}
    assert {"type": "params", "params": {"late": 1}} in rest
    assert rest[-1] == {"type": "end", "status": "finished"}
    assert kept.closed == 1


def test_a_file_of_json_lines_is_appended_to(here: Path) -> None:
    for name in ("a", "b"):
        given = {"kind": "jsonl", "path": "out/log.jsonl"}
        with cas.track("exp", name=name, sinks=[given], system_metrics=False) as run:
            run.log({"odd": math.nan, "big": math.inf}, 0)
    told = [json.loads(line) for line in (here / "out/log.jsonl").read_text().splitlines()]
    assert [line["run"] for line in told if line["type"] == "begin"] == ["exp/a", "exp/b"]
    values = {line["metric"]: line["value"] for line in told if line["type"] == "point"}
    assert values == {"odd": "NaN", "big": "Infinity"}


def test_a_sink_that_fails_is_told_of_once_and_disturbs_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = Kept(fails_after=3), Kept()
    with cas.track("exp", name="r", sinks=[bad, good], system_metrics=False) as run:
        for step in range(10):
            run.log({"loss": 1.0}, step)
    assert len(bad.lines) == 3
    assert bad.closed == 1
    assert good.lines[-1]["type"] == "end"
    assert capsys.readouterr().err.count("the sink is full") == 1


def test_what_is_logged_reaches_a_sink_while_the_run_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "EVERY_SECONDS", 0.01)
    kept = Kept()
    with cas.track("exp", name="r", sinks=[kept], system_metrics=False) as run:
        run.log({"loss": 1.0}, 0)
        eventually(lambda: [line for line in kept.lines if line["type"] == "point"], "a point")
        assert not kept.closed


class Hanging(Kept):
    """A sink that does not come back from one of its calls until it is let go."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self._at = at

    def take(self, line: Mapping[str, Any]) -> None:
        super().take(line)
        if len(self.lines) == self._at:
            self.go_on.wait(60)


@pytest.mark.parametrize("at", [1, 3])
def test_a_sink_that_hangs_holds_up_neither_loop_nor_end(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: int
) -> None:
    monkeypatch.setattr(follower, "STUCK_SECONDS", 0.2)
    bad, good = Hanging(at), Kept()
    with cas.track("exp", name="r", sinks=[bad, good], system_metrics=False) as run:
        for step in range(10):
            run.log({"loss": 1.0}, step)
    assert cas.open_run("exp/r").status == "finished"
    assert capsys.readouterr().err.count("the sink Hanging is too slow") == 1
    assert good.lines[-1]["type"] == "end"
    bad.go_on.set()
    eventually(lambda: bad.closed, "it closed")
    assert len(bad.lines) == at  # what it missed it does not get behind the run's back


def test_a_sink_that_is_slow_gets_its_time_but_not_all_of_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LINGER_SECONDS", 0.5)

    class Slow(Kept):
        def take(self, line: Mapping[str, Any]) -> None:
            super().take(line)
            time.sleep(0.05)

    slow = Slow()
    with cas.track("exp", name="r", sinks=[slow], system_metrics=False) as run:
        for step in range(1000):
            run.log({"loss": 1.0}, step)
    assert 3 < len(slow.lines) < 900


@pytest.mark.parametrize("error", [SystemExit("enough"), KeyboardInterrupt("enough")])
def test_whatever_a_sink_raises_it_is_alone_in_it(
    here: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    class Odd(Kept):
        def take(self, line: Mapping[str, Any]) -> None:
            raise error

    odd = Odd()
    with cas.track("exp", name="r", sinks=[odd], system_metrics=False) as run:
        run.log({"loss": 1.0})
    assert odd.closed
    assert "the sink Odd has failed and gets no more: enough" in capsys.readouterr().err


def test_no_call_of_a_sink_is_made_by_the_training_loop(here: Path) -> None:
    class Where(Kept):
        threads: ClassVar[set[int]] = set()

        def take(self, line: Mapping[str, Any]) -> None:
            self.threads.add(threading.get_ident())

        def close(self) -> None:
            self.threads.add(threading.get_ident())

    with cas.track("exp", name="r", sinks=[Where()], system_metrics=False) as run:
        run.log({"loss": 1.0})
    assert len(Where.threads) == 1
    assert threading.get_ident() not in Where.threads


class Wanting(Kept):
    """A sink that wants to have what was logged of some kinds."""

    contents = frozenset({"text", "image", "embedding"})


def test_what_is_logged_beside_numbers_comes_with_its_content(here: Path) -> None:
    wanting, plain = Wanting(), Kept()
    photo = np.zeros((2, 2), np.uint8)
    secret = "ghp_" + "a1B2c3D4e5F6" * 3
    with cas.track("exp", name="r", sinks=[wanting, plain], system_metrics=False) as run:
        run.log_text("said", f"token {secret}", step=3)
        run.log_text("long", "word " * 2000)
        run.log_image("photo", photo, caption="it")
        run.log_embedding("words", np.zeros((2, 3)))
        run.log_histogram("h", [1, 2, 3])
        run.add_metadata({"ticket": 7})
    told = {line["key"]: line for line in wanting.lines if line["type"] == "logged"}
    assert set(told) == {"said", "long", "photo", "words", "h"}
    assert told["said"]["step"] == 3
    assert secret not in str(wanting.lines)
    assert told["said"]["content"].startswith(b"token ")
    assert told["long"]["content"] == b"word " * 2000
    assert told["photo"]["content"] == cas.open_run("exp/r").logged("photo")[0].bytes()
    assert told["photo"]["options"]["caption"] == "it"
    assert "content" not in told["words"]  # it has no bytes: it is arrays
    assert "content" not in told["h"]  # not asked for
    assert {"type": "metadata", "metadata": {"ticket": 7}} in wanting.lines
    assert not [line for line in plain.lines if "content" in line]
    assert len([line for line in plain.lines if line["type"] == "logged"]) == 5


def test_texts_stand_in_a_file_of_json_lines(here: Path) -> None:
    with cas.track("exp", name="r", sinks=["jsonl"], system_metrics=False) as run:
        run.log_text("said", "hällo")
        run.log_image("photo", np.zeros((2, 2), np.uint8))
    lines = [json.loads(line) for line in (here / "cas.jsonl").read_text().splitlines()]
    told = {line["key"]: line for line in lines if line["type"] == "logged"}
    assert told["said"]["text"] == "hällo"
    assert (told["photo"]["format"], "text" in told["photo"]) == ("png", False)


def test_a_run_that_goes_on_says_from_where_and_nothing_twice(here: Path) -> None:
    first, second = Kept(), Kept()
    given: dict[str, Any] = {"name": "r", "resume": "auto", "system_metrics": False}
    run = cas.track("exp", sinks=[first], **given)
    run.log({"loss": 1.0}, step=4)
    run.save_checkpoint(model={"w": np.zeros(2)}, step=4, wait=True)
    run.log({"loss": 9.0}, step=5)
    run.finish("interrupted")
    with cas.track("exp", sinks=[second], **given) as run:
        run.log({"loss": 2.0}, step=5)
    assert "after" not in first.lines[0]
    assert (second.lines[0]["type"], second.lines[0]["after"]) == ("begin", 4)
    points = [(line["step"], line["value"]) for line in second.lines if line["type"] == "point"]
    assert points == [(5, 2.0)]


def test_a_config_names_sinks(here: Path) -> None:
    with cas.track("exp", config={"sinks": "jsonl"}, system_metrics=False):
        pass
    assert '"end"' in (here / "cas.jsonl").read_text()


@pytest.mark.parametrize("told", ["tensorbord", {"kind": "x"}, {"path": "x"}, 5, [None]])
def test_what_is_no_sink_is_refused_before_anything_begins(here: Path, told: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"a sink has take\(\) and close\(\)"):
        cas.track("exp", sinks=told)
    assert not (here / ".cas").exists()


def test_a_sink_in_words_has_no_other_words(here: Path) -> None:
    with pytest.raises(InvalidInputError, match="a sink has no 'folder': there are kind and path"):
        cas.track("exp", sinks=[{"kind": "jsonl", "folder": "x"}])
