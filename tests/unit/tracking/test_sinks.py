"""Sinks get what a run logs, in order and whole, and never disturb it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import InvalidInputError
from cas.tracking import sinks


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
    from tests.support.runs import eventually

    monkeypatch.setattr(sinks, "EVERY_SECONDS", 0.01)
    kept = Kept()
    with cas.track("exp", name="r", sinks=[kept], system_metrics=False) as run:
        run.log({"loss": 1.0}, 0)
        eventually(lambda: [line for line in kept.lines if line["type"] == "point"], "a point")
        assert not kept.closed


def test_a_config_names_sinks(here: Path) -> None:
    with cas.track("exp", config={"sinks": "jsonl"}, system_metrics=False):
        pass
    assert '"end"' in (here / "cas.jsonl").read_text()


@pytest.mark.parametrize("told", ["tensorbord", {"kind": "x"}, {"path": "x"}, 5, [None]])
def test_what_is_no_sink_is_refused_before_anything_begins(here: Path, told: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"a sink has take\(\) and close\(\)"):
        cas.track("exp", sinks=told)
    assert not (here / ".cas").exists()
