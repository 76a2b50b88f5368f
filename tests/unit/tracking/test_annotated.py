"""What an open run says of itself for people."""

from pathlib import Path

import pytest

import cas
from cas.errors import TrackingError
from cas.repo import annotations
from cas.repo.repo import Repo
from cas.repo.revision import resolve
from cas.tracking.labels import label


def test_an_open_run_is_labelled_from_inside_and_outside(here: Path) -> None:
    with cas.track("exp", name="r", labels=["begun"], tags=["tagged"], notes="why") as run:
        begun = run.labels
        assert begun == ("begun", "tagged")
        run.add_label("later", "twice")
        run.add_tag("twice")
        other = Repo.open(here / ".cas")
        label(other, resolve(other, "open/exp/r"), ["outside"], ["begun"])
        run.notes("seen", append=True)
        run.remove_label("tagged", "never")
        run.repo.refresh()
        assert run.labels == ("later", "outside", "twice")
        run.save_checkpoint(extra={"x": 1}, step=1, wait=True)
    repo = Repo.open(here / ".cas")
    said = annotations.of_run(repo, repo.commit(resolve(repo, "exp/r")))
    assert (said.labels, said.notes) == (("later", "outside", "twice"), "why\nseen")
    began = repo.document(repo.commit(resolve(repo, "exp/r")).tree, "notes.json")
    assert began == {"labels": ["begun", "tagged"], "group": None, "notes": "why"}


def test_a_run_of_which_nothing_is_said_has_no_annotation(here: Path) -> None:
    with cas.track("exp", name="r") as run:
        assert run.labels == ()
    assert not [ref for ref in Repo.open(here / ".cas").root.refs if ref.startswith("annotations")]


def test_a_wrong_label_never_ends_a_training_loop(here: Path) -> None:
    run = cas.track("exp", name="r")
    run.add_label("")
    run.log({"loss": 1.0})
    with pytest.raises(TrackingError, match="a label has 1 to 100 characters"):
        run.finish()


def test_what_cas_run_was_told_and_the_program_said_both_count(here: Path) -> None:
    from tests.support.runs import cas as command
    from tests.support.runs import opened, script

    script(here, "import cas\nwith cas.track(labels=['inside']) as run:\n    run.log({'a': 1})\n")
    (here / "c.json").write_text('{"experiment": "exp", "name": "r", "labels": ["outside"]}')
    import sys

    command(here, "run", "--config", "c.json", "--", sys.executable, "train.py")
    repo = opened(here)
    said = annotations.of_run(repo, repo.commit(resolve(repo, "exp/r")))
    assert said.labels == ("inside", "outside")
