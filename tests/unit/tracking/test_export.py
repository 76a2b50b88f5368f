"""The whole record of a run as one document."""

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import cas
from cas.errors import InvalidInputError
from cas.ids import CommitId
from cas.repo.repo import Repo
from cas.repo.revision import resolve
from cas.tracking.export import dumps, record, save, write
from cas.tracking.labels import label, note
from cas.tracking.settings import yamlfile
from tests.support.runs import cas as command
from tests.support.runs import python

PAGE = Path(__file__).parents[3] / "docs/format/export.md"


@pytest.fixture
def told(here: Path) -> dict[str, Any]:
    """The record of a run that has a bit of everything and failed."""
    (here / "out.txt").write_text("result")
    with suppress(ZeroDivisionError), cas.track("exp", name="r", seed=3, labels=["a"]) as run:
        run.log_params({"lr": 0.5, "layers": [1, 2]})
        for step in range(4):
            run.log({"loss": 1 / (step + 1), "odd": math.nan}, step)
        run.log_artifact("out.txt")
        run.log_text("note", "hello", step=1)
        run.save_checkpoint(extra={"x": 1}, step=3, epoch=1, metrics={"val": 0.25})
        raise ZeroDivisionError
    repo = Repo.open(here / ".cas")
    id = resolve(repo, "exp/r")
    label(repo, id, ["late"])
    note(repo, id, "diverged")
    return record(repo, id)


def test_all_that_a_run_was_told_is_there(told: dict[str, Any]) -> None:
    assert (told["format"], told["version"], told["kind"]) == ("cas record", 1, "run")
    assert (told["experiment"], told["run"], told["status"]) == ("exp", "r", "failed")
    assert told["params"] == {"lr": 0.5, "layers": [1, 2]}
    assert (told["labels"], told["notes"]) == (["a", "late"], "diverged")
    assert told["seeds"] == {"seed": 3}
    assert told["metrics"]["loss"]["steps"] == [0, 1, 2, 3]
    assert told["metrics"]["loss"]["values"] == [1.0, 0.5, 1 / 3, 0.25]
    assert told["metrics"]["odd"]["values"] == ["NaN"] * 4
    assert told["summary"]["loss"]["min"] == 0.25
    assert told["logged"] == {"text": {"note": 1}}
    assert "ZeroDivisionError" in told["traceback"]
    (checkpoint,) = told["checkpoints"]
    assert (checkpoint["step"], checkpoint["epoch"], checkpoint["kept"]) == (3, 1, True)
    assert checkpoint["metrics"] == {"val": 0.25}
    (artifact,) = told["artifacts"]
    assert (artifact["path"], artifact["size"], artifact["part"]) == ("out.txt", 6, "record")


def test_both_forms_say_the_same(told: dict[str, Any]) -> None:
    as_json = dumps(told, "json")
    assert "NaN" in as_json
    assert json.loads(as_json, parse_constant=pytest.fail) == told
    assert yamlfile.read(dumps(told, "yaml"), "x") == told
    with pytest.raises(InvalidInputError, match="json or yaml, not 'xml'"):
        dumps(told, "xml")


def test_every_key_is_described(told: dict[str, Any]) -> None:
    described = set(re.findall(r"^\| `([a-z_]+)`", PAGE.read_text(), re.MULTILINE))
    assert not told.keys() - described


def test_a_file_is_replaced_as_a_whole(told: dict[str, Any], here: Path) -> None:
    repo = Repo.open(here / ".cas")
    id = resolve(repo, "exp/r")
    path = write(repo, id, here / "out", "yaml")
    assert path == here / "out/exp/r.yaml"
    assert yamlfile.read(path.read_text(), "x") == told
    assert write(repo, id, here / "out", "yaml") == path
    assert list(path.parent.iterdir()) == [path]
    (here / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"cannot write .*file/exp/r\.json"):
        write(repo, id, here / "file", "json")


def test_a_folder_is_no_file_to_write(told: dict[str, Any], here: Path) -> None:
    for place in (Path(), Path("/"), here):
        with pytest.raises(InvalidInputError, match="it is a folder"):
            save(place, "x")
    assert list(here.glob(".*-????????")) == []


def test_the_command_writes_the_same(told: dict[str, Any], here: Path) -> None:
    assert json.loads(command(here, "export", "exp/r").stdout) == told
    command(here, "export", "exp/r", "-o", "r.yaml")
    assert yamlfile.read((here / "r.yaml").read_text(), "x") == told
    shown = command(here, "export", "exp/r", "--to", "yaml").stdout
    assert yamlfile.read(shown, "x") == told
    command(here, "export", "nope", code=3)


def test_a_config_asks_for_it_at_the_end(here: Path) -> None:
    words = {"experiment": "exp", "name": "r", "export": {"to": "yaml", "folder": "out"}}
    with cas.track(config=words) as run:
        run.log({"loss": 0.5})
    told = yamlfile.read((here / "out/exp/r.yaml").read_text(), "x")
    assert (told["status"], told["summary"]["loss"]["last"]) == ("finished", 0.5)
    assert told["config"]["export"] == words["export"]
    (here / "out").rename(here / "kept")
    (here / "out").write_text("in the way")
    with cas.track(config=words | {"name": "s"}):
        pass  # what cannot be written is told of, and no failure of the run


def test_cas_run_exports_too(here: Path) -> None:
    (here / "exp.json").write_text('{"name": "r", "export": {"to": "json"}}')
    command(here, "run", "--config", "exp.json", "-e", "exp", "--", "true")
    told = json.loads((here / "cas-export/exp/r.json").read_text())
    assert (told["command"]["argv"], told["status"]) == (["true"], "finished")


def test_what_a_config_has_written_is_no_code_of_the_next_run(here: Path) -> None:
    words = {
        "experiment": "e",
        "export": {"to": "json", "folder": "out/records"},
        "sinks": ["jsonl", {"kind": "jsonl", "path": "out/points.json"}],
    }
    (here / "out").mkdir()
    (here / "out" / "kept.py").write_text("x = 1")
    script = f"import cas\nwith cas.track(config={words!r}) as run: run.log({{'a': 1}})\n"
    (here / "train.py").write_text(script)
    for _ in range(2):
        python(here, "train.py")
    assert (here / "cas.jsonl").exists()
    assert len(list((here / "out" / "records" / "e").iterdir())) == 2
    repo = Repo.open(here / ".cas")
    codes = {repo.lookup(repo.commit(id).tree, b"code") for id in _ends(repo)}
    assert len(codes) == 1
    (code,) = codes
    assert code is not None
    names = [entry.name for entry in repo.entries(code.id)]
    assert names == [b"out", b"train.py"]


def _ends(repo: Repo) -> list[CommitId]:
    return [id for ref, id in repo.root.refs.items() if ref.startswith("runs/")]
