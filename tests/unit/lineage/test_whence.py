"""A file is known by its bytes, or by the tensors in it."""

import io
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from cas.errors import BackendError, InvalidInputError, NotFoundError
from cas.ids import BlobId, CommitId, blob_id
from cas.lineage.whence import Answer, whence
from cas.objects.commit import COMMIT, INPUT, Commit, Parent
from cas.objects.tree import Entry, EntryKind, build
from cas.repo.repo import Repo
from cas.repo.transaction import Transaction, transact
from cas.repo.trees.cutting import store_tensors
from cas.repo.trees.tensors import Listing, tensors_of
from tests.support.builders import repository
from tests.support.lineage import checkpoint, make, prune
from tests.support.tensorfiles import archive, canary, safetensors, state_dict, tensor

RNG = np.random.default_rng(1)
MODEL = {f"layer{n}.weight": RNG.normal(size=(4, 25)).astype(np.float32) for n in range(3)}
SCALE = {"scale": np.array(0.5, np.float32)}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def saved(arrays: dict[str, np.ndarray]) -> bytes:
    return safetensors({n: ("F32", list(a.shape), a.tobytes()) for n, a in arrays.items()})


def ask(repo: Repo, file: Path, data: bytes) -> Answer:
    file.write_bytes(data)
    return whence(repo, file)


class TestBytes:
    def test_every_place_of_a_file_is_found_newest_first(self, repo: Repo, file: Path) -> None:
        old = make(repo, record={"code/a/train.py": b"x"}, time=1)
        new = make(repo, payload={"artifacts/copy": b"x"}, record={"code/b": b"x"}, time=2)
        other = make(repo, record={"code/a/train.py": b"y"}, time=3)
        answer = ask(repo, file, b"x")
        assert answer.known
        assert answer.id == blob_id(b"x")
        assert [(one.commit, one.path) for one in answer.exact] == [
            (new, "artifacts/copy"),
            (new, "code/b"),
            (old, "code/a/train.py"),
        ]
        assert other not in {one.commit for one in answer.exact}
        assert (answer.format, answer.tensors, answer.matches) == (None, None, ())

    def test_an_input_is_found_under_the_runs_that_used_it(self, repo: Repo, file: Path) -> None:
        data = make(
            repo, kind=INPUT, documents={"input": {"name": "digits"}}, payload={"data": b"rows"}
        )
        make(repo, parents=(Parent("dataset", data),))
        (one,) = ask(repo, file, b"rows").exact
        assert (one.commit, one.title, one.path) == (data, "input digits", "data")

    def test_a_large_file_is_found_by_its_whole_content(self, repo: Repo, file: Path) -> None:
        data = os.urandom(3_000_000)
        id = make(repo, kind=COMMIT, run=None, payload={"large": data}, message="big\nfile")
        (one,) = ask(repo, file, data).exact
        assert (one.commit, one.title) == (id, "big")

    def test_nothing_is_known_of_another_file(self, repo: Repo, file: Path) -> None:
        make(repo, record={"code/a": b"x"})
        answer = ask(repo, file, b"z")
        assert not answer.known
        assert answer.pruned == 0

    def test_what_was_pruned_cannot_be_found_and_is_counted(self, repo: Repo, file: Path) -> None:
        id = make(repo, payload={"artifacts/model": b"m" * 100})
        assert ask(repo, file, b"m" * 100).known
        prune(repo, id)
        answer = ask(repo, file, b"m" * 100)
        assert (answer.known, answer.pruned) == (False, 1)

    def test_commits_without_a_ref_are_not_looked_at(self, repo: Repo, file: Path) -> None:
        first = make(repo, record={"code/a": b"x"})
        make(repo, record={"code/a": b"y"}, before=first)
        assert [one.commit for one in ask(repo, file, b"x").exact] == [first]


class TestTensors:
    def test_a_weights_file_is_known_by_its_tensors(self, repo: Repo, file: Path) -> None:
        state = {"model": MODEL | SCALE, "optimizer": {"m": np.ones(50)}}
        id = checkpoint(repo, state, step=3)
        answer = ask(repo, file, saved(MODEL | SCALE))
        assert (answer.format, answer.tensors, answer.exact) == ("safetensors", 4, ())
        (match,) = answer.matches
        assert (match.equal, match.tensors, match.part) == (4, 4, "model")
        (one,) = match.holders
        assert (one.commit, one.title, one.path) == (id, "exp/one checkpoint 3", "state")

    def test_every_container_gives_the_same_answer(self, repo: Repo, file: Path) -> None:
        weight = MODEL["layer0.weight"]
        checkpoint(repo, {"model": {"w": weight}})
        pickled = state_dict({"anything": tensor("0", (4, 25))})
        out = io.BytesIO()
        np.save(out, weight)
        contents = [
            archive(pickled, {"0": weight.tobytes()}),
            saved({"w": weight}),
            out.getvalue(),
        ]
        answers = [ask(repo, file, data) for data in contents]
        assert [answer.format for answer in answers] == ["torch.save", "safetensors", "npy"]
        assert len({answer.matches for answer in answers}) == 1
        assert answers[0].matches[0].equal == 1

    def test_the_nearest_is_told_when_none_has_all(self, repo: Repo, file: Path) -> None:
        near = checkpoint(repo, {"model": MODEL}, step=1, time=1)
        far = {**MODEL, "layer0.weight": -MODEL["layer0.weight"]}
        checkpoint(repo, {"model": far}, step=2, time=2)
        changed = {**MODEL, "layer1.weight": MODEL["layer1.weight"] + 1}
        answer = ask(repo, file, saved(changed))
        assert [(match.equal, match.tensors) for match in answer.matches] == [(2, 3), (1, 3)]
        assert answer.matches[0].holders[0].commit == near

    def test_with_all_tensors_found_the_nearest_is_not_told(self, repo: Repo, file: Path) -> None:
        checkpoint(repo, {"model": MODEL}, time=1)
        checkpoint(repo, {"model": MODEL, "extra": {"a": np.ones(3)}}, time=2)
        checkpoint(repo, {"model": {**MODEL, "layer0.weight": MODEL["layer1.weight"]}}, time=3)
        matches = ask(repo, file, saved(MODEL)).matches
        assert [(match.equal, match.holders[0].time) for match in matches] == [(3, 2), (3, 1)]

    def test_equal_states_are_one_match_with_several_commits(self, repo: Repo, file: Path) -> None:
        ids = [checkpoint(repo, {"model": MODEL}, run=run, time=n) for n, run in enumerate("ab", 1)]
        (match,) = ask(repo, file, saved(MODEL)).matches
        assert [one.commit for one in match.holders] == ids[::-1]

    def test_a_whole_checkpoint_is_no_part_of_one(self, repo: Repo, file: Path) -> None:
        checkpoint(repo, {"model": MODEL, "optimizer": {"m": np.ones(50, np.float32)}})
        (match,) = ask(repo, file, saved({**MODEL, "m": np.ones(50, np.float32)})).matches
        assert (match.equal, match.tensors, match.part) == (4, 4, None)

    def test_counters_and_zeros_alone_mean_nothing(self, repo: Repo, file: Path) -> None:
        checkpoint(repo, {"model": MODEL | SCALE})
        changed = {name: array + 1 for name, array in MODEL.items()}
        assert not ask(repo, file, saved(changed | SCALE)).known
        assert ask(repo, file, saved(SCALE)).known

    def test_shape_and_dtype_belong_to_a_tensor(self, repo: Repo, file: Path) -> None:
        checkpoint(repo, {"model": {"w": MODEL["layer0.weight"]}})
        assert not ask(repo, file, saved({"w": MODEL["layer0.weight"].reshape(10, 10)})).known

    def test_tensors_of_pruned_checkpoints_are_gone(self, repo: Repo, file: Path) -> None:
        id = checkpoint(repo, {"model": MODEL})
        prune(repo, id)
        answer = ask(repo, file, saved(MODEL))
        assert (answer.known, answer.pruned, answer.tensors) == (False, 1, 3)

    def test_tensors_that_are_not_row_by_row_are_not_compared(self, repo: Repo, file: Path) -> None:
        weight = MODEL["layer0.weight"]
        checkpoint(repo, {"model": {"w": weight}})
        turned = tensor("0", (25, 4), strides=(1, 25))
        pickled = state_dict({"w": tensor("0", (4, 25)), "t": turned})
        answer = ask(repo, file, archive(pickled, {"0": weight.tobytes()}))
        assert (answer.tensors, answer.not_compared) == (2, 1)
        assert answer.matches[0].equal == 1

    def test_arrays_of_a_dataset_are_known(self, repo: Repo, file: Path) -> None:
        array = RNG.normal(size=(30, 4))
        id = make(repo, kind=INPUT, documents={"input": {"name": "d"}}, state={"x": array})
        np.save(file.with_suffix(".npy"), array)
        (match,) = whence(repo, file.with_suffix(".npy")).matches
        assert (match.part, match.holders[0].commit) == (None, id)

    def test_torch_files_are_known(self, repo: Repo, file: Path) -> None:
        torch = pytest.importorskip("torch")
        checkpoint(repo, {"model": MODEL})
        torch.save({name: torch.from_numpy(array) for name, array in MODEL.items()}, file)
        (match,) = whence(repo, file).matches
        assert (match.equal, match.part) == (3, "model")

    def test_a_pickle_is_never_executed(self, repo: Repo, file: Path, tmp_path: Path) -> None:
        answer = ask(repo, file, archive(canary(str(tmp_path / "made")), {}))
        assert answer.format is None
        assert not (tmp_path / "made").exists()


def committed(repo: Repo, data: bytes, *, time: int = 1) -> CommitId:
    """Commit a file that is cut at its tensors."""

    def write(tx: Transaction) -> CommitId:
        found = store_tensors(tx.writer, io.BytesIO(data), len(data))
        assert found is not None
        tree = build([Entry(b"w.bin", EntryKind.FILE, *found, 0o644)], tx.writer.tree)
        id = tx.record(Commit(kind=COMMIT, tree=tree.id, message="weights", time=time))
        tx.set_ref(f"tags/{id.short}", id)
        return id

    return transact(repo, "commit", write)


class TestCommittedFiles:
    BIG: ClassVar = {f"layer{n}": RNG.normal(size=(100, 90)).astype(np.float32) for n in range(3)}

    def torch(self, arrays: dict[str, np.ndarray]) -> bytes:
        pushed = {n: tensor(str(k), a.shape) for k, (n, a) in enumerate(arrays.items())}
        data = {str(k): a.tobytes() for k, a in enumerate(arrays.values())}
        return archive(state_dict(pushed), data)

    @pytest.mark.parametrize("small", [False, True])
    def test_weights_are_known_by_a_file_of_another_kind(
        self, repo: Repo, file: Path, *, small: bool
    ) -> None:
        if small:
            id = make(repo, payload={"w.bin": self.torch(MODEL)})
            answer = ask(repo, file, saved(MODEL))
        else:
            id = committed(repo, self.torch(self.BIG))
            answer = ask(repo, file, saved(self.BIG))
        assert answer.exact == ()
        (match,) = answer.matches
        assert (match.equal, match.tensors, match.part) == (3, 3, None)
        assert [(one.commit, one.path) for one in match.holders] == [(id, "w.bin")]

    def test_the_nearest_file_is_told(self, repo: Repo, file: Path) -> None:
        committed(repo, saved(self.BIG))
        changed = {**self.BIG, "layer1": self.BIG["layer1"] + 1}
        (match,) = ask(repo, file, self.torch(changed)).matches
        assert (match.equal, match.tensors) == (2, 3)

    def test_states_and_files_are_ranked_together(self, repo: Repo, file: Path) -> None:
        committed(repo, saved({**self.BIG, "layer1": self.BIG["layer1"] + 1}), time=3)
        checkpoint(repo, {"model": self.BIG}, time=1)
        asked = {**self.BIG, "layer2": self.BIG["layer2"] + 1}
        matches = ask(repo, file, self.torch(asked)).matches
        assert [(match.equal, match.holders[0].path) for match in matches] == [
            (2, "state"),
            (1, "w.bin"),
        ]
        committed(repo, saved(asked), time=2)
        (match,) = ask(repo, file, self.torch(asked)).matches
        assert (match.equal, match.holders[0].path) == (3, "w.bin")

    def test_the_very_file_is_told_once(self, repo: Repo, file: Path) -> None:
        id = committed(repo, saved(self.BIG))
        answer = ask(repo, file, saved(self.BIG))
        assert [one.commit for one in answer.exact] == [id]
        assert answer.matches == ()

    def test_shape_counts_and_small_tensors_do_not(self, repo: Repo, file: Path) -> None:
        committed(repo, saved(self.BIG | SCALE))
        turned = {name: array.reshape(90, 100) for name, array in self.BIG.items()}
        assert not ask(repo, file, saved(turned)).known
        other = {name: array + 1 for name, array in self.BIG.items()}
        assert not ask(repo, file, saved(other | SCALE)).known

    def test_a_file_is_looked_at_once(
        self, repo: Repo, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looked: list[BlobId] = []

        def watched(repo: Repo, id: BlobId) -> Listing | None:
            looked.append(id)
            return tensors_of(repo, id)

        monkeypatch.setattr("cas.lineage.filetensors.tensors_of", watched)
        data = saved(self.BIG)
        for time in (1, 2, 3):
            committed(repo, data, time=time)
        committed(repo, saved({"other": RNG.normal(size=(200, 90)).astype(np.float32)}))
        make(repo, payload={"opaque": os.urandom(700_000)})
        assert ask(repo, file, self.torch(self.BIG)).known
        assert looked == [blob_id(data)]


class TestBadFiles:
    def test_a_missing_file_is_named(self, repo: Repo, file: Path) -> None:
        with pytest.raises(NotFoundError, match=r"file .*/file not found"):
            whence(repo, file)

    def test_a_folder_or_pipe_is_refused_at_once(self, repo: Repo, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(InvalidInputError, match="is no file"):
                whence(repo, path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_an_unreadable_file_is_named(self, repo: Repo, file: Path) -> None:
        file.write_bytes(b"x")
        file.chmod(0)
        with pytest.raises(BackendError, match="cannot read"):
            whence(repo, file)
