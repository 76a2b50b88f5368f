"""`cas run --config`: what the program gets, what is recorded, and what is reproduced."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import CAS, cas, python, reproduced

CONFIG = """\
experiment: digits
labels: [baseline]
retention: {last: 2}
params:
  training: {lr: 1e-3, steps: 10}
environments:
  testing: {params: {training: {steps: 1}}}
"""
SCRIPT = """\
import json, os, sys
import cas
known = cas.config("other.yaml")
with cas.track(config="other.yaml") as run:
    run.log({"lr": known["training.lr"], "steps": known["training.steps"]}, step=0)
told = json.load(open(os.environ["CAS_CONFIG"]))
assert told["params"]["training"] == known.params["training"], told
print(known["training.lr"], known["training.steps"])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (folder / "exp.yaml").write_text(CONFIG)
    (folder / "train.py").write_text(SCRIPT)
    (folder / "show.sh").write_text("#!/bin/sh\ncat $CAS_CONFIG\n")
    (folder / "show.sh").chmod(0o755)
    return folder


def shown(here: Path, rev: str = "digits@latest") -> Any:
    return json.loads(cas(here, "show", rev, "--json").stdout)


def test_a_program_gets_the_config_and_the_run_records_it(here: Path) -> None:
    train = ("--", sys.executable, "train.py")
    done = cas(here, "run", "--config", "exp.yaml", "-p", "training.lr=1e-4", *train)
    assert done.stdout == "0.0001 10\n"
    told = shown(here)
    assert told["params"] == {"training": {"lr": 0.0001, "steps": 10}}
    assert told["summary"]["lr"]["last"] == 0.0001
    assert told["config"]["params"]["training"]["lr"] == 0.0001
    assert told["config"]["retention"] == {"last": 2}


def test_an_environment_is_chosen_by_name(here: Path) -> None:
    done = cas(here, "run", "--config", "exp.yaml", "--env", "testing", "--", "./show.sh")
    assert '"steps": 1' in done.stdout
    told = shown(here)["config"]
    assert told["environment"] == "testing"
    assert "environments" not in told
    done = cas(here, "run", "--config", "exp.yaml", "--env", "nope", "--", "./show.sh", code=2)
    assert "no environment 'nope'; there are testing" in done.stderr


def test_what_the_program_is_told_stands_over_the_config(here: Path) -> None:
    options = ("run", "--config", "exp.yaml", "-e", "other", "-p", "a.b=1")
    cas(here, *options, "--", "./show.sh", "--model", "cnn")
    params = shown(here, "other@latest")["params"]
    assert params == {"training": {"lr": 0.001, "steps": 10}, "model": "cnn", "a": {"b": 1}}


def test_a_wrong_config_starts_nothing(here: Path) -> None:
    (here / "exp.yaml").write_text("experimnt: x\n")
    done = cas(here, "run", "--config", "exp.yaml", "--", "./show.sh", code=2)
    assert "exp.yaml line 1: no key 'experimnt'; there are experiment, name" in done.stderr
    assert done.stdout == ""
    cas(here, "run", "--config", "nope.yaml", "--", "./show.sh", code=3)
    assert not (here / ".cas").exists()


def test_a_run_inside_a_run_follows_what_it_is_told_itself(here: Path) -> None:
    (here / "inner.yaml").write_text("experiment: inner\nparams: {a: 1}\n")
    inner = f"{CAS} run --config inner.yaml -p a=2 -- ./show.sh"
    done = cas(here, "run", "--config", "exp.yaml", "--", "sh", "-c", inner)
    assert '"a": 2' in done.stdout
    assert shown(here, "inner@latest")["config"]["params"] == {"a": 2}
    inner = f"{CAS} run -e follows -p training.lr=7 -- ./show.sh"
    done = cas(here, "run", "--config", "exp.yaml", "--", "sh", "-c", inner)
    assert '"lr": 7' in done.stdout
    assert shown(here, "follows@latest")["params"]["training"] == {"lr": 7, "steps": 10}


@pytest.mark.slow
def test_a_reproduction_follows_the_recorded_config(here: Path) -> None:
    train = ("--", sys.executable, "train.py")
    cas(here, "run", "--config", "exp.yaml", "-p", "training.lr=1e-4", *train)
    (here / "exp.yaml").write_text("experiment: changed\n")
    verdict, _ = reproduced(here)
    assert verdict.verdict == "identical", verdict


@pytest.mark.slow
def test_a_reproduced_script_follows_it_too(here: Path) -> None:
    (here / "other.yaml").write_text(CONFIG)
    (here / "train.py").write_text(SCRIPT.replace('os.environ["CAS_CONFIG"]', '"told.json"'))
    (here / "told.json").write_text('{"params": {"training": {"lr": 0.001, "steps": 1}}}')
    python(here, "train.py", env={"CAS_ENV": "testing"})
    (here / "other.yaml").unlink()
    verdict, _ = reproduced(here)
    assert verdict.verdict == "identical", verdict
