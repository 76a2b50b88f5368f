"""fsck looks for the base of every delta, and with `full` decodes each."""

import os
from pathlib import Path

import pytest

from cas.codec.element import Element
from cas.ids import BlobId, blob_id
from cas.repo import root as roots
from cas.repo.check import fsck
from cas.repo.check.fsck import ERROR, WARNING, Finding
from cas.repo.layout import HOLDS
from cas.repo.repo import Repo
from cas.repo.root import Operation
from cas.store import pack as packs
from cas.store.encoding import Base, Record, encode_delta
from cas.store.pack import PackClass, PackInfo, PackWriter
from cas.store.record import RecordHeader
from tests.support.builders import RunBuilder, reopened, repository, set_ref
from tests.support.drift import drifting, places

SIZE = 300_000
UNDER, OVER = drifting(1, 0, SIZE), drifting(1, 1, SIZE)
ELEMENT = Element(1)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return repository(tmp_path)


def delta(depth: int = 0, under: bytes = UNDER) -> Record:
    record = encode_delta(blob_id(OVER), OVER, Base(blob_id(under), under, depth), ELEMENT)
    assert record is not None
    return record


def list_pack(repo: Repo, *records: Record) -> PackInfo:
    """Write a data pack of these records and list it, with no questions asked."""
    writer = PackWriter(repo.backend, os.urandom(16), PackClass.DATA)
    for record in records:
        writer.add(*record)
    info = writer.seal()
    publish(repo, (*repo.refresh().packs, info))
    return info


def publish(repo: Repo, listed: tuple[PackInfo, ...]) -> None:
    operation = Operation(os.urandom(16), "ada", "test", 0)
    after = repo.refresh().follow(operation, packs=listed)
    repo.adopt(roots.publish(repo.backend, after, os.urandom(16)))
    repo.store.refresh()


def drop(repo: Repo, id: BlobId) -> None:
    """Take the pack of an object off the list."""
    name = places(repo)[id].pack.name
    publish(repo, tuple(info for info in repo.refresh().packs if info.name != name))


def found(repo: Repo, *, full: bool) -> list[Finding]:
    checked = fsck.check(reopened(repo), full=full)
    return [finding for finding in checked if finding.severity in {ERROR, WARNING}]


@pytest.fixture
def under(repo: Repo) -> Repo:
    """A repository in which the base is held."""
    RunBuilder(repo, "exp/base").checkpoint(0, {"w": UNDER})
    return repo


@pytest.mark.parametrize("full", [False, True])
def test_a_delta_that_is_as_it_should_be(under: Repo, full: bool) -> None:
    list_pack(under, delta())
    assert found(under, full=full) == []


@pytest.mark.parametrize("full", [False, True])
def test_a_dead_delta_without_a_base(repo: Repo, full: bool) -> None:
    list_pack(repo, delta())
    (finding,) = found(repo, full=full)
    assert finding.severity == ERROR
    assert f"it is a delta on {blob_id(UNDER)}, of which there is no good record" in finding.detail


@pytest.mark.parametrize("full", [False, True])
def test_a_live_delta_without_a_base(under: Repo, full: bool) -> None:
    list_pack(under, delta())
    RunBuilder(under, "exp/over").checkpoint(0, {"w": OVER})
    set_ref(under, f"{HOLDS}{under.refresh().refs['runs/exp/base']}", None)
    drop(under, blob_id(UNDER))
    (finding,) = [item for item in found(under, full=full) if "exp/over" in item.detail]
    assert (finding.severity, finding.name) == (ERROR, f"blob {blob_id(OVER)}")
    assert "state/w: it is a delta on" in finding.detail


@pytest.mark.parametrize("full", [False, True])
def test_a_base_that_is_no_less_deep(under: Repo, full: bool) -> None:
    """Two that lean on each other can both not be read."""
    first = delta()
    back = encode_delta(blob_id(UNDER), UNDER, Base(blob_id(OVER), OVER, 0), ELEMENT)
    assert back is not None
    drop(under, blob_id(UNDER))
    list_pack(under, first, back)
    findings = found(under, full=full)
    names = {f.name for f in findings if "is a delta that is no less deep" in f.detail}
    assert names == {f"blob {blob_id(OVER)}", f"blob {blob_id(UNDER)}"}


def test_a_delta_that_decodes_to_something_else(under: Repo) -> None:
    header, body = delta()
    other = drifting(1, 0, SIZE - 1) + b"\0"
    RunBuilder(under, "exp/other").checkpoint(0, {"w": other})
    swapped = b"".join((blob_id(other), bytes(body)[32:]))
    lying = RecordHeader.of(header.kind, header.codec, header.id, header.size, swapped, depth=1)
    list_pack(under, Record(lying, swapped))
    assert found(under, full=False) == []
    (finding,) = found(under, full=True)
    assert "the bytes decoded on its base are not what the id names" in finding.detail


def test_a_footer_that_does_not_name_a_base(under: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packs.Footer.of
    monkeypatch.setattr(packs.Footer, "of", lambda rows, bases=(): whole(rows))
    info = list_pack(under, delta())
    monkeypatch.undo()
    (finding,) = found(under, full=False)
    assert (finding.severity, finding.name) == (ERROR, info.key)
    assert f"does not name {blob_id(UNDER)}" in finding.detail


def test_a_damaged_base_is_told_of_with_what_leans_on_it(under: Repo) -> None:
    list_pack(under, delta())
    RunBuilder(under, "exp/over").checkpoint(0, {"w": OVER})
    place = places(under)[blob_id(UNDER)]
    path = under.path / place.pack.key
    raw = bytearray(path.read_bytes())
    raw[place.row.offset + 5000] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)
    names = {finding.name for finding in found(under, full=True)}
    assert names == {f"blob {blob_id(UNDER)}", f"blob {blob_id(OVER)}"}
