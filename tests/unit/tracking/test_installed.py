"""What is installed is told from the files that installers leave."""

import json
import sys
from pathlib import Path

import pytest

from cas.ids import blob_id
from cas.tracking.captured.installed import (
    conda_packages,
    installed,
    lock_files,
    normalised,
    packages,
)

TOKEN = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"


def distribution(folder: Path, name: str, version: str, direct_url: object = None) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: of the text\n"
    (info / "METADATA").write_text(text)
    if direct_url is not None:
        (info / "direct_url.json").write_text(json.dumps(direct_url))


def test_packages_are_normalised_sorted_and_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path / "a", "My_Pack.age", "0")
    distribution(tmp_path / "b", "my-pack-age", "1")
    broken = tmp_path / "a" / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_bytes(b"\xff\xfe")
    egg = tmp_path / "b" / "Alone.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: Alone\nVersion: 3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b"), "/nowhere"])
    assert list(packages().items()) == [("alone", "3"), ("my-pack-age", "0")]
    assert "sources" not in installed()


def test_where_packages_came_from_is_told_without_paths_and_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {
        "git": {
            "url": f"https://me:{TOKEN}@example.org/a.git",
            "vcs_info": {"vcs": "git", "commit_id": "abc123"},
        },
        "wheel": {
            "url": "https://example.org/w.whl?token=x1y2z3",
            "archive_info": {"hash": "sha256=00"},
        },
        "here": {"url": f"file://{tmp_path}", "dir_info": {"editable": True}},
        "file": {"url": f"file://{tmp_path}/x.whl", "archive_info": {}},
        "odd": ["what"],
    }
    for name, direct_url in told.items():
        distribution(tmp_path, name, "1", direct_url)
    distribution(tmp_path, "index", "1")
    (tmp_path / "bad-1.dist-info").mkdir()
    (tmp_path / "bad-1.dist-info" / "METADATA").write_text("Name: bad\nVersion: 1\n\n")
    (tmp_path / "bad-1.dist-info" / "direct_url.json").write_text("{")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = installed()
    assert found["sources"] == {
        "file": "local",
        "git": "git+https://example.org/a.git@abc123",
        "here": "editable",
        "odd": "local",
        "wheel": "https://example.org/w.whl#sha256=00",
    }
    assert list(found["packages"]) == ["bad", "file", "git", "here", "index", "odd", "wheel"]
    assert str(tmp_path) not in json.dumps(found)


def test_condas_packages_are_those_of_its_files(tmp_path: Path) -> None:
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    channel = "https://conda.example.org/t/tk-secret/conda-forge/linux-64"
    (meta / "numpy-base-2.0.1-py311_0.json").write_text(json.dumps({"channel": channel}))
    (meta / "odd-1-0.json").write_text("{")
    (meta / "history").write_text("")
    assert conda_packages(str(tmp_path)) == {
        "numpy-base": f"2.0.1 py311_0 {channel}".replace("/t/tk-secret", ""),
        "odd": "1 0",
    }
    assert conda_packages(str(tmp_path / "none")) == {}


def test_lock_files_are_told_by_their_digests(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (tmp_path / "requirements.txt").mkdir()
    (tmp_path / "other.lock").write_text("")
    assert lock_files(tmp_path) == {"uv.lock": str(blob_id(b"version = 1\n"))}


@pytest.mark.parametrize(("name", "plain"), [("A_b.C", "a-b-c"), ("x--y__z", "x-y-z")])
def test_package_names_have_one_form(name: str, plain: str) -> None:
    assert normalised(name) == plain
