"""`cas ls` lists what a commit holds, as one folder."""

import os
import struct
from pathlib import Path

from cas.ids import blob_id
from cas.objects.commit import Commit
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, commit_files, noise, set_ref
from tests.support.tensorfiles import archive, safetensors, state_dict, tensor


def test_kind_mode_size_id_and_name(cas: Cas, repo: Repo, place: Path) -> None:
    (place / "d").mkdir()
    (place / "d" / "x").write_bytes(b"hello")
    (place / "d" / "x").chmod(0o755)
    (place / "d" / "l").symlink_to("x")
    (place / "d" / "empty").mkdir()
    Path(os.fsdecode(b"d/bad\xff")).write_bytes(b"1")
    cas("commit", "d")
    lines = [line.split(maxsplit=4) for line in cas("ls", "HEAD:d").lines]
    assert [(line[0], line[1], line[2], line[4]) for line in lines] == [
        ("file", "0644", "1", "bad\\xff"),
        ("tree", "0755", "0", "empty/"),
        ("link", "-", "1", "l -> x"),
        ("file", "0755", "5", "x"),
    ]
    assert lines[3][3] == str(blob_id(b"hello"))
    assert cas("ls", "HEAD:d", "--json").json[0]["path"] == "d/bad\udcff"


def test_payload_comes_before_record_and_folders_in_both_are_one(cas: Cas, repo: Repo) -> None:
    commit_files(
        repo,
        {"params.json": b"{}", "artifacts": {"small": b"1"}},
        payload={"params.json": b"mine", "artifacts": {"large": b"22"}},
    )
    rows = {row["path"]: row for row in cas("ls", "-r", "--json").json}
    assert list(rows) == ["artifacts", "artifacts/large", "artifacts/small", "params.json"]
    assert rows["artifacts"]["parts"] == ["payload", "record"]
    assert rows["artifacts"]["id"] is None
    assert rows["artifacts"]["size_bytes"] == 3
    assert rows["params.json"]["id"] == str(blob_id(b"mine"))
    assert [row["path"] for row in cas("ls", "HEAD:artifacts", "--json").json] == [
        "artifacts/large",
        "artifacts/small",
    ]
    assert [row["path"] for row in cas("ls", "HEAD:artifacts/small", "--json").json] == [
        "artifacts/small"
    ]


def test_the_tensors_of_a_state(cas: Cas, repo: Repo) -> None:
    RunBuilder(repo, "e/run").checkpoint(0, {"w": noise(1, 1000), "b": b"12"}, value=0.5)
    assert [line.split(maxsplit=1)[1] for line in cas("ls", "e/run:state").lines] == [
        "uint8  [1000]  w",
        "uint8  [2]     b",
    ]
    row = cas("ls", "e/run:state", "--json").json[0]
    assert row["id"] == str(blob_id(noise(1, 1000)))
    (metric,) = cas("ls", "e/run:metrics", "--json").json
    assert (metric["name"], metric["count"]) == ("loss", 1)


def test_the_tensors_of_a_file(cas: Cas, repo: Repo) -> None:
    weights = noise(1, 400)
    turned = tensor("0", (10, 10), strides=(1, 10))
    pushed = state_dict({"w": tensor("0", (10, 10)), "t": turned})
    small = safetensors({"w": ("F32", [10, 10], weights), "n": ("I64", [], bytes(8))})
    commit_files(repo, {"w.pt": archive(pushed, {"0": weights}), "w": small, "text": b"text"})
    id = str(blob_id(weights))
    assert [line.split(maxsplit=1) for line in cas("ls", "HEAD:w.pt").lines] == [
        [id, "float32  [10, 10]  w"],
        ["-", "float32  [10, 10]  t"],
    ]
    assert cas("ls", "HEAD:w", "--json").json == [
        {"path": "w", "dtype": "float32", "shape": [10, 10], "size_bytes": 400, "id": id},
        {
            "path": "n",
            "dtype": "int64",
            "shape": [],
            "size_bytes": 8,
            "id": str(blob_id(bytes(8))),
        },
    ]
    assert cas("ls", "HEAD:w.pt", "--json").json[1]["id"] is None
    assert cas("ls", "HEAD:text").lines[0].startswith("file ")
    assert len(cas("ls").lines) == 3


def test_a_file_that_lies_about_its_tensors_is_a_file(cas: Cas, repo: Repo) -> None:
    commit_files(repo, {"bad": struct.pack("<Q", 2**62) + b"{" + bytes(100)})
    result = cas("ls", "HEAD:bad")
    assert result.code == 0
    assert result.lines[0].split()[0] == "file"


def test_a_pruned_payload_that_is_gone_leaves_the_record(cas: Cas, repo: Repo) -> None:
    run = RunBuilder(repo, "e/run")
    id = run.checkpoint(0, {"w": noise(1, 1000)}, value=0.5)
    set_ref(repo, f"holds/{id}", None)
    assert "state" in cas("ls", "e/run").out  # until gc
    assert cas("gc").code == 0
    assert "state" not in cas("ls", "e/run").out
    result = cas("ls", "e/run:state")
    assert result.code == 3
    assert "pruned" in result.err


def test_what_is_only_named_says_so(cas: Cas, repo: Repo) -> None:
    def make(tx: Transaction) -> None:
        entry = Entry(b"big", EntryKind.FILE, blob_id(b"elsewhere"), 9, 0o644, stored=False)
        tree = build([entry], tx.writer.tree)
        tx.set_ref("heads/main", tx.record(Commit(kind="commit", tree=tree.id)))

    transact(repo, "test", make)
    assert cas("ls").lines[0].startswith("file (named)")
    result = cas("cat", "HEAD:big")
    assert result.code == 3
    assert "only named" in result.err


def test_an_unknown_path(cas: Cas, repo: Repo) -> None:
    commit_files(repo, {"a": b"1"})
    for path in ("HEAD:b", "HEAD:a/b"):
        result = cas("ls", path)
        assert result.code == 3
        assert "cas ls" in result.err
