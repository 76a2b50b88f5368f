"""`why` tells the shortest way from a ref to an object, or that nothing keeps it."""

from pathlib import Path

import pytest

from cas.errors import AmbiguousError, InvalidInputError, NotFoundError
from cas.ids import ObjectId, blob_id
from cas.objects.commit import DATASET, INPUT, Parent
from cas.objects.kind import Kind
from cas.repo.collect import gc
from cas.repo.layout import DATASETS, HOLDS, MAIN
from cas.repo.repo import Repo
from cas.repo.report.why import Reason, starting, why
from tests.support.builders import RunBuilder, commit_files, noise, repository, set_ref


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def told(found: Reason) -> list[str]:
    return [f"{step.kind.name.lower()} {step.to}".strip() for step in found.steps]


def test_a_file_is_kept_by_the_ref_that_leads_to_it(repo: Repo) -> None:
    data = noise(1, 1000)
    id = commit_files(repo, {"sub": {"a.bin": data}})
    found = why(repo, blob_id(data))
    assert found.ref == MAIN
    assert told(found) == ["commit record", "tree sub", "tree a.bin", "blob"]
    assert found.steps[0].id == id
    assert found.steps[-1].id == blob_id(data)
    assert found.others == ()


def test_the_shortest_way_is_told_and_the_others_are_counted(repo: Repo) -> None:
    data = noise(1, 1000)
    old = commit_files(repo, {"a": data})
    for number in range(3):
        commit_files(repo, {"n": b"%d" % number})
    set_ref(repo, "tags/best", old)
    found = why(repo, blob_id(data))
    assert found.ref == "tags/best"
    assert found.others == (MAIN,)
    set_ref(repo, "tags/best", None)
    found = why(repo, blob_id(data))
    assert told(found) == ["commit previous"] * 3 + ["commit record", "tree a", "blob"]


def test_a_payload_is_kept_by_its_hold_alone(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    first = run.checkpoint(1, {"w": noise(1, 5000)})
    run.checkpoint(2, {"w": noise(2, 5000)})
    found = why(repo, blob_id(noise(1, 5000)))
    assert (found.ref, found.others) == (f"{HOLDS}{first}", ())
    assert told(found) == ["commit payload", "tree state", "manifest w", "blob"]
    set_ref(repo, f"{HOLDS}{first}", None)
    gone = why(repo, blob_id(noise(1, 5000)))
    assert gone.ref is None
    assert gone.stored_bytes > 5000
    gc.execute(repo, gc.plan(repo))
    with pytest.raises(NotFoundError):
        why(repo, gone.id)


def test_what_two_checkpoints_share_is_kept_by_both(repo: Repo) -> None:
    run = RunBuilder(repo, "exp/one")
    ids = [run.checkpoint(n, {"frozen": noise(1, 5000)}) for n in range(3)]
    found = why(repo, blob_id(noise(1, 5000)))
    assert {found.ref, *found.others} == {f"{HOLDS}{id}" for id in ids}


def test_a_piece_is_kept_by_the_blob_that_it_is_a_part_of(repo: Repo) -> None:
    data = noise(1, 2_000_000)
    commit_files(repo, {"big": data})
    place = repo.store.locate(blob_id(data))
    assert place is not None
    recipe = repo.store.recipe(place)
    assert recipe is not None
    piece = next(id for id, _ in recipe.pieces())
    assert told(why(repo, piece)) == ["commit record", "tree big", "blob piece", "blob"]


def test_an_input_is_kept_by_what_was_made_from_it(repo: Repo) -> None:
    data = commit_files(repo, {"d": noise(1, 200)}, ref=f"{DATASETS}d", kind=INPUT)
    commit_files(repo, {"a": b"a"}, parents=(Parent(DATASET, data),))
    set_ref(repo, f"{DATASETS}d", None)
    found = why(repo, data)
    assert (found.kind, found.ref, told(found)) == (Kind.COMMIT, MAIN, ["commit dataset", "commit"])


def test_short_ids(repo: Repo) -> None:
    data = noise(1, 1000)
    commit_files(repo, {"a": data})
    id = blob_id(data)
    assert starting(repo, id.hex()[:10].upper()) == id
    with pytest.raises(InvalidInputError, match="4 to 64"):
        starting(repo, "abc")
    with pytest.raises(InvalidInputError):
        starting(repo, "weights")
    with pytest.raises(NotFoundError):
        starting(repo, ObjectId(b"\1" * 32).hex())


def test_an_id_that_is_too_short_is_not_guessed(repo: Repo) -> None:
    firsts: set[str] = set()
    number = 0
    while len(firsts) == number:  # until two begin with the same four digits
        firsts.add(blob_id(noise(number, 100)).hex()[:4])
        number += 1
    same = blob_id(noise(number - 1, 100)).hex()[:4]
    commit_files(repo, {str(n): noise(n, 100) for n in range(number)})
    with pytest.raises(AmbiguousError):
        starting(repo, same)
