"""The same files into every tool, in turns: A B C, A B C, each time into an empty store.

The data lies warm in the page cache, everything written before is synced, and the timed part begins
with the start of the program, as for a user. Every restore is compared byte by byte.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import FailedError, Watch, check_equal, run, size, sync_all
from benchmarks.peers import CAS, TOOLS, Tool, environment
from benchmarks.report import Sample


@dataclass(frozen=True, slots=True)
class Workload:
    """Files or folders that are stored one after the other, each in the place of the last.

    With `beside`, a file keeps its own name and the earlier ones stay.
    """

    name: str
    versions: Sequence[Path]
    tools: Sequence[str]
    again: bool = False  # add once more what has not changed
    repack: bool = False
    beside: bool = False
    parent: str = ""  # role of the edge to the version before, beside `previous`

    def name_of(self, path: Path) -> str:
        return path.name if self.beside else self.versions[0].name

    @property
    def given(self) -> list[int]:
        return [size(path) for path in self.versions]


@dataclass(frozen=True, slots=True)
class Runner:
    """Where and how often; `problems` collects what did not work, without stopping the rest."""

    work: Path
    rounds: int
    peers: bool
    problems: list[str]

    def samples(self, workload: Workload) -> list[Sample]:
        """Run a workload against its tools, in turns."""
        tools = [TOOLS[name] for name in workload.tools if self.peers or name == "cas"]
        missing = {tool.name: why for tool in tools if (why := tool.missing())}
        self.problems.extend(f"{workload.name}: {why}" for why in missing.values())
        found: list[Sample] = []
        for number in range(self.rounds):
            for tool in tools:
                if tool.name in missing:
                    continue
                print(f"{workload.name}: {tool.name}, round {number + 1}", file=sys.stderr)
                home = self.fresh(f"{workload.name}-{tool.name}")
                try:
                    found += list(_turn(workload, tool, home, number))
                except FailedError as error:
                    self.problems.append(f"{workload.name}: {tool.name}: {error}")
                    missing[tool.name] = "failed"
                finally:
                    shutil.rmtree(home, ignore_errors=True)
        return found

    def fresh(self, name: str) -> Path:
        """Return an empty folder."""
        home = self.work / name
        shutil.rmtree(home, ignore_errors=True)
        (home / "home").mkdir(parents=True)
        return home


def _turn(workload: Workload, tool: Tool, home: Path, number: int) -> Iterator[Sample]:
    tool.prepare(home)
    so_far, last = 0, len(workload.versions)
    for version, (path, given) in enumerate(zip(workload.versions, workload.given, strict=True), 1):
        _place(path, home / "data", workload.name_of(path))
        so_far += given
        action = "add" if version == 1 else f"add version {version}"
        yield _added(workload, tool, home, Turn(action, number, version, so_far, given))
    if workload.again:
        last += 1
        yield _added(workload, tool, home, Turn("again", number, last, so_far, so_far))
    yield _restored(workload, tool, home, Turn("restore", number, last, so_far))
    if workload.repack and tool.name == "cas":
        for smallest in (False, True):
            done = repacked(workload.name, home, number, so_far, smallest=smallest)
            if done is None:
                return
            yield done
            turn = Turn(f"restore after {done.action}", number, last, so_far)
            yield _restored(workload, tool, home, turn)


@dataclass(frozen=True, slots=True)
class Turn:
    """One action of a round."""

    action: str
    round: int
    version: int
    so_far: int
    moved: int = 0


def _added(workload: Workload, tool: Tool, home: Path, turn: Turn) -> Sample:
    edge = ("--parent", f"{workload.parent}=HEAD") if workload.parent and turn.version > 1 else ()
    sync_all()
    used = tool.save(home, turn.version, edge if tool.name == "cas" else ())
    return Sample(
        workload.name,
        tool.name,
        turn.action,
        turn.round,
        used,
        turn.so_far,
        size(tool.folder(home)),
        tool.durability,
        moved=turn.moved,
    )


def _restored(workload: Workload, tool: Tool, home: Path, turn: Turn) -> Sample:
    target = home / "restored"
    target.mkdir()
    sync_all()
    used, place = tool.bring_back(home, target, turn.version)
    source = workload.versions[-1]
    inside = place / workload.name_of(source)
    check_equal(source, inside if source.is_file() else place)
    shutil.rmtree(target)
    given = workload.given[-1]
    return Sample(workload.name, tool.name, turn.action, turn.round, used, given, moved=given)


def repacked(
    workload: str, home: Path, number: int, given: int, *, smallest: bool
) -> Sample | None:
    """Repack the store in a home; return what it took, or None where cas has no such command."""
    env = environment(home)
    try:
        run((*CAS, "repack", "--help"), home, env, home / "output")
    except FailedError:
        return None
    known = (home / "output").read_text()
    flags = [flag for flag in ("--smallest",) * smallest if flag in known]
    if smallest and not flags:
        return None
    sync_all()
    with Watch(home / "store") as watch:
        command = (*CAS, "repack", *flags, *(("--yes",) if "--yes" in known else ()))
        used = run(command, home, env, home / "output")
    action = "repack --smallest" if smallest else "repack"
    return Sample(
        workload,
        "cas",
        action,
        number,
        used,
        given,
        size(home / "store"),
        most=watch.most,
    )


def _place(source: Path, data: Path, name: str) -> None:
    """Put a version where the tools look for it."""
    if source.is_dir():
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(source, data)
        return
    data.mkdir(exist_ok=True)
    shutil.copyfile(source, data / name)
