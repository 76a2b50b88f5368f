"""`cas show` tells all that a commit says."""

from cas.objects.commit import Parent
from cas.objects.document import document
from cas.repo.repo import Repo
from cas.tracking.track import track
from tests.cli.conftest import Cas
from tests.support.builders import Files, RunBuilder, commit_files, noise, set_ref

RECORD: Files = {
    "params.json": document({"lr": 0.1, "model": {"width": 8}}),
    "summary.json": document({"loss": {"last": 0.25, "min": 0.125, "max": 1.0, "count": 3}}),
    "environment.json": document(
        {"python": {"version": "3.11.7"}, "packages": {"numpy": "2.0", "zlib": "1"}}
    ),
    "source.json": document({"git": {"commit": "abc123", "branch": "main", "dirty": True}}),
    "seeds.json": document({"seed": 7}),
    "host.json": document({"host": "box", "gpus": ["H200"]}),
    "artifacts": {"plot.png": b"png", "sub": {"x": b"1"}},
}


def test_what_a_run_saves_and_keeps(cas: Cas, repo: Repo) -> None:
    strategy = {"save_steps": 10, "monitor": "acc"}
    with track("a", name="x", repo=repo.path, strategy=strategy, retention={"last": 2}) as run:
        id = run.save_checkpoint(model={"w": 1}, step=1, metrics={"acc": 0.5}, best=True).commit
    words = " ".join(cas("show", "a/x").out.split())
    assert "strategy: monitor acc save_steps 10" in words
    assert "retention: last 2" in words
    assert "best: it was saved as the best of the run" not in words
    assert "best: it was saved as the best of the run" in " ".join(cas("show", str(id)).out.split())
    assert cas("show", "a/x", "--json").json["strategy"] == strategy


def test_a_commit_in_full(cas: Cas, repo: Repo) -> None:
    data = commit_files(repo, {"d": b""}, ref="datasets/digits", kind="input")
    id = commit_files(
        repo,
        RECORD,
        parents=(Parent("dataset", data, "train", {"split": "80"}),),
        payload={"artifacts": {"model.bin": b"weights"}},
    )
    out = cas("show").out
    assert out.startswith(f"commit {id}  (heads/main)\n")
    words = " ".join(out.split())
    for said in (
        f"dataset {data.short} input (datasets/digits) path train, split 80",
        "lr 0.1",
        "model.width 8",
        "loss last 0.25 min 0.125 max 1 count 3",
        "commit abc123",
        "seed 7",
        "python 3.11.7",
        "packages 2, numpy 2.0",
        "host box",
        "model.bin 7 B",
        "plot.png 3 B",
        "sub/x 1 B",
        "kept",
    ):
        assert said in words
    told = cas("show", "--json").json
    assert told["id"] == str(id)
    assert told["refs"] == ["heads/main"]
    assert told["params"] == {"lr": 0.1, "model": {"width": 8}}
    assert told["parents"][0]["attrs"] == {"split": "80"}
    assert [(one["path"], one["part"]) for one in told["artifacts"]] == [
        ("model.bin", "payload"),
        ("plot.png", "record"),
        ("sub/x", "record"),
    ]


def test_a_pruned_checkpoint_still_tells_its_metrics(cas: Cas, repo: Repo) -> None:
    run = RunBuilder(repo, "e/run")
    id = run.checkpoint(3, {"w": noise(1, 1000)}, value=0.5)
    set_ref(repo, f"holds/{id}", None)
    out = cas("show", "e/run").out
    assert "pruned" in out
    assert "loss 0.5 (min is best)" in out
    assert cas("show", "e/run", "--json").json["kept"] is False


def test_what_is_not_there(cas: Cas, repo: Repo) -> None:
    assert cas("show").code == 3
    assert cas("show", "nope").code == 3
    commit_files(repo, {"a": b"1"})
    assert cas("show", "HEAD:a").code == 2


def test_what_happened_to_a_run_and_what_it_logged(cas: Cas, repo: Repo) -> None:
    resumed = {
        "after": "ab" * 32,
        "checkpoint": "cd" * 32,
        "step": 40,
        "time": 0,
        "params": {"lr": {"before": 0.1, "now": 0.2}},
    }
    alerts = [
        {"time": 0.0, "kind": "alert", "title": f"t{n}", "text": "x\ny", "metric": "", "step": n}
        for n in range(12)
    ]
    files: Files = {
        "resumed.json": document({"resumed": [resumed, {**resumed, "step": None, "params": {}}]}),
        "events.json": document(alerts),
        "metadata.json": document({"ticket": 7}),
    }
    commit_files(repo, files)
    words = " ".join(cas("show").out.split())
    assert "resumed: from step 40 ababababab lr 0.1 -> 0.2 from its start ababababab" in words
    assert "events: 2 before alert step 2 t2: x" in words
    assert "t1:" not in words
    assert "metadata: ticket 7" in words
    told = cas("show", "--json").json
    assert [one["title"] for one in told["events"]] == [f"t{n}" for n in range(12)]
    assert told["logged"] == {}


def test_what_was_logged_beside_numbers_is_counted(cas: Cas, repo: Repo) -> None:
    with track("a", name="x", repo=repo.path) as run:
        for step in range(3):
            run.log({"prompt": "hello", "loss": 1.0}, step=step)
        run.log_histogram("w", [1.0, 2.0, 3.0])
    assert "logged: w histogram 1 prompt text 3" in " ".join(cas("show", "a/x").out.split())
    assert cas("show", "a/x", "--json").json["logged"] == {
        "histogram": {"w": 1},
        "text": {"prompt": 3},
    }
