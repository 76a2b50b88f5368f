"""`cas prune` shows its plan with the reasons, asks, and then does exactly that."""

import pytest

from cas.cli.session import Session
from cas.plain import human_bytes
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.retain.vocabulary import WORDS, flag
from tests.cli.conftest import Cas
from tests.support.builders import RunBuilder, noise, pack_files, set_ref


@pytest.fixture
def runs(repo: Repo) -> list[RunBuilder]:
    found = []
    for number, name in enumerate(("exp/one", "other/two")):
        run = RunBuilder(repo, name)
        for step, loss in enumerate((3.0, 1.0, 2.0, 4.0)):
            weights = noise(10 * number + step, 300_000)
            run.checkpoint(step, {"w": weights}, value=loss, metrics={"acc": loss / 10})
        run.finish()
        found.append(run)
    return found


def holds(repo: Repo) -> int:
    return sum(name.startswith(HOLDS) for name in repo.refresh().refs)


class Asked(Session):  # type: ignore[misc, unused-ignore]
    """A session whose user answers."""

    def __init__(self, answer: bool) -> None:
        super().__init__()
        self.answer = answer
        self.question = ""

    def confirm(self, question: str) -> bool:
        self.question = question
        return self.answer


def test_the_plan_names_every_checkpoint_with_its_reasons(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    set_ref(repo, "tags/v1", runs[0].ids[0])
    result = cas("prune", "--keep-best", "1", "--dry-run")
    assert result.code == 0
    first, second, third, newest, *_ = result.lines
    assert "exp/one" in first
    assert first.endswith("kept: tag v1")
    assert "loss 1" in second
    assert second.endswith("kept: best 1 by loss")
    assert third.endswith("dropped")
    assert newest.endswith("kept: newest of the run")
    assert "3 checkpoints to let go, 5 kept" in result.lines[-1]
    assert holds(repo) == 8


def test_without_a_terminal_and_without_yes_nothing_happens(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    result = cas("prune", "--keep-last", "1")
    assert result.code == 6
    assert "--yes" in result.err
    assert holds(repo) == 8


@pytest.mark.parametrize(("answer", "left"), [(True, 2), (False, 8)])
def test_asks_first(cas: Cas, repo: Repo, runs: list[RunBuilder], answer: bool, left: int) -> None:
    session = Asked(answer)
    cas("prune", "--keep-last", "1", session=session)
    assert session.question == "Let go of 6 checkpoints?"
    assert holds(repo) == left


def test_only_what_is_named_is_pruned(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    assert cas("prune", "exp", "--keep-max", "acc=1", "--yes").code == 0
    held = {name for name in repo.refresh().refs if name.startswith(HOLDS)}
    assert f"{HOLDS}{runs[0].ids[3]}" in held
    assert len(held) == 5


def test_gc_frees_at_once_what_the_plan_said(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    before = sum(pack_files(repo).values())
    told = cas("prune", "--keep-min", "loss=1", "--yes", "--gc", "--json").json
    assert told["done"]
    assert (told["dropped_checkpoints"], told["kept_checkpoints"]) == (4, 4)
    assert told["gc"]["freed_bytes"] == told["freed_bytes"]
    assert told["freed_bytes"] == before - sum(pack_files(repo).values()) > 1_200_000
    row = next(row for row in told["decisions"] if row["keep"])
    assert row["reasons"] == ["lowest 1 by loss"]
    assert row["given_bytes"] == 300_000
    assert cas("fsck", "--full").code == 0


def test_what_is_let_go_stays_in_the_log(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    cas("prune", "--keep-best", "1", "--yes", "--gc")
    assert cas("show", str(runs[0].ids[0])).code == 0


def test_with_nothing_to_let_go_nobody_is_asked(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    session = Asked(False)
    assert cas("prune", "--keep-last", "5", session=session).code == 0
    assert session.question == ""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), 2),
        (("--keep-last", "0"), 2),
        (("--keep-last", "x"), 2),
        (("--keep-hourly", "-1"), 2),
        (("--keep-within", "7m"), 2),
        (("--budget", "lots"), 2),
        (("--budget", "0"), 2),
        (("--keep-min", "=1"), 2),
        (("--keep-min", "loss"), 2),
        (("--keep-min", "loss=0"), 2),
        (("--keep-max", "loss=x"), 2),
        (("nope", "--keep-last", "1"), 3),
    ],
)
def test_a_wrong_call_is_told(
    cas: Cas, repo: Repo, runs: list[RunBuilder], args: tuple[str, ...], code: int
) -> None:
    assert cas("prune", *args).code == code
    assert holds(repo) == 8


def test_without_a_rule_the_vocabulary_is_told(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    result = cas("prune", "--yes")
    assert result.code == 2
    for name in WORDS:
        assert flag(name) in result.out
    assert "cas config retention.last 3" in result.err
    assert holds(repo) == 8


class TestConfig:
    """What the config says is done when no option says anything."""

    def test_it_is_applied_and_told(self, cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
        assert cas("config", "retention.last", "1").code == 0
        assert cas("config", "retention.min", "loss=1").code == 0
        result = cas("prune", "--yes")
        assert result.code == 0
        assert "--keep-last 1 --keep-min loss=1" in result.err
        assert holds(repo) == 4

    def test_an_option_takes_its_place(self, cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
        cas("config", "retention.last", "1")
        assert cas("prune", "--keep-last", "3", "--yes").code == 0
        assert holds(repo) == 6

    @pytest.mark.parametrize("value", ['"3"', "0", "[1]", "true"])
    def test_one_that_makes_no_sense_lets_nothing_go(
        self, cas: Cas, repo: Repo, runs: list[RunBuilder], value: str
    ) -> None:
        (repo.path / "config.json").write_text(f'{{"retention.last": {value}}}')
        result = cas("prune", "--yes")
        assert result.code == 2
        assert "retention.last" in result.err
        assert holds(repo) == 8

    def test_a_rule_of_a_newer_version_lets_nothing_go(
        self, cas: Cas, repo: Repo, runs: list[RunBuilder]
    ) -> None:
        (repo.path / "config.json").write_text('{"retention.last": 1, "retention.liked": true}')
        result = cas("prune", "--yes")
        assert result.code != 0
        assert "retention.liked" in result.err
        assert holds(repo) == 8


def test_it_ends_with_what_gc_frees(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    freed = cas("prune", "--keep-last", "1", "--dry-run", "--json").json["freed_bytes"]
    result = cas("prune", "--keep-last", "1", "--yes")
    assert result.lines[-1] == f"let go of 6 checkpoints; `cas gc` frees {human_bytes(freed)}"
    assert cas("gc", "--json").json["freed_bytes"] == freed


def test_a_budget_is_kept_to(cas: Cas, repo: Repo, runs: list[RunBuilder]) -> None:
    told = cas("prune", "--budget", "1MB", "--yes", "--gc", "--json").json
    # 300 kB each: the newest of both runs, and the best one by the monitor.
    assert told["kept_checkpoints"] == 3
    assert told["budget_used_bytes"] <= told["budget_bytes"] == 1_000_000
    assert sum(pack_files(repo).values()) < 1_100_000
    dropped = [row for row in told["decisions"] if not row["keep"]]
    assert all(row["reasons"] == ["over the budget of 1MB"] for row in dropped)


def test_a_budget_that_cannot_be_kept_lets_nothing_go(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    result = cas("prune", "--budget", "500kB", "--yes")
    assert result.code == 6
    assert "over the budget of 500kB" in result.err
    assert holds(repo) == 8


def test_drop_lets_go_of_exactly_what_is_named(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    ids = runs[0].ids
    result = cas("prune", "--drop", ids[1].short, str(ids[3]), "--dry-run")
    assert result.code == 0
    assert result.lines[0].endswith("dropped")
    assert result.lines[1].endswith("dropped: newest of the run")
    assert "2 checkpoints to let go, 0 kept" in result.lines[-1]
    assert holds(repo) == 8
    told = cas("prune", "--drop", ids[1].short, "--yes", "--gc", "--json").json
    assert [row["commit"] for row in told["decisions"]] == [str(ids[1])]
    assert told["gc"]["freed_bytes"] > 300_000
    assert (told["dropped_checkpoints"], holds(repo)) == (1, 7)


def test_drop_names_the_tag_that_has_to_go_first(
    cas: Cas, repo: Repo, runs: list[RunBuilder]
) -> None:
    set_ref(repo, "tags/v1", runs[0].ids[0])
    result = cas("prune", "--drop", "v1", "--yes")
    assert result.code == 6
    assert "tag v1 is at it" in result.err
    assert cas("tag", "-d", "v1").code == 0
    assert cas("prune", "--drop", str(runs[0].ids[0]), "--yes").code == 0
    assert holds(repo) == 7


def test_drop_takes_no_rule_and_needs_a_name(cas: Cas, runs: list[RunBuilder]) -> None:
    assert cas("prune", "--drop", str(runs[0].ids[0]), "--keep-last", "1").code == 2
    assert cas("prune", "--drop").code == 2
    assert cas("prune", "--drop", "exp/one@nothing").code == 2
