"""What a run is made from and what it makes, in memory and on disk."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cas
from cas.errors import TrackingError
from cas.objects.commit import Commit
from tests.support.runs import only_run, opened


def model(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(30, 20)


def test_an_object_in_memory_is_an_artifact(here: Path) -> None:
    arrays: dict[str, Any] = {"w": np.arange(100.0), "b": [np.float32(1), (2, 3)]}
    with cas.track("a", name="x") as run:
        run.log_artifact({"b": [1, None, 0.5], "a": {"c": "d"}}, "config.json")
        run.log_artifact(b"bytes", "raw/x.bin")
        run.log_artifact(bytearray(b"more"), "y.bin")
        run.log_artifact(io.StringIO("text"), "t.txt")
        run.log_artifact(io.BytesIO(b"io"), "io.bin")
        with open(here / "f.bin", "wb+") as file:
            file.write(b"skipped read")
        with open(here / "f.bin", "rb") as opened:
            opened.seek(8)
            run.log_artifact(opened, "f.bin")
        run.log_artifact(pd.DataFrame({"n": [1, 2], "s": ["a", "b"]}), "frame.parquet")
        run.log_artifact(arrays, "arrays")
        run.log_artifact(torch.arange(50), "tensor")
    view = cas.open_run("a/x")
    assert view.artifact("config.json") == (
        b'{\n "a": {\n  "c": "d"\n },\n "b": [\n  1,\n  null,\n  0.5\n ]\n}\n'
    )
    assert view.artifact("raw/x.bin") == b"bytes"
    assert view.artifact("y.bin") == b"more"
    assert view.artifact("t.txt") == b"text"
    assert view.artifact("io.bin") == b"io"
    assert view.artifact("f.bin") == b"read"
    frame = pd.read_parquet(io.BytesIO(view.artifact("frame.parquet")))
    assert frame.to_dict("list") == {"n": [1, 2], "s": ["a", "b"]}
    assert np.array_equal(view.artifact("arrays")["w"], arrays["w"])
    assert view.artifact("arrays")["b"] == arrays["b"]
    assert torch.equal(view.artifact("tensor"), torch.arange(50))


def test_an_object_without_a_name_or_a_form_is_refused(here: Path) -> None:
    run = cas.track("a", name="x")
    run.log_artifact(b"x")
    run.log_artifact({1, 2}, "set")
    run.log_artifact({"x": object()}, "object")
    with pytest.raises(TrackingError, match=r"3 calls .* needs a name"):
        run.finish()


def test_a_model_is_an_artifact_with_its_structure(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.log_model(model(), "head")
        run.log_model({"w": np.ones(3)}, "plain", weights=False)
        run.log_model(object(), "nothing", weights=False)
    assert sorted(cas.open_run("a/x").artifacts) == [
        "models/head/structure.json",
        "models/head/weights",
        "models/nothing/structure.json",
        "models/plain/structure.json",
    ]
    weights = cas.load("a/x:artifacts/models/head/weights")
    assert all(torch.equal(weights[name], one) for name, one in model().state_dict().items())


def only_commit(here: Path) -> Commit:
    return only_run(opened(here))[1]


def test_a_model_that_a_run_begins_from_is_one_commit_for_all(here: Path) -> None:
    for name in ("x", "y"):
        with cas.track("a", name=name) as run:
            run.track_model(model(), "base", metadata={"from": "hub"})
    with cas.track("a", name="z") as run:
        run.track_model(model(1), "base")
    repo = opened(here)
    commits = [repo.commit(repo.root.refs[f"runs/a/{name}"]) for name in "xyz"]
    (first,), (again,), (other,) = (commit.parents for commit in commits)
    assert first == again
    assert first.role == "base-model"
    assert first.attrs == {"metadata": {"from": "hub"}}
    assert first.commit != other.commit
    assert repo.root.refs["models/base"] == other.commit
    kept = repo.commit(first.commit)
    assert kept.payload is None
    about: Any = repo.document(kept.tree, "input.json")
    assert about["kind"] == "model"
    assert about["bytes"] == (30 * 20 + 20) * 4
    structure: Any = repo.document(kept.tree, "structure.json")
    assert structure["parameters"] == 620


def test_weights_are_stored_when_they_are_asked_for(here: Path) -> None:
    with cas.track("a", name="x") as run:
        run.track_model(model(), "named")
        run.track_model(model(), "stored", weights=True)
    repo = opened(here)
    named, stored = (repo.commit(parent.commit) for parent in only_commit(here).parents)
    told: list[Any] = [repo.document(one.tree, "input.json") for one in (named, stored)]
    assert told[0]["weights"] == told[1]["weights"]
    assert torch.equal(cas.load("models/stored:data")["weight"], model().state_dict()["weight"])


class Pretrained:
    """As the tokenizers of transformers save themselves."""

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "tokenizer.json").write_text("{}")
        Path(folder, "merges.txt").write_text("a b")


class Rust:
    """As those of tokenizers do."""

    def to_str(self) -> str:
        return '{"model": 1}'


def test_a_tokenizer_is_an_input(here: Path) -> None:
    (here / "files").mkdir()
    (here / "files" / "vocab.txt").write_text("a")
    with cas.track("a", name="x") as run:
        run.track_tokenizer(Pretrained())
        run.track_tokenizer(Rust(), "bpe")
        run.track_tokenizer({"b": 1, "a": 0}, "words")
        run.track_tokenizer("files", "lies here")
    assert [parent.role for parent in only_commit(here).parents] == ["tokenizer"] * 4
    assert cas.open_file("models/tokenizers/Pretrained:data/merges.txt").read() == b"a b"
    assert cas.open_file("models/tokenizers/bpe:data/tokenizer.json").read() == b'{"model": 1}'
    words = cas.open_file("models/tokenizers/words:data/vocab.json").read()
    assert words == b'{\n "a": 0,\n "b": 1\n}\n'
    assert cas.open_file("models/tokenizers/lies-here:data/vocab.txt").read() == b"a"


def test_what_is_no_model_and_no_tokenizer_is_told(here: Path) -> None:
    run = cas.track("a", name="x")
    run.track_model(object(), "m")
    run.track_tokenizer(object(), "t")
    run.track_tokenizer("nowhere", "t")
    run.log_model(object(), "m")
    with pytest.raises(TrackingError, match=r"4 calls .* has no state_dict"):
        run.finish()


def test_anything_can_be_used(here: Path) -> None:
    (here / "data.csv").write_text("1")
    with cas.track("a", name="first") as run:
        run.save_checkpoint(model={"w": 1}, step=1)
        run.log_artifact(b"split", "split.txt")
        run.track_model(model(), "base")
        run.track_tokenizer({"a": 1}, "words")
    with cas.track("a", name="second") as run:
        first = run.use("a/first@latest")
        run.use("a/first", role="evaluates")
        run.use("a/first:artifacts/split.txt", role="split")
        run.use("models/base")
        run.use("models/tokenizers/words")
        run.use("data.csv")
        run.use(here / "data.csv", role="calibration")
        run.use("datasets/data.csv", role="again")
    repo = opened(here)
    parents = repo.commit(repo.root.refs["runs/a/second"]).parents
    assert [(parent.role, parent.path) for parent in parents] == [
        ("base-model", ""),
        ("evaluates", ""),
        ("split", "artifacts/split.txt"),
        ("base-model", ""),
        ("tokenizer", ""),
        ("dataset", ""),
        ("calibration", ""),
        ("again", ""),
    ]
    assert parents[0].commit == first
    assert repo.commit(parents[0].commit).kind == "checkpoint"
    assert parents[5].commit == parents[6].commit == parents[7].commit


def test_what_is_not_there_or_could_be_two_things_is_told(here: Path) -> None:
    (here / "best").mkdir()
    with cas.track("a", name="first"):
        pass
    (here / "a").mkdir()
    (here / "a" / "first").write_text("x")
    run = cas.track("a", name="second")
    run.use("a/nowhere")
    run.use("a/first")
    run.use("a/first:artifacts/nothing")
    with pytest.raises(TrackingError, match=r"3 calls .* a/nowhere not found"):
        run.finish()
    assert opened(here).commit(opened(here).root.refs["runs/a/second"]).parents == ()
