"""What an open run logged as files, as its draft holds it."""

import sys
from collections.abc import Sequence
from pathlib import Path

import cas
from cas.ids import ObjectId
from cas.repo.transaction import Transaction, transact
from cas.tracking.shown.logged import Logged, Tracks
from cas.tracking.shown.shelf import SEGMENT, Shelf, drafted, drafted_frames
from tests.support.builders import repository
from tests.support.runs import cas as command
from tests.support.runs import opened, script


def rows(tx: Transaction, numbers: Sequence[int]) -> list[Logged]:
    return [
        Logged("image", f"k{number % 2}", number, 1.0, "png", 8, id=ObjectId(id))
        for number in numbers
        for id in [tx.writer.blob(number.to_bytes(8, "little"))]
    ]


def test_full_segments_stay_as_they_are(tmp_path: Path) -> None:
    def build(tx: Transaction) -> None:
        few = Shelf("w").grown(tx.writer, rows(tx, range(5)))
        assert list(few.items(tx.writer)) == ["media/w/000000"]
        many = few.grown(tx.writer, rows(tx, range(5, 2 * SEGMENT + 3)))
        items = many.items(tx.writer)
        assert list(items) == [f"media/w/{number:06}" for number in range(3)]
        more = many.grown(tx.writer, rows(tx, [999])).items(tx.writer)
        assert [items[path] == more[path] for path in items] == [True, True, False]
        assert Shelf("w").items(tx.writer) == {}

    transact(repository(tmp_path), "shelves", build)


def test_a_draft_tells_of_all_files_in_it(here: Path) -> None:
    run = cas.track("a", name="x")
    live = run._live
    live.add_logged(lambda tx: rows(tx, range(SEGMENT + 2)))
    live.add_logged(lambda tx: rows(tx, [500]))
    run.log_artifact(b"artifact", "b")
    repo = opened(here)
    draft = repo.commit(repo.root.refs["open/a/x"])
    assert list(drafted(repo, draft)) == [live.state.shelf.path]
    told = Tracks()
    for frame in drafted_frames(repo, draft):
        told.replay(frame)
    assert sorted(row.step for row in told.rows()) == [*range(SEGMENT + 2), 500]
    run.finish()


PROGRAM = """
import numpy as np
with cas.track() as run:
    for step in range(40):
        run.log_image(sys.argv[1], np.full((4, 4), step, np.uint8), step=step)
        run.log_text("said", sys.argv[1], step=step)
        time.sleep(0.05)
"""


def test_processes_of_one_run_leave_each_others_files_alone(here: Path) -> None:
    path = script(here, PROGRAM)
    both = f"{sys.executable} {path} one & {sys.executable} {path} two; wait"
    command(here, "run", "--", "sh", "-c", both)
    view = cas.open_run(next(ref for ref in opened(here).root.refs if ref.startswith("runs/")))
    assert view.keys() == {"image": {"one": 40, "two": 40}, "text": {"said": 80}}
    for key in ("one", "two"):
        values = [int(item.value()[0, 0]) for item in view.logged(key)]
        assert values == list(range(40))
    assert command(here, "fsck", "--full").returncode == 0
