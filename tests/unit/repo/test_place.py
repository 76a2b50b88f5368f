"""The repository is found from anywhere below, and nothing that git does harms it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cas.errors import NoRepositoryError
from cas.repo import place
from cas.repo.repo import Repo
from tests.support.builders import commit_files, read_tree


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody whose own settings do not count."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    }  # fmt: skip
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A git work tree with one commit."""
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text("print(1)\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def create(path: Path) -> Repo:
    return Repo.create(path, who="ada", clock=lambda: 0)


class TestWithoutGit:
    def test_it_is_made_right_here(self, tmp_path: Path) -> None:
        assert place.default(tmp_path / "a") == tmp_path / "a" / ".cas"
        assert place.git_top(tmp_path) is None

    def test_it_is_found_from_below(self, tmp_path: Path) -> None:
        create(tmp_path / ".cas")
        (tmp_path / "a" / "b").mkdir(parents=True)
        for start in (tmp_path, tmp_path / "a" / "b", tmp_path / "not" / "there"):
            assert place.find(start) == tmp_path / ".cas"

    def test_the_nearest_one_counts(self, tmp_path: Path) -> None:
        create(tmp_path / ".cas")
        create(tmp_path / "a" / ".cas")
        assert place.find(tmp_path / "a" / "b") == tmp_path / "a" / ".cas"

    def test_it_is_found_from_inside(self, tmp_path: Path) -> None:
        create(tmp_path / "store")
        assert place.find(tmp_path / "store") == tmp_path / "store"
        assert place.find(tmp_path / "store" / "roots") == tmp_path / "store"

    def test_a_relative_start_walks_up_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(tmp_path / ".cas")
        (tmp_path / "a").mkdir()
        monkeypatch.chdir(tmp_path / "a")
        assert place.find(Path()) == tmp_path / ".cas"
        assert place.default(Path()) == tmp_path / "a" / ".cas"

    def test_nothing_is_said_with_the_place_and_the_next_step(self, tmp_path: Path) -> None:
        with pytest.raises(NoRepositoryError, match=r"cas init"):
            place.find(tmp_path)

    def test_a_file_called_format_makes_no_repository(self, tmp_path: Path) -> None:
        (tmp_path / "format").write_text("3.0 (quilt)\n")
        (tmp_path / ".cas").mkdir()
        with pytest.raises(NoRepositoryError):
            place.find(tmp_path)


class TestBesideGit:
    def test_it_is_made_and_found_inside_of_git(self, work: Path) -> None:
        (work / "src").mkdir()
        assert place.default(work / "src") == work / ".git" / "cas"
        assert place.git_top(work / "src") == work
        create(place.default(work))
        assert place.find(work / "src") == work / ".git" / "cas"

    def test_work_trees_share_it(self, work: Path, tmp_path: Path) -> None:
        create(place.default(work))
        git(work, "worktree", "add", "-q", "-b", "other", str(tmp_path / "second"))
        assert place.find(tmp_path / "second") == work / ".git" / "cas"
        assert place.default(tmp_path / "second") == work / ".git" / "cas"
        assert place.git_top(tmp_path / "second") == tmp_path / "second"

    def test_a_submodule_has_its_own(self, work: Path, tmp_path: Path) -> None:
        library = tmp_path / "library"
        git(tmp_path, "clone", "-q", str(work), str(library))
        git(
            work, "-c", "protocol.file.allow=always",
            "submodule", "add", "-q", str(library), "lib",
        )  # fmt: skip
        assert place.default(work / "lib") == work / ".git" / "modules" / "lib" / "cas"

    def test_one_that_is_called_for_by_name_is_found_too(self, work: Path) -> None:
        create(work / ".cas")
        assert place.find(work) == work / ".cas"

    @pytest.mark.parametrize(
        "pointer", ["", "gitdir: ", "gitdir: /nowhere", "nonsense", "\udcff", "gitdir: x\0y"]
    )
    def test_a_pointer_that_leads_nowhere_is_no_trouble(self, tmp_path: Path, pointer: str) -> None:
        (tmp_path / ".git").write_bytes(os.fsencode(pointer))
        with pytest.raises(NoRepositoryError):
            place.find(tmp_path)

    def test_an_empty_git_folder_is_none(self, tmp_path: Path) -> None:
        (tmp_path / ".git").mkdir()
        assert place.default(tmp_path) == tmp_path / ".cas"


class TestWhatGitDoes:
    """Nothing that git does to a work tree touches the repository, nor does git ever see it."""

    @pytest.fixture
    def data(self) -> dict[str, bytes]:
        return {"weights": b"w" * 700_000, "a": b"1"}

    @pytest.fixture
    def repo(self, work: Path, data: dict[str, bytes]) -> Iterator[Repo]:
        repo = create(place.default(work))
        id = commit_files(repo, data, ref="tags/one")
        yield repo
        fresh = Repo.open(place.find(work))
        assert fresh.root.refs == {"tags/one": id}
        assert read_tree(fresh, fresh.commit(id).tree) == data
        assert git(work, "status", "--porcelain", "--ignored") == ""
        git(work, "fsck", "--strict")

    def test_clean(self, repo: Repo, work: Path) -> None:
        (work / "junk").mkdir()
        (work / "junk" / "x").write_bytes(b"x")
        git(work, "clean", "-ffdx")
        assert not (work / "junk").exists()

    def test_stash_all(self, repo: Repo, work: Path) -> None:
        (work / "new.py").write_text("x\n")
        (work / ".gitignore").write_text("*.tmp\n")
        (work / "x.tmp").write_text("x\n")
        git(work, "stash", "push", "-q", "-a")
        assert sorted(path.name for path in work.iterdir()) == [".git", "train.py"]

    def test_switching_branches(self, repo: Repo, work: Path) -> None:
        git(work, "switch", "-q", "-c", "other")
        git(work, "rm", "-q", "train.py")
        git(work, "commit", "-q", "-m", "two")
        git(work, "switch", "-q", "main")
        git(work, "switch", "-q", "other")

    def test_an_orphan_branch_and_a_hard_reset(self, repo: Repo, work: Path) -> None:
        (work / "train.py").write_text("changed\n")
        git(work, "reset", "-q", "--hard")
        git(work, "switch", "-q", "--orphan", "empty")
        (work / "other.py").write_text("x\n")
        git(work, "add", ".")
        git(work, "commit", "-q", "-m", "another beginning")

    def test_a_work_tree_that_comes_and_goes(self, repo: Repo, work: Path, tmp_path: Path) -> None:
        second = tmp_path / "second"
        git(work, "worktree", "add", "-q", "--detach", str(second))
        assert place.find(second) == place.find(work)
        git(second, "clean", "-ffdx")
        git(work, "worktree", "remove", "--force", str(second))

    def test_housekeeping(self, repo: Repo, work: Path) -> None:
        git(work, "gc", "-q", "--prune=now", "--aggressive")
        git(work, "pack-refs", "--all")
