"""What people write to name a commit."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import AmbiguousError, CasError, InvalidInputError, NotFoundError
from cas.ids import CommitId
from cas.objects.commit import Parent
from cas.repo.repo import Repo
from cas.repo.revision import resolve, resolve_path, starting
from tests.support.builders import RunBuilder, commit_files, repository, set_ref


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repo, dict[str, CommitId]]:
    """A repository with a history, tags, datasets and runs, and its commits by name."""
    repo = repository(tmp_path_factory.mktemp("shared"))
    ids = {
        "data": commit_files(repo, {"d": b"d"}, ref="datasets/digits", kind="input"),
        "other": commit_files(repo, {"e": b"e"}, ref="datasets/faces", kind="input"),
    }
    ids["m0"] = commit_files(repo, {"a": b"0"})
    ids["m1"] = commit_files(repo, {"a": b"1"}, parents=(Parent("dataset", ids["data"]),))
    ids["m2"] = commit_files(
        repo,
        {"a": b"2"},
        parents=(Parent("dataset", ids["data"]), Parent("dataset", ids["other"], "train")),
    )
    one = RunBuilder(repo, "digits/brave-otter")
    for step, (loss, acc) in enumerate([(0.5, 0.1), (0.2, 0.9), (0.3, 0.8)]):
        ids[f"one{step}"] = one.checkpoint(step, {}, value=loss, metrics={"acc": acc})
    ids["one"] = one.finish({"loss": 0.3, "acc": 0.8})
    two = RunBuilder(repo, "digits/calm-fox")
    for step, (loss, acc) in enumerate([(0.4, 0.95), (float("nan"), 0.0), (0.6, 0.3), (0.7, 0.2)]):
        ids[f"two{step}"] = two.checkpoint(step, {}, value=loss, metrics={"acc": acc})
    ids["two"] = two.finish({"loss": 0.7})
    bare = RunBuilder(repo, "bare/only")
    ids["bare"] = bare.finish({"loss": 0.7})
    set_ref(repo, "tags/v1", ids["m0"])
    set_ref(repo, "tags/digits/best", ids["one1"])
    set_ref(repo, "open/live/draft", ids["m0"])
    return repo, ids


MEANINGS = [
    ("HEAD", "m2"),
    ("main", "m2"),
    ("heads/main", "m2"),
    ("refs/heads/main", "m2"),
    ("v1", "m0"),
    ("tags/v1", "m0"),
    ("digits/best", "one1"),
    ("datasets/digits", "data"),
    ("digits/brave-otter", "one"),
    ("runs/digits/brave-otter", "one"),
    ("refs/runs/digits/brave-otter", "one"),
    ("live/draft", "m0"),
    ("digits", "data"),  # an experiment is no commit; a dataset is
    ("digits@latest", "two"),
    ("digits@best", "one1"),
    ("digits@min=loss", "one1"),
    ("digits@max=loss", "two3"),
    ("digits@max=acc", "two0"),
    ("runs/digits@max=acc", "two0"),
    ("digits/brave-otter@latest", "one2"),
    ("digits/brave-otter@best", "one1"),
    ("digits/calm-fox@best", "two0"),
    ("digits/calm-fox@min=acc", "two1"),
    ("refs/runs/digits/calm-fox@min=acc", "two1"),
    ("bare@latest", "bare"),
    ("bare/only@latest", "bare"),
    ("bare/only@min=loss", "bare"),
    ("HEAD~", "m1"),
    ("HEAD~0", "m2"),
    ("HEAD~2", "m0"),
    ("HEAD~1~1", "m0"),
    ("HEAD~~", "m0"),
    ("main~1^dataset", "data"),
    ("HEAD^previous^dataset", "data"),
    ("digits/brave-otter~1", "one2"),
    ("digits@best~1", "one0"),
]


@pytest.mark.parametrize(("text", "name"), MEANINGS)
def test_a_revision_means(shared: tuple[Repo, dict[str, CommitId]], text: str, name: str) -> None:
    repo, ids = shared
    assert resolve(repo, text) == ids[name]


def test_a_hash_means_its_commit_in_full_and_as_far_as_it_is_unique(
    shared: tuple[Repo, dict[str, CommitId]],
) -> None:
    repo, ids = shared
    for id in ids.values():
        digits = str(id)
        unique = next(n for n in range(4, 65) if len(starting(repo, digits[:n])) == 1)
        for length in {unique, unique + 1, 10, 63, 64}:
            assert resolve(repo, digits[:length]) == id
        assert resolve(repo, digits.upper()) == id
        assert resolve(repo, f"{digits}~0") == id


UNKNOWN = [
    ("nope", "revision nope"),
    ("brave-oter", "did you mean digits/brave-otter"),
    ("digit@latest", "experiment digit"),
    ("abc", "revision abc"),  # too short for a hash
    ("0" * 64, "revision"),
    ("f" * 65, "revision"),
    ("HEAD~3", "only 2 come before"),
    ("HEAD^evaluates", "^dataset, ^previous"),
    ("v1^previous", "no parents"),
    ("bare", "bare@latest"),
    ("digits@min=nope", "acc, loss"),
    ("bare@best", "@latest"),
    ("@latest", "experiment"),
]


@pytest.mark.parametrize(("text", "said"), UNKNOWN)
def test_what_is_not_there_says_what_is(
    shared: tuple[Repo, dict[str, CommitId]], text: str, said: str
) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve(shared[0], text)
    assert said in str(caught.value)


WRONG = [
    *("", "~1", "^dataset", "HEAD~x", "HEAD~-1", "HEAD~" + "9" * 30, "HEAD:a", "a:b:c"),
    *("digits@", "digits@top", "digits@latest=1", "digits@min", "digits@min="),
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_revision_is_a_wrong_call(
    shared: tuple[Repo, dict[str, CommitId]], text: str
) -> None:
    with pytest.raises(InvalidInputError):
        resolve(shared[0], text)


def test_an_ambiguous_role_lists_its_commits(shared: tuple[Repo, dict[str, CommitId]]) -> None:
    repo, ids = shared
    with pytest.raises(AmbiguousError) as caught:
        resolve(repo, "HEAD^dataset")
    assert caught.value.candidates == (ids["data"].short, f"{ids['other'].short} (train)")


def test_an_ambiguous_word_lists_what_it_could_be(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    first = commit_files(repo, {"a": b"1"})
    second = commit_files(repo, {"a": b"2"})
    set_ref(repo, "tags/main", first)
    with pytest.raises(AmbiguousError) as caught:
        resolve(repo, "main")
    assert caught.value.candidates == ("heads/main", "tags/main")
    assert resolve(repo, "heads/main") == second
    set_ref(repo, "tags/main", second)
    assert resolve(repo, "main") == second


def test_a_name_that_is_also_a_hash_is_ambiguous(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    first = commit_files(repo, {"a": b"1"})
    second = commit_files(repo, {"a": b"2"})
    set_ref(repo, f"tags/{first.hex()[:8]}", second)
    with pytest.raises(AmbiguousError) as caught:
        resolve(repo, first.hex()[:8])
    assert f"commit {first.short}" in caught.value.candidates


def test_hashes_that_begin_alike_are_ambiguous(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    seen: dict[str, CommitId] = {}
    for number in range(10_000):
        id = commit_files(repo, {"a": str(number).encode()}, ref=f"tags/t{number}")
        clash = seen.get(id.hex()[:1])
        if clash is not None:
            break
        seen[id.hex()[:1]] = id
    assert starting(repo, id.hex()[:1]) == sorted([clash or id, id])


def test_runs_that_monitor_different_metrics_have_no_best(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    RunBuilder(repo, "e/one").checkpoint(0, {}, value=1.0)
    RunBuilder(repo, "e/two").checkpoint(0, {}, value=2.0, mode="max")
    with pytest.raises(InvalidInputError, match="@max=loss or @min=loss"):
        resolve(repo, "e@best")


def test_what_was_said_to_be_the_best_of_a_run_is_that(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    one, two = RunBuilder(repo, "e/one"), RunBuilder(repo, "e/two")
    for step, (loss, best) in enumerate([(0.1, False), (0.5, True), (0.4, True), (0.2, False)]):
        one.checkpoint(step, {}, value=loss, best=best)
    one.finish({"loss": 0.2})
    two.checkpoint(0, {}, value=0.45)
    assert resolve(repo, "e/one@best") == one.ids[2]
    # Among runs the values count: of each run that of its best.
    assert resolve(repo, "e@best") == one.ids[2]
    two.checkpoint(1, {}, value=0.3)
    assert resolve(repo, "e@best") == two.ids[1]
    assert resolve(repo, "e@min=loss") == one.ids[0]


def test_it_needs_no_metric_for_that(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    one, two = RunBuilder(repo, "e/one"), RunBuilder(repo, "e/two")
    for step, best in enumerate([True, False]):
        one.checkpoint(step, {}, best=best)
    two.checkpoint(0, {})
    assert resolve(repo, "e/one@best") == one.ids[0]
    assert resolve(repo, "e@best") == one.ids[0]
    with pytest.raises(NotFoundError, match="no monitored metric"):
        resolve(repo, "e/two@best")
    two.checkpoint(1, {}, value=5.0)
    assert resolve(repo, "e@best") == two.ids[1]


def test_a_run_is_judged_by_the_metric_that_its_newest_checkpoint_goes_by(tmp_path: Path) -> None:
    """The first checkpoints may come before any validation."""
    repo = repository(tmp_path)
    run = RunBuilder(repo, "e/one")
    run.checkpoint(0, {}, value=0.01, metric="loss")
    run.checkpoint(1, {}, value=0.5, metric="val/loss")
    run.checkpoint(2, {}, value=0.6, metric="val/loss")
    assert resolve(repo, "e/one@best") == resolve(repo, "e@best") == run.ids[1]


def test_a_run_whose_commit_names_no_run_stands_for_itself(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    id = commit_files(repo, {"a": b"1"}, ref="runs/e/odd")
    assert resolve(repo, "e/odd@latest") == id
    assert resolve(repo, "e@latest") == id


def test_only_commits_are_meant_by_a_hash(shared: tuple[Repo, dict[str, CommitId]]) -> None:
    repo, ids = shared
    with pytest.raises(NotFoundError):
        resolve(repo, str(repo.commit(ids["m0"]).tree))


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("HEAD", "m2", b""),
        ("HEAD:", "m2", b""),
        ("HEAD:/", "m2", b""),
        ("HEAD~1:a/b", "m1", b"a/b"),
        ("digits@best:with:colon", "one1", b"with:colon"),
        ("HEAD:~1^x@y", "m2", b"~1^x@y"),
        ("HEAD:bad\udcff", "m2", b"bad\xff"),
    ],
)
def test_a_colon_begins_a_path(
    shared: tuple[Repo, dict[str, CommitId]], text: str, name: str, path: bytes
) -> None:
    assert resolve_path(shared[0], text) == (shared[1][name], path)


@pytest.mark.parametrize("text", ["HEAD:../x", "HEAD:a/./b", ":x"])
def test_a_path_stays_in_its_commit(shared: tuple[Repo, dict[str, CommitId]], text: str) -> None:
    with pytest.raises(InvalidInputError):
        resolve_path(shared[0], text)


@given(st.text(st.sampled_from("abcdef0129HEAD@~^:=/.main\udcff latestminbest"), max_size=20))
def test_any_text_means_a_commit_or_says_why_not(
    shared: tuple[Repo, dict[str, CommitId]], text: str
) -> None:
    repo, ids = shared
    with suppress(CasError):
        id, _ = resolve_path(repo, text)
        assert id in ids.values()
