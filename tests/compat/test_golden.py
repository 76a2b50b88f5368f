"""Every repository that a release could write is read by this one, bit for bit."""

import json
import shutil
from pathlib import Path

import pytest

from cas.codec.base import CodecTag
from cas.repo.check import fsck
from cas.repo.repo import Repo
from cas.store.pinned import PinnedStore
from cas.store.record import RECIPE
from tests.compat.golden import described
from tests.support.builders import commit_files

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("v*"))
every_version = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)


def copied(fixture: Path, folder: Path) -> Repo:
    shutil.copytree(fixture / "repo", folder / ".cas")
    return Repo.open(folder / ".cas", who="ada@host", clock=lambda: 1_900_000_000_000_000)


def test_there_is_a_fixture_for_each_version() -> None:
    assert [path.name for path in FIXTURES] == ["v1"]


@every_version
def test_all_that_was_stored_reads_back(fixture: Path, tmp_path: Path) -> None:
    expected = json.loads((fixture / "expected.json").read_text())
    assert described(copied(fixture, tmp_path)) == expected
    held = [commit["held"] for commit in expected["commits"].values() if commit["held"]]
    assert len(held) >= 4


@every_version
def test_fsck_is_silent(fixture: Path, tmp_path: Path) -> None:
    repo = copied(fixture, tmp_path)
    report = fsck.Report()
    assert list(fsck.check(repo, full=True, report=report)) == []
    assert report.objects > 30


@every_version
def test_work_goes_on_in_it(fixture: Path, tmp_path: Path) -> None:
    repo = copied(fixture, tmp_path)
    before = described(repo)["commits"]
    commit_files(repo, {"more.txt": b"more"}, payload={"more.txt": b"more"})
    assert before.items() <= described(repo)["commits"].items()


@every_version
def test_it_holds_every_form(fixture: Path, tmp_path: Path) -> None:
    repo = copied(fixture, tmp_path)
    store = PinnedStore(repo.backend, repo.root.packs)
    forms = {row.codec for pack in store.packs for row in store.rows(pack)}
    assert forms == {*CodecTag, RECIPE}
    assert [info.key for info in repo.backend.scan("index/")]
