"""Whatever happens to a folder, a walk with the cache gives what a walk without it gives."""

import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from cas.repo.trees.ingest import Modes, add
from cas.repo.trees.statcache import StatCache
from tests.support.stores import Shelf

NAMES = st.sampled_from(["a", "b", "s/a", "s/b", "s", "s/t/a"])
DATA = st.sampled_from([b"00", b"01", b"10"])
WRITES = ["write", "write and keep the time", "replace by an older one"]
STEPS = st.one_of(
    st.tuples(st.sampled_from(WRITES), NAMES, DATA),
    st.tuples(st.sampled_from(WRITES), st.just("a"), DATA),
    st.tuples(st.sampled_from(["rename", "link"]), NAMES, NAMES),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("chmod"), NAMES, st.sampled_from([0o600, 0o755])),
    st.tuples(st.just("touch"), NAMES, st.sampled_from([0, 1_000_000_000, 4_000_000_000])),
    st.tuples(st.just("wait")),
    st.tuples(st.just("collect")),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(STEPS, st.sampled_from([*Modes, Modes.FULL])), max_size=20))
def test_the_cache_changes_no_tree(steps: list[tuple[tuple[object, ...], Modes]]) -> None:
    with TemporaryDirectory() as place:
        folder, repo = Path(place) / "data", Path(place) / "repo"
        folder.mkdir()
        repo.mkdir()
        shelf = Shelf()
        for step, modes in steps:
            if step[0] == "collect":
                shelf.packs.clear()
                shelf.store.refresh()
            else:
                change(folder, *step)
            look(shelf, folder, repo / "cache" / "x.db", modes)


def look(shelf: Shelf, folder: Path, file: Path, modes: Modes) -> None:
    writer = shelf.writer()
    with StatCache(file) as cache:
        with_it = add(writer, folder, cache=cache, modes=modes)
        shelf.publish(writer)
        cache.save()
    bare = Shelf()
    writer = bare.writer()
    assert with_it == add(writer, folder, modes=modes)
    bare.publish(writer)
    # Everything that is named is there.
    wanted = {place.row.id for place in bare.store.index.starting(b"")}
    assert all(shelf.store.locate(id) for id in wanted)


def change(folder: Path, what: object, *args: object) -> None:
    """Do one thing to the folder; what cannot be done is left undone."""
    if what == "wait":
        time.sleep(0.03)  # longer than files must be left alone to be trusted
        return
    path = folder / str(args[0])
    try:
        if what == "rename":
            path.rename(folder / str(args[1]))
        elif what == "link":
            os.link(path, folder / str(args[1]))
        elif what == "remove":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif what == "chmod":
            path.chmod(int(str(args[1])) | (0o100 if path.is_dir() else 0))
        elif what == "touch":
            os.utime(path, (int(str(args[1])),) * 2)
        else:
            write(path, str(what), args[1])
    except OSError:
        return


def write(path: Path, how: str, data: object) -> None:
    assert isinstance(data, bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    was = path.stat() if path.is_file() else None
    if how != "replace by an older one":
        path.write_bytes(data)
        if was and how == "write and keep the time":
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        return
    other = path.with_name("other")
    other.write_bytes(data)
    if was:
        os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns - 1))
    other.rename(path)
