"""How a run begins: in which repository, under which name, from which settings."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError, NotFoundError
from cas.objects.commit import Monitor
from cas.repo import config
from cas.repo.repo import Repo
from cas.repo.transaction import transact
from cas.tracking import live
from cas.tracking.captured import capture
from tests.support.runs import (
    opened,
    python,
    script,
)

Capture = pytest.CaptureFixture[str]


def test_a_second_run_does_not_make_the_repository_again(here: Path, capsys: Capture) -> None:
    cas.track("a").finish()
    capsys.readouterr()
    cas.track("a").finish()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_repository_is_made_beside_git_or_here_or_where_it_is_told(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cas.track("a").repo.path == here / ".cas"
    git = tmp_path / "work"
    (git / "deep").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(git)], check=True)
    monkeypatch.chdir(git / "deep")
    assert cas.track("a").repo.path == git / ".git" / "cas"
    assert cas.track("a", repo=tmp_path / "other").repo.path == tmp_path / "other" / ".cas"
    monkeypatch.setenv("CAS_DIR", str(tmp_path / "told"))
    assert cas.track("a").repo.path == tmp_path / "told" / ".cas"
    assert cas.track("a", repo=tmp_path / "other").repo.path == tmp_path / "other" / ".cas"


def test_names_default_to_two_words_and_a_taken_one_gets_a_number(here: Path) -> None:
    experiment, name = cas.track().name.split("/")
    assert experiment
    assert len(name.split("-")) == 2
    first, second = cas.track("a", name="x"), cas.track("a", name="x")
    assert (first.name, second.name) == ("a/x", "a/x-2")
    first.finish()
    assert [cas.track("a", name="x").name for _ in range(2)] == ["a/x-3", "a/x-4"]
    for wrong in ("x/y", "-x", "@"):
        with pytest.raises(InvalidInputError, match="cannot name a run"):
            cas.track("a", name=wrong)
    with pytest.raises(InvalidInputError, match="experiment"):
        cas.track("a b")


def test_two_words_that_are_taken_are_drawn_again_and_then_numbered(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cas.tracking.start.two_words", lambda _: "calm-owl")
    assert [cas.track("a").name for _ in range(3)] == ["a/calm-owl", "a/calm-owl-2", "a/calm-owl-3"]


def test_a_seed_makes_the_generators_equal(here: Path) -> None:
    import random

    drawn = []
    for _ in range(2):
        cas.track("a", seed=3).finish()
        drawn.append((random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]
    with pytest.raises(InvalidInputError, match="a seed is an integer"):
        cas.track("a", seed=-1)
    assert not [ref for ref in opened(here).root.refs if ref.startswith("open/")]


def test_many_processes_may_make_the_repository_at_once(here: Path) -> None:
    path = script(here, "with cas.track('a', name='x') as run:\n    run.log({'x': 1})\n")
    children = [
        subprocess.Popen([sys.executable, path], cwd=here, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [child.wait(60) for child in children] == [0] * 4
    refs = [ref for ref in opened(here).root.refs if not ref.startswith("holds/")]
    assert sorted(refs) == ["runs/a/x", "runs/a/x-2", "runs/a/x-3", "runs/a/x-4"]


def test_a_run_that_cannot_begin_is_an_error_at_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        cas.fork("nowhere")
    cas.track("a").finish()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.link", full)
        with pytest.raises(cas.CasError, match=r"[Nn]o space left"):
            cas.track("a")
    repo = Repo.open(here / ".cas")
    assert not [ref for ref in repo.root.refs if ref.startswith("open/")]
    assert list((repo.path / "journals").iterdir()) == []


def test_settings_say_experiment_author_and_monitor(here: Path) -> None:
    repo = cas.track("a").repo
    for key, value in {"experiment": "e", "author": "Ada", "monitor": "x", "mode": "max"}.items():
        config.change(repo, key, value)
    with cas.track() as run:
        run.log({"loss": 1})
        first = run.save_checkpoint(model={}).commit
        run.log({"x": 2})
    assert run.name.startswith("e/")
    assert first is not None
    assert repo.commit(first).monitor is None  # it is not there yet
    commit = repo.commit(repo.refresh().refs[f"runs/{run.name}"])
    assert commit.author == "Ada"
    assert commit.monitor == Monitor("x", "max", 2.0)
    (repo.path / "config.json").write_text("{")
    assert cas.track("b").name.startswith("b/")


@pytest.mark.parametrize("after", [False, True], ids=["before it is published", "after"])
def test_ctrl_c_while_a_run_begins_leaves_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    cas.track("a", name="x").finish()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(live, "transact", transact)
            if after:
                transact(*args, **kwargs)
        monkeypatch.setattr(live, "transact", transact)
        raise KeyboardInterrupt

    monkeypatch.setattr(live, "transact", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cas.track("a", name="y")
    repo = opened(here)
    assert [ref for ref in repo.root.refs if not ref.startswith("holds/")] == ["runs/a/x"]
    assert list((repo.path / "journals").iterdir()) == []
    assert cas.track("a", name="y").name == "a/y"


def test_a_name_that_is_taken_and_done_with_meanwhile_is_not_used_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cas.track("a").finish()

    def slowly(*args: Any) -> Any:
        monkeypatch.setattr("cas.tracking.start.code", capture.code)
        cas.track("a", name="x").finish()  # by somebody else, after our look at the refs
        return capture.code(*args)

    monkeypatch.setattr("cas.tracking.start.code", slowly)
    run = cas.track("a", name="x")
    run.log({"m": 1})
    run.finish()
    assert run.name == "a/x-2"
    assert opened(here).commit(opened(here).root.refs["runs/a/x-2"]).seq == 1


def test_what_only_a_collection_needs_is_not_loaded_at_the_start(here: Path) -> None:
    text = "cas.track('a', capture={'rng': False})\nprint(*sys.modules)\n"
    loaded = python(here, script(here, text)).stdout.split()
    assert "cas.tracking.run" in loaded
    assert {"numpy", "cas.repo.collect.gc", "torch"}.isdisjoint(loaded)
