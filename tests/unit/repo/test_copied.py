"""A copy that was taken while others wrote opens at what is whole, and can be gone on with."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cas.errors import RefusedError
from cas.ids import CommitId
from cas.repo.check import copiedrepair, fsck
from cas.repo.collect import gc
from cas.repo.layout import HOLDS, PACKS, ROOTS, SNAPSHOTS, root_key
from cas.repo.repo import Repo
from tests.support.builders import (
    Clock,
    RunBuilder,
    commit_files,
    noise,
    read_tree,
    reopened,
    repository,
    set_ref,
)
from tests.support.crashing import contents
from tests.support.torture import amount

FOLDERS = (PACKS, ROOTS, SNAPSHOTS)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = repository(tmp_path / "origin")
    for number in range(3):
        commit_files(repo, {f"f{number}": noise(number, 3000)}, ref=f"tags/t{number}")
    return repo


def copy_of(repo: Repo, folder: Path) -> Path:
    return shutil.copytree(repo.path, folder / ".cas")


def opened(path: Path) -> Repo:
    """Open a copy; what it warns of is kept in `told`."""
    return Repo.open(path, who="eve@host", clock=Clock())


def newest_pack(repo: Repo) -> str:
    return repo.refresh().packs[-1].key


def test_a_whole_copy_opens_as_it_is_and_says_nothing(repo: Repo, tmp_path: Path) -> None:
    copy = opened(copy_of(repo, tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert copy.refresh().seq == repo.refresh().seq
    commit_files(copy, {"x": b"x"}, ref="tags/x")


def test_a_newer_root_that_lists_what_has_not_come_is_passed_over_and_named(
    repo: Repo, tmp_path: Path
) -> None:
    path = copy_of(repo, tmp_path)
    (path / newest_pack(repo)).unlink()
    copy = opened(path)
    told: list[str] = []
    copy.tell = told.append
    assert copy.refresh().seq == repo.refresh().seq - 1
    assert copy.refresh().seq == repo.refresh().seq - 1  # and stays there
    assert set(copy.root.refs) == {"tags/t0", "tags/t1"}
    contents(copy)
    (line,) = told
    assert f"root {repo.root.seq} ({newest_pack(repo)} is not here whole)" in line


def test_a_pack_that_has_come_in_part_has_not_come(repo: Repo, tmp_path: Path) -> None:
    path = copy_of(repo, tmp_path)
    os.truncate(path / newest_pack(repo), 100)
    copy = opened(path)
    told: list[str] = []
    copy.tell = told.append
    assert copy.refresh().seq == repo.refresh().seq - 1
    assert len(told) == 1


def test_the_library_warns(repo: Repo, tmp_path: Path) -> None:
    path = copy_of(repo, tmp_path)
    (path / newest_pack(repo)).unlink()
    with pytest.warns(RuntimeWarning, match="taken while others wrote"):
        opened(path).refresh()


def test_fsck_names_it_and_nothing_is_written_before_a_repair(repo: Repo, tmp_path: Path) -> None:
    path = copy_of(repo, tmp_path)
    (path / newest_pack(repo)).unlink()
    copy = quiet(path)
    found = [f for f in fsck.check(copy, full=True) if f.severity == fsck.ERROR]
    assert [(f.what, f.name) for f in found] == [("copy", root_key(repo.root.seq))]
    before = sorted(os.listdir(path / ROOTS))
    with pytest.raises(RefusedError, match="cas fsck --repair"):
        commit_files(quiet(path), {"x": b"x"}, ref="tags/x")
    with pytest.raises(RefusedError, match="cas fsck --repair"):
        gc.execute(quiet(path), gc.plan(quiet(path)))
    assert sorted(os.listdir(path / ROOTS)) == before


def quiet(path: Path) -> Repo:
    repo = opened(path)
    repo.tell = lambda _: None
    return repo


def test_after_a_repair_numbers_go_on_behind_all_that_came(repo: Repo, tmp_path: Path) -> None:
    path = copy_of(repo, tmp_path)
    (path / newest_pack(repo)).unlink()
    newest = (path / root_key(repo.root.seq)).read_bytes()
    copy = quiet(path)
    copy.refresh()
    back = copiedrepair.settle(copy)
    assert set(back) == {"tags/t2"}
    assert copy.refresh().seq == repo.root.seq + 1
    assert (path / root_key(repo.root.seq)).read_bytes() == newest
    commit_files(opened(path), {"x": b"x"}, ref="tags/x")
    assert set(opened(path).refresh().refs) == {"tags/t0", "tags/t1", "tags/x"}
    assert not [f for f in fsck.check(opened(path), full=True) if f.severity == fsck.ERROR]


def test_what_came_whole_of_a_newer_root_is_kept(repo: Repo, tmp_path: Path) -> None:
    """The pack in the middle is missing, so two roots are passed over, and one commit is there."""
    path = copy_of(repo, tmp_path)
    (path / repo.refresh().packs[1].key).unlink()
    copy = quiet(path)
    assert set(copy.refresh().refs) == {"tags/t0"}
    assert set(copiedrepair.settle(copy)) == {"tags/t1"}
    assert set(opened(path).refresh().refs) == {"tags/t0", "tags/t2"}
    assert read_tree(copy, copy.commit(copy.root.refs["tags/t2"]).tree) == {"f2": noise(2, 3000)}


def test_damage_at_home_is_no_reason_to_go_back(repo: Repo) -> None:
    (repo.path / newest_pack(repo)).unlink()
    again = reopened(repo)
    assert again.refresh().seq == repo.refresh().seq
    commit_files(again, {"x": b"x"}, ref="tags/x")


def test_a_copy_of_nothing_whole_is_a_damaged_repository(repo: Repo, tmp_path: Path) -> None:
    path = copy_of(repo, tmp_path)
    (path / root_key(1)).unlink()
    for key in os.listdir(path / PACKS):
        (path / PACKS / key).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(path).refresh().seq == repo.root.seq


def test_a_newest_root_that_came_in_part_is_passed_over(repo: Repo, tmp_path: Path) -> None:
    path = copy_of(repo, tmp_path)
    key = path / root_key(repo.refresh().seq)
    key.write_bytes(key.read_bytes()[:50])
    copy = quiet(path)
    assert copy.refresh().seq == repo.root.seq - 1
    copiedrepair.settle(copy)
    assert opened(path).refresh().seq == repo.root.seq + 1


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a repository looked like after each of its operations."""
    folder = tmp_path_factory.mktemp("moments")
    repo = repository(folder / "origin")
    return [copy_of(repo, folder / f"{n}") for n, _ in enumerate(history(repo))]


def history(repo: Repo) -> Iterator[None]:
    run = RunBuilder(repo, "exp/one")
    for step in range(3):
        run.checkpoint(step, {"w": noise(step, 3000)}, value=1.0)
        yield
    commit_files(repo, {"a": noise(20, 3000), "b": noise(21, 3000)})
    yield
    for id in run.ids[:2]:
        set_ref(repo, f"{HOLDS}{id}", None)
        yield
    gc.execute(repo, gc.plan(repo))
    yield
    run.checkpoint(3, {"w": noise(3, 3000)}, value=1.0)
    yield
    run.finish()
    yield
    commit_files(repo, {"a": noise(20, 3000), "b": noise(22, 3000)})
    yield
    gc.execute(repo, gc.plan(repo))
    yield


def torn(moments: list[Path], folder: Path, order: list[str], starts: list[int]) -> Path:
    """Copy folder after folder while the repository changes; some files late, as they came."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "hints").mkdir(parents=True)
    shutil.copy(moments[0] / "format", folder)
    for name, moment in zip(order, sorted(starts), strict=True):
        if (moments[moment] / name).exists():
            shutil.copytree(moments[moment] / name, folder / name)
    return folder


@pytest.mark.torture
@settings(
    max_examples=amount(25, 3000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.permutations(FOLDERS),
    st.lists(st.integers(0, 11), min_size=3, max_size=3),
    st.randoms(use_true_random=False),
)
def test_whatever_the_order_of_copying_nothing_that_came_is_lost(
    moments: list[Path], tmp_path: Path, order: list[str], starts: list[int], random: object
) -> None:
    starts = [min(start, len(moments) - 1) for start in starts]
    path = torn(moments, tmp_path / "torn", list(order), starts)
    copy = quiet(path)
    root = copy.refresh()
    if not copy.skipped:
        if all((path / info.key).exists() for info in root.packs):
            contents(copy)  # all that it names is here
        return
    at_first = contents(copy)
    tips = dict(root.refs)
    newest = copy.skipped[0].seq
    back = copiedrepair.settle(copy)
    again = opened(path)
    assert again.refresh().seq == max(newest, root.seq) + 1
    after = contents(again)  # everything that is named can be read
    for name in back:
        assert again.root.refs.get(name) == tips.get(name)
    for name, id in tips.items():
        gone = name.startswith(HOLDS) and name not in again.root.refs  # pruned later
        assert gone or again.root.refs[name] == id or name not in back
        if again.root.refs.get(name) == id:
            assert after[name] == at_first[name]
    found = [f for f in fsck.check(opened(path), full=True) if f.severity == fsck.ERROR]
    assert [f for f in found if f.what not in {"root"}] == []
    commit_files(opened(path), {"x": b"x"}, ref="tags/x")


def test_a_copy_that_trusted_its_newest_root_would_be_noticed(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks above can fail."""
    monkeypatch.setattr("cas.repo.check.copied.is_home", lambda _: True)
    path = copy_of(repo, tmp_path)
    (path / newest_pack(repo)).unlink()
    copy = opened(path)
    id: CommitId = copy.refresh().refs["tags/t2"]
    with pytest.raises(Exception, match="listed, and missing"):
        copy.commit(id)
