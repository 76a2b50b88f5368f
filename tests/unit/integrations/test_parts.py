"""Parts of a sharded checkpoint: held until it is there, and put together when it is read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cas as library  # noqa: E402
from cas.errors import CorruptionError, NotFoundError  # noqa: E402
from cas.ids import CommitId, ManifestId, blob_id  # noqa: E402
from cas.repo.collect import gc  # noqa: E402
from cas.store.packed import PackedStore  # noqa: E402
from cas.tracking.checkpoints import parts, shards  # noqa: E402
from cas.tracking.checkpoints.checkpoint import read_state  # noqa: E402
from cas.tracking.checkpoints.parts import RNG, TENSORS, VALUES, Given  # noqa: E402
from cas.tracking.checkpoints.shards import contents  # noqa: E402
from cas.tracking.checkpoints.storing import Told  # noqa: E402
from cas.tracking.checkpoints.whole import nested  # noqa: E402
from cas.tracking.ends import ending  # noqa: E402
from cas.tracking.run import Run  # noqa: E402
from tests.support.runs import (  # noqa: E402
    only_run,
)

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(folder)
    yield folder
    for end in list(ending._hooks.open):
        end("finished", None)


def test_parts_are_held_until_they_are_published(here: Path) -> None:
    data = np.random.default_rng(1).standard_normal(300_000)
    with library.track("exp", name="r") as run:
        whole = {"shape": [300_000], "offsets": [[0]], "shards": [data]}
        hold(run, 0, {"x": whole}, {})
        _collect(run)
        id = publish(run)
        commit = run.repo.commit(id)
        draft = run.repo.commit(run.repo.refresh().refs[run._live.state.open_ref])
        assert parts.held(run.repo, draft) == {}
        assert commit.volume is not None
        assert commit.volume.stored_bytes > data.nbytes // 2
        _collect(run)
        (shard,) = contents(run.repo, commit).tensors["x"].shards
        ((_, tensor),) = shards.read(run.repo, [shard])
        assert np.array_equal(tensor, data)
    _, ended = only_run(run.repo)
    assert ended.volume is not None
    assert ended.volume.stored_bytes < data.nbytes // 2  # counted once


def test_parts_of_a_save_that_broke_off_are_let_go_of(here: Path) -> None:
    data = np.random.default_rng(1).standard_normal(300_000)
    with library.track("exp", name="r") as run:
        hold(run, 0, {}, {"x": data})
        blob = blob_id(data.tobytes())
        _collect(run)
        assert run.repo.store.find(blob) is not None
    _collect(run)
    run.repo.store.refresh()
    assert run.repo.store.find(blob) is None


def test_parts_of_a_save_that_failed_are_let_go_of_at_once(here: Path) -> None:
    data = np.random.default_rng(1).standard_normal(300_000)
    with library.track("exp", name="r") as run:
        hold(run, 0, {}, {"x": data})
        run._live.hold_part(parts.failed_path(1), lambda tx: parts.failure(tx, "no more"))
        hold(run, 1, {}, {"x": data})  # of a process that has not looked yet
        _collect(run)
        run.repo.store.refresh()
        assert run.repo.store.find(blob_id(data.tobytes())) is None
        assert look(run).reason == "no more"


def test_what_failed_is_remembered_of_a_few_saves(here: Path) -> None:
    with library.track("exp", name="r") as run:
        for save in range(1, 13):
            path = parts.failed_path(save)
            run._live.hold_part(path, partial(parts.failure, text=f"of {save}"))
        assert [look(run, save).failed for save in (4, 5, 12)] == [None, "of 5", "of 12"]


def test_a_draft_that_is_replaced_keeps_the_parts(here: Path) -> None:
    with library.track("exp", name="r") as run:
        hold(run, 0, {}, {"a": 1})
        run.log_artifact(b"x" * 100, "file.bin")
        hold(run, 1, {}, {"b": 2})
        id = publish(run)
        assert contents(run.repo, run.repo.commit(id)).values == {"a": 1, "b": 2}


def test_parts_of_two_saves_are_not_mixed_up(here: Path) -> None:
    with library.track("exp", name="r") as run:
        hold(run, 0, {}, {"a": 1}, save=1)
        hold(run, 1, {}, {"b": 2}, save=2)
        assert [part.number for part in look(run, 1).parts] == [0]
        assert [part.number for part in look(run, 2).parts] == [1]
        hold(run, 0, {}, {"a": 3}, save=2)
        id = publish(run, 2)
        assert contents(run.repo, run.repo.commit(id)).values == {"a": 3, "b": 2}


def test_a_part_is_read_once_however_often_it_is_tried(here: Path) -> None:
    with library.track("exp", name="r") as run:
        array = np.arange(50_000.0)
        writing = Given({TENSORS: [array], VALUES: {}, RNG: ()})
        run._live.hold_part("shards/1/0", writing)
        array[:] = 0  # what reads it again would see this
        run._live.hold_part("shards/1/0", writing)
        (part,) = look(run).parts
        assert part.stored < 10_000
        tensors = run.repo.lookup(part.tree, TENSORS)
        assert tensors is not None
        (told,) = read_state(run.repo, ManifestId(tensors.id))
        assert np.array_equal(told, np.arange(50_000.0))


@pytest.mark.parametrize(
    "shards",
    [
        [([0], 4), ([5], 4)],
        [([0], 4), ([3], 4)],
        [([0], 4)],
        [([0], 4), ([4], 5)],
        [([0], 4), ([2], 2), ([4], 2)],
        [([0, 0], 8)],
        [([-1], 8)],
    ],
    ids=str,
)
def test_pieces_that_do_not_make_up_a_tensor_are_refused(here: Path, shards: Any) -> None:
    with library.track("exp", name="r") as run:
        whole = {
            "shape": [8],
            "offsets": [at for at, _ in shards],
            "shards": [np.zeros(length) for _, length in shards],
        }
        hold(run, 0, {"x": whole}, {})
        id = publish(run)
        with pytest.raises(CorruptionError, match="shards"):
            contents(run.repo, run.repo.commit(id))


def test_a_part_that_is_missing_is_told(here: Path) -> None:
    with library.track("exp", name="r") as run:
        hold(run, 1, {}, {"a": 1})
        id = publish(run)
        with pytest.raises(CorruptionError, match="part 0"):
            contents(run.repo, run.repo.commit(id))


def test_one_tensor_is_read_without_the_others(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((6, 5000))
    halves = {"shape": [6, 5000], "offsets": [[0, 0], [0, 2000]]}
    with library.track("exp", name="r") as run:
        hold(run, 0, {"m.x": {**halves, "shards": [rows[:, :2000], rows[:, 2000:]]}}, {})
        other = {"shape": [9000], "offsets": [[0]], "shards": [np.ones(9000)]}
        hold(run, 1, {"m.y": other}, {"m.z": 1})
        publish(run)
    asked: list[Any] = []
    before = PackedStore.fill_all

    def fill_all(store: PackedStore, wanted: Any) -> None:
        told = list(wanted)
        asked.extend(id for id, _ in told)
        before(store, told)

    monkeypatch.setattr(PackedStore, "fill_all", fill_all)
    assert np.array_equal(library.read_tensor("exp/r", "m.x"), rows)
    assert len(asked) == 2
    assert np.array_equal(library.load("exp/r")["m.x"], rows)
    with pytest.raises(NotFoundError, match=r"m\.. or m\.."):
        library.read_tensor("exp/r", "m.")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({}, {"a": 1, "b": 2}),
        ({"a": ["x", 0], "b": ["x", "0"]}, {"x": {0: 1, "0": 2}}),
        ({"a": ["x", (1,)], "b": ["x", (0,)]}, {"x": [2, 1]}),
    ],
)
def test_values_are_put_where_their_paths_say(paths: Any, expected: Any) -> None:
    assert nested({"a": 1, "b": 2}, paths) == expected


@pytest.mark.parametrize(
    "paths",
    [
        {"a": ["x"], "b": ["x"]},
        {"a": ["x"], "b": ["x", "y"]},
        {"a": ["x", (0,)], "b": ["x", (2**62,)]},
        {"a": ["x", (0,)], "b": ["x", "y"]},
        {"a": [(0,)], "b": [(1,)]},
        {"a": []},
        {"a": "x"},
        {"a": ["x"] * 1000},
        {"a": [("y",)]},
        {"a": [None]},
    ],
    ids=str,
)
def test_paths_that_contradict_each_other_are_corruption(paths: Any) -> None:
    with pytest.raises(CorruptionError, match="shards"):
        nested({"a": 1, "b": 2}, paths)


def hold(run: Run, number: int, tensors: object, values: object, save: int = 1) -> None:
    """Leave a part in the draft, as a process does."""
    given = Given({TENSORS: tensors, VALUES: values, RNG: ()})
    run._live.hold_part(parts.path_of(save, number), given)


def look(run: Run, save: int = 1) -> parts.Save:
    draft = run.repo.refresh().refs[run._live.state.open_ref]
    return parts.look(run.repo, run.repo.commit(draft), save)


def publish(run: Run, save: int = 1) -> CommitId:
    """Publish what the draft holds of a save."""
    found = look(run, save).parts
    told = Told(run._live.moment("running", 1), {"sharded": True}, run._live.now())
    stored = sum(part.stored for part in found)
    return run._storing.name(lambda tx: parts.put_together(tx, found), told, 1, stored)


def _collect(run: Run) -> None:
    planned = gc.plan(run.repo)
    if not planned.empty:
        gc.execute(run.repo, planned)
