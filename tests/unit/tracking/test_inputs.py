"""Inputs: equal data is one commit, whoever had it, and the run's edge says how it was used."""

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import cas
from cas.errors import InvalidInputError, TrackingError
from cas.tracking.inputs import dataset_name, edge_attrs, place_in
from cas.tracking.privacy.secrets import REMOVED
from tests.support.builders import read_tree
from tests.support.runs import only_run, opened, run, text


def write(folder: Path) -> Path:
    data = folder / "data"
    (data / "deep").mkdir(parents=True)
    (data / "a.csv").write_text("1,2\n")
    (data / "deep" / "b.bin").write_bytes(bytes(range(256)) * 4000)
    (data / "empty").mkdir()
    (data / "link").symlink_to("a.csv")
    (data / "run.sh").write_text("#!/bin/sh\n")
    (data / "run.sh").chmod(0o755)
    return data


def test_equal_data_is_one_commit_from_any_run_folder_and_umask(here: Path) -> None:
    ids = set()
    for number, mask in enumerate((0o022, 0o077, 0o000)):
        folder = here / f"p{number}"
        old = os.umask(mask)
        try:
            data = write(folder)
            os.utime(data / "a.csv", (number, number))
        finally:
            os.umask(old)
        with cas.track("a") as tracked:
            ids.add(tracked.track_dataset(data))
    (id,) = ids
    assert id is not None
    repo = opened(here)
    assert repo.root.refs["datasets/data"] == id
    commit = repo.commit(id)
    assert (commit.kind, commit.time, commit.author, commit.run) == ("input", None, None, None)
    assert repo.document(commit.tree, "input.json") == {
        "kind": "directory",
        "name": "data",
        "bytes": 256 * 4000 + 4 + 5 + 10,
    }
    assert f"holds/{id}" in repo.root.refs


def test_other_data_is_another_version(here: Path) -> None:
    path = here / "x.csv"
    path.write_text("1\n")
    with cas.track("a") as tracked:
        first = tracked.track_dataset(path)
        path.write_text("2\n")
        second = tracked.track_dataset("x.csv")
        third = tracked.track_dataset("x.csv", name="other/name")
    assert first != second != third
    repo = opened(here)
    assert repo.root.refs["datasets/x.csv"] == second
    assert repo.root.refs["datasets/other/name"] == third
    assert second is not None
    commit = repo.commit(second)
    assert text(repo, commit, "data") == "2\n"


def test_arrays_and_nested_arrays(here: Path) -> None:
    images = np.arange(600, dtype=np.float32).reshape(10, 60)
    ids = []
    for data in (
        {"images": images, "labels": np.arange(10)},
        {"images": images.copy(), "labels": np.arange(10)},
        {"images": np.asfortranarray(images), "labels": np.arange(10)},
        OrderedDict(images=images, labels=np.arange(11)),
    ):
        with cas.track("a") as tracked:
            ids.append(tracked.track_dataset(data, name="digits"))
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]
    repo = opened(here)
    commit = repo.commit(ids[0])  # type: ignore[arg-type]
    assert repo.document(commit.tree, "input.json") == {
        "kind": "arrays",
        "name": "digits",
        "bytes": 2400 + 80,
        "arrays": [
            {"path": ["images"], "dtype": "float32", "shape": [10, 60]},
            {"path": ["labels"], "dtype": "int64", "shape": [10]},
        ],
    }
    assert commit.payload is not None
    assert read_tree(repo, commit.payload)["data"] == {
        "images": images.tobytes(),
        "labels": np.arange(10).tobytes(),
    }


def test_the_edge_says_role_split_metadata_and_place(here: Path, tmp_path: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "x.csv").write_text("1\n")
    (tmp_path / "shared.csv").write_text("2\n")
    with cas.track("a") as tracked:
        first = tracked.track_dataset("d/x.csv", split="train", metadata={"rows": np.int64(1)})
        again = tracked.track_dataset("d/x.csv", split="val")
        above = tracked.track_dataset("../shared.csv", role="base-model")
        tracked.track_dataset("d/x.csv", split="val")
    repo = opened(here)
    _, commit = only_run(repo)
    assert first == again
    parents = [(p.role, p.commit, p.attrs.get("split")) for p in commit.parents]
    assert parents == [
        ("dataset", first, "train"), ("dataset", first, "val"), ("base-model", above, None)
    ]  # fmt: skip
    assert commit.parents[0].attrs["metadata"] == {"rows": 1}
    # Under pytest there is no script: the code is whatever stands around the current folder.
    assert commit.parents[0].attrs["at"] == "d/x.csv"
    assert commit.parents[2].attrs["at"] == "../shared.csv"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/x.csv", "x.csv"),
        ("data/", "data"),
        ("my data (1).csv", "my-data-1-.csv"),
        ("..", "project"),
        ("/", "data"),
        (os.fsdecode(b"caf\xe9.csv"), "caf-.csv"),
        (Path("-x.csv"), "x.csv"),
    ],
)
def test_a_path_gives_a_name(here: Path, path: str, name: str) -> None:
    (here / "inner").mkdir()
    os.chdir(here / "inner")
    assert dataset_name(path, None) == name


def test_names_are_checked_and_data_without_a_path_needs_one(here: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot name a dataset"):
        dataset_name("x", "a b")
    with pytest.raises(InvalidInputError, match="needs a name"):
        dataset_name([1.0], None)
    tracked = cas.track("a")
    tracked.track_dataset("nowhere.csv")
    with pytest.raises(TrackingError, match=r"track_dataset: no such data: nowhere.csv"):
        tracked.finish()
    assert not [ref for ref in opened(here).root.refs if ref.startswith("datasets/")]


def test_a_link_to_data_is_the_data(here: Path) -> None:
    (here / "real.csv").write_text("1\n")
    (here / "link.csv").symlink_to("real.csv")
    with cas.track("a") as tracked:
        id = tracked.track_dataset("link.csv", name="d")
        assert tracked.track_dataset("real.csv", name="d") == id
    assert only_run(opened(here))[1].parents[0].attrs["at"] == "link.csv"


def test_a_place_is_told_as_the_program_names_it(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "data").mkdir(parents=True)
    (real / "away").symlink_to("/usr")
    alias = tmp_path / "alias"
    alias.symlink_to("real")
    assert place_in(real / "data" / "x", real) == "data/x"
    assert place_in(alias / "data" / "x", real) == "data/x"
    assert place_in(real / "data" / "x", alias) == "data/x"
    assert place_in(alias / "data" / "x", alias) == "data/x"
    assert place_in(real / "away" / "x", real) == "away/x"
    assert place_in(tmp_path / "other" / "x", real / "data") == "../../other/x"
    assert place_in(real, real) == "."


def test_an_input_has_the_id_that_b3sum_prints(here: Path) -> None:
    (here / "x.csv").write_text("1,2\n")
    with cas.track("a") as tracked:
        id = tracked.track_dataset("x.csv")
    repo = opened(here)
    commit = repo.commit(id)  # type: ignore[arg-type]
    assert commit.payload is not None
    entry = repo.lookup(commit.payload, b"data")
    assert entry is not None
    from blake3 import blake3

    assert entry.id.hex() == blake3(b"1,2\n").hexdigest()
    assert run(here, "sh", "-c", "cat x.csv").stdout == "1,2\n"


def test_a_path_or_split_with_a_secret_in_it_is_told_without_it(here: Path) -> None:
    token = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    (here / token).mkdir()
    (here / token / "a.csv").write_text("1")
    assert edge_attrs(here / token, here, token, {}) == {"split": REMOVED, "at": REMOVED}
    assert dataset_name(here / token, None) == "secret-removed"
