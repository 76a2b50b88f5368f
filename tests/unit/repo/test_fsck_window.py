"""Runs of `fsck --data` come round to every record, whatever the packs are."""

import os
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.ids import blob_id
from cas.repo.check import fsck
from cas.repo.check.window import Position, window
from cas.repo.repo import Repo
from cas.store.joined import Joined
from cas.store.pack import HEADER, PackClass, PackInfo, Row
from cas.store.record import RecordHeader
from cas.store.rowtable import RowTable
from tests.support.builders import RunBuilder, noise, reopened, repository
from tests.support.torture import amount

sizes = st.lists(st.lists(st.integers(0, 5000), max_size=8), min_size=1, max_size=6)
shares = st.fractions(min_value=Fraction(1, 2), max_value=100, max_denominator=7)


def table_of(packs: list[list[int]]) -> RowTable:
    """A table of records of these sizes; names of packs are drawn, as they are in the store."""
    infos, footers = [], []
    for number, records in enumerate(packs):
        at, rows = HEADER.size, []
        for index, stored in enumerate(records):
            id = blob_id(b"%d %d" % (number, index))
            rows.append(Row(id, at, stored, stored, 1, 0, 0))
            at += RecordHeader.SIZE + stored
        infos.append(PackInfo(os.urandom(16), at, b"\0" * 32, PackClass.DATA))
        footers.append(b"".join(sorted(row.to_bytes() for row in rows)))
    joined = Joined((info.name, raw) for info, raw in zip(infos, footers, strict=True))
    return joined.table(infos)


@pytest.mark.torture
@settings(max_examples=amount(30, 2000), deadline=None)
@given(sizes, shares, st.binary(min_size=16, max_size=16), st.integers(0, 9000))
def test_as_many_runs_as_it_takes_read_every_record(
    packs: list[list[int]], share: Fraction, name: bytes, offset: int
) -> None:
    table = table_of(packs)
    position = Position(name, offset)  # from anywhere
    seen: set[int] = set()
    total = int((table.ends - table.rows["offset"].astype(np.int64)).sum())
    for _ in range(ceil(100 / share)):
        found = window(table, share, position)
        read = sum(int(table.ends[n]) - int(table.rows["offset"][n]) for n in found.records)
        assert read * 100 >= total * share
        seen |= set(found.records.tolist())
        position = Position.parse(str(found.next))
        assert position == found.next
    assert seen == set(range(len(table)))


@pytest.mark.torture
@settings(max_examples=amount(30, 2000), deadline=None)
@given(sizes, shares)
def test_no_run_reads_more_than_its_share_and_one_record(
    packs: list[list[int]], share: Fraction
) -> None:
    table = table_of(packs)
    found = window(table, share, Position())
    if len(found.records):
        spans = (table.ends - table.rows["offset"].astype(np.int64))[found.records]
        total = int((table.ends - table.rows["offset"].astype(np.int64)).sum())
        assert (int(spans.sum()) - int(spans[-1])) * 100 < total * share


@pytest.mark.torture
@settings(max_examples=amount(30, 2000), deadline=None)
@given(sizes, sizes, shares)
def test_packs_that_come_meanwhile_keep_no_record_from_its_turn(
    old: list[list[int]], new: list[list[int]], share: Fraction
) -> None:
    before = table_of(old)
    added = table_of(new)
    rows = {(before.place(n).pack.name, before.place(n).row.offset) for n in range(len(before))}
    both = Joined(
        (info.name, table.rows[table.starts[n] : table.starts[n + 1]].tobytes())
        for table in (before, added)
        for n, info in enumerate(table.packs)
    ).table([*before.packs, *added.packs])
    position, seen = Position(), set()
    for number in range(2 * ceil(100 / share)):
        table = before if number == 0 else both
        found = window(table, share, position)
        seen |= {(p.pack.name, p.row.offset) for p in map(table.place, found.records.tolist())}
        position = found.next
    assert rows <= seen


@pytest.mark.parametrize("text", [None, "", "x", "ab:1", f"{'0' * 32}:x", f"{'0' * 32}:-4", "::"])
def test_a_position_that_is_nonsense_is_the_start(text: str | None) -> None:
    assert Position.parse(text) == Position()


def damage(repo: Repo, data: bytes) -> None:
    place = repo.store.locate(blob_id(data))
    assert place is not None
    path = repo.path / place.pack.key
    raw = bytearray(path.read_bytes())
    raw[place.row.offset + 300] ^= 1
    path.write_bytes(raw)


def test_ten_runs_of_ten_percent_find_what_one_full_run_finds(tmp_path: Path) -> None:
    repo = repository(tmp_path)
    run = RunBuilder(repo, "exp/one")
    for step in range(12):
        run.checkpoint(step, {"w": noise(step, 20_000)})
    damage(repo, noise(7, 20_000))
    found = []
    read = 0
    for _ in range(10):
        one = fsck.examine(reopened(repo), data=Fraction(10))
        found += [finding for finding in one.findings if finding.severity == fsck.ERROR]
        assert one.report.read_bytes < one.report.bytes / 5
        read += one.report.read_bytes
    assert len(found) >= 1
    assert {finding.name for finding in found} == {f"blob {blob_id(noise(7, 20_000))}"}
    assert read >= sum(len(noise(step, 20_000)) for step in range(12))


def test_a_window_that_stands_still_would_be_noticed() -> None:
    """What the first test insists on is not so for a position that is never kept."""
    table = table_of([[1000] * 8] * 4)
    seen: set[int] = set()
    for _ in range(10):
        seen |= set(window(table, Fraction(10), Position()).records.tolist())
    assert len(seen) < len(table)
