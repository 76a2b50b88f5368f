"""Which pieces are paired: by path, dtype and shape, along the history of a commit."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from cas.codec.element import Element
from cas.ids import BlobId, CommitId, TreeId, blob_id
from cas.objects.commit import BASE_MODEL, DATASET, PREVIOUS, RESUMED_FROM, Parent
from cas.objects.node import Node
from cas.repo.layout import HOLDS, MAIN
from cas.repo.person import Told, commit_paths
from cas.repo.repacking.bases import Candidate, candidates
from cas.repo.repo import Repo
from cas.store.pinned import PinnedStore
from tests.support.builders import repository, set_ref
from tests.support.drift import Tensors, commit_state, floats
from tests.support.tensorfiles import safetensors

COUNT = 5000
FLOAT = Element(4, floating=True)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def found(repo: Repo) -> list[Candidate]:
    root = repo.refresh()
    return list(candidates(repo, PinnedStore(repo.backend, root.packs), root))


def pairs(repo: Repo) -> dict[BlobId, tuple[BlobId, ...]]:
    return {item.piece: item.bases for item in found(repo)}


def tensor(seed: int, step: int = 0, count: int = COUNT) -> tuple[str, tuple[int, ...], bytes]:
    return "float32", (count,), floats(seed, step, count)


def weight(seed: int, step: int = 0, count: int = COUNT) -> BlobId:
    return blob_id(floats(seed, step, count))


def state(**named: tuple[str, tuple[int, ...], bytes]) -> Tensors:
    return {(name,): item for name, item in named.items()}


def test_a_tensor_is_paired_with_that_of_the_commit_before(repo: Repo) -> None:
    for step in range(3):
        commit_state(repo, "models/a", state(w=tensor(1, step), b=tensor(2, 2 * step)))
    assert found(repo) == [
        Candidate(weight(1, 1), 4 * COUNT, FLOAT, (weight(1, 0),)),
        Candidate(weight(2, 2), 4 * COUNT, FLOAT, (weight(2, 0),)),
        Candidate(weight(1, 2), 4 * COUNT, FLOAT, (weight(1, 1),)),
        Candidate(weight(2, 4), 4 * COUNT, FLOAT, (weight(2, 2),)),
    ]


def test_only_of_the_same_path_dtype_and_shape(repo: Repo) -> None:
    data = floats(1, 0)
    commit_state(repo, "models/a", state(w=("float32", (10_000,), data), v=tensor(5)))
    changed = floats(1, 1)
    commit_state(
        repo,
        "models/a",
        state(
            w=("float32", (100, 100), changed),
            v=("int32", (COUNT,), floats(5, 1, COUNT)),
            u=tensor(5, 2),
        ),
    )
    assert found(repo) == []


def test_what_did_not_change_or_is_small_is_not_paired(repo: Repo) -> None:
    for step in range(2):
        commit_state(repo, "models/a", state(w=tensor(1), b=tensor(2, step, 500)))
    assert found(repo) == []


def test_where_the_commit_before_was_let_go_of_the_one_before_that(repo: Repo) -> None:
    ids = [commit_state(repo, "models/a", state(w=tensor(1, step))) for step in range(4)]
    for id in ids[1:3]:
        set_ref(repo, f"{HOLDS}{id}", None)
    assert pairs(repo) == {weight(1, 3): (weight(1, 0),)}
    set_ref(repo, f"{HOLDS}{ids[0]}", None)
    assert pairs(repo) == {}


def test_a_run_leans_on_what_it_was_resumed_from(repo: Repo) -> None:
    first = commit_state(repo, "models/a", state(w=tensor(1, 0)))
    commit_state(repo, "models/b", state(w=tensor(1, 1)), (Parent(RESUMED_FROM, first),))
    assert pairs(repo) == {weight(1, 1): (weight(1, 0),)}


def test_other_roles_pair_nothing(repo: Repo) -> None:
    first = commit_state(repo, "models/a", state(w=tensor(1, 0)))
    commit_state(repo, "models/b", state(w=tensor(1, 1)), (Parent(DATASET, first),))
    assert pairs(repo) == {}


@pytest.mark.parametrize("path", [("w",), ("model", "w"), ("model.w",), ("model", "module.w")])
def test_a_base_model_by_name_wherever_it_stands(repo: Repo, path: tuple[str | int, ...]) -> None:
    base = commit_state(repo, "models/a", {("model.w",): tensor(1), ("x",): tensor(9)}, at="base")
    tuned: Tensors = {path: tensor(1, 1)}
    commit_state(repo, "models/b", tuned, (Parent(BASE_MODEL, base),), at="tuned")
    assert pairs(repo) == {weight(1, 1): (weight(1, 0),)}


def test_a_name_that_is_not_clear_pairs_nothing(repo: Repo) -> None:
    base = commit_state(repo, "models/a", {("a.w",): tensor(1), ("b.w",): tensor(2)}, at="base")
    tuned: Tensors = {("w",): tensor(1, 1), ("b.w",): tensor(2, 1)}
    commit_state(repo, "models/b", tuned, (Parent(BASE_MODEL, base),), at="tuned")
    assert pairs(repo) == {weight(2, 1): (weight(2, 0),)}


def test_the_commit_before_comes_before_the_base_model(repo: Repo) -> None:
    base = commit_state(repo, "models/a", state(w=tensor(1)))
    for step in (1, 2):
        commit_state(repo, "models/b", state(w=tensor(1, step)), (Parent(BASE_MODEL, base),))
    assert pairs(repo) == {
        weight(1, 1): (weight(1, 0),),
        weight(1, 2): (weight(1, 1), weight(1, 0)),
    }


def test_a_large_tensor_pairs_block_by_block(repo: Repo) -> None:
    count = 5 * 2**19  # ten MiB: three blocks
    raws = [bytearray(floats(1, step, count, by=0)) for step in range(2)]
    raws[1][0] ^= 1
    raws[1][-1] ^= 1
    for raw in raws:
        commit_state(repo, "models/a", state(w=("float32", (count,), bytes(raw))))
    block = 4 * 2**20
    first, third = ([blob_id(raw[at : at + block]) for raw in raws] for at in (0, 2 * block))
    assert [(item.piece, item.size, item.bases) for item in found(repo)] == [
        (first[1], block, (first[0],)),
        (third[1], block // 2, (third[0],)),
    ]


def committed(repo: Repo, folder: Path, files: Mapping[str, bytes]) -> CommitId:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return commit_paths(repo, [folder], folder, Told("ada")).id


def weights_file(step: int, *, metadata: str = "") -> bytes:
    tensors = {"net.w": ("F32", [20_000], floats(1, step, 20_000))}
    return safetensors(tensors, {"note": metadata} if metadata else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_tensors_in_files_are_paired(repo: Repo, folder: Path) -> None:
    committed(repo, folder, {"w.safetensors": weights_file(0)})
    committed(repo, folder, {"w.safetensors": weights_file(1, metadata="longer")})
    assert pairs(repo) == {weight(1, 1, 20_000): (weight(1, 0, 20_000),)}
    (item,) = found(repo)
    assert item.element == FLOAT


def test_a_file_that_has_another_name_is_found_by_its_tensors(repo: Repo, folder: Path) -> None:
    committed(repo, folder, {"step-1.safetensors": weights_file(0)})
    committed(repo, folder, {"step-2.safetensors": weights_file(1)})
    assert pairs(repo) == {weight(1, 1, 20_000): (weight(1, 0, 20_000),)}


def test_a_state_leans_on_a_base_model_in_a_file(repo: Repo, folder: Path) -> None:
    base = committed(repo, folder, {"model.safetensors": weights_file(0)})
    tuned: Tensors = {("model", "net.w"): tensor(1, 1, 20_000)}
    commit_state(repo, "models/b", tuned, (Parent(BASE_MODEL, base),))
    assert pairs(repo) == {weight(1, 1, 20_000): (weight(1, 0, 20_000),)}


def test_files_without_tensors_pair_nothing(repo: Repo, folder: Path) -> None:
    for step in range(2):
        committed(repo, folder, {"data.bin": bytes(1_000_000) + bytes([step])})
    assert pairs(repo) == {}


def test_older_commits_come_first_whatever_their_names_are(repo: Repo) -> None:
    first = commit_state(repo, "models/z", state(w=tensor(1, 0)))
    second = commit_state(repo, "models/m", state(w=tensor(1, 1)), (Parent(PREVIOUS, first),))
    commit_state(repo, "models/a", state(w=tensor(1, 2)), (Parent(PREVIOUS, second),))
    assert [item.piece for item in found(repo)] == [weight(1, 1), weight(1, 2)]
    assert MAIN not in repo.refresh().refs


def test_what_did_not_change_between_two_commits_is_not_read(
    repo: Repo, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number}.txt": b"%d" % number for number in range(3000)}
    committed(repo, folder, files | {"w.safetensors": weights_file(0)})
    committed(repo, folder, files | {"w.safetensors": weights_file(1)})
    nodes: list[object] = []
    read = repo.node

    def counted(id: TreeId) -> Node:
        nodes.append(id)
        return read(id)

    monkeypatch.setattr(repo, "node", counted)
    assert len(found(repo)) == 1
    assert len(nodes) <= 8
