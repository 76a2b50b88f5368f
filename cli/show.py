"""`cas show`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from . import render
from .exits import printable
from .log import as_data
from .session import Session, json_option, pass_session

if TYPE_CHECKING:
    from cas.ids import CommitId
    from cas.objects.commit import Commit, Parent
    from cas.repo.repo import Repo

DOCUMENTS: Final = (
    *("params", "summary", "environment", "source", "seeds", "command", "host"),
    *("checkpoint", "verdict", "input", "notes", "config", "redacted", "resumed", "metadata"),
    *("strategy", "retention"),
)
SHOWN_ARTIFACTS: Final = 20
SHOWN_EVENTS: Final = 10
SHOWN_LOGGED: Final = 20


@click.command()
@click.argument("rev", default="HEAD")
@json_option
@pass_session
def show(session: Session, rev: str) -> None:
    """Show all that a commit says.

    Its fields, params, metrics, parents with their roles, environment, code and artifacts, and
    whether its payload is kept or was pruned. REV is HEAD by default.
    """
    from cas.repo.annotations import of_run
    from cas.repo.revision import resolve
    from cas.repo.trees.contents import kept

    repo = session.repo
    id = resolve(repo, rev)
    commit = repo.commit(id)
    found = {name: repo.document(commit.tree, f"{name}.json") for name in DOCUMENTS}
    documents = {name: value for name, value in found.items() if isinstance(value, dict)}
    if commit.journal is not None:
        documents["notes"] = documents.get("notes", {}) | of_run(repo, commit).to_words()
    told = repo.document(commit.tree, "events.json")
    events = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    logged = _logged(repo, id)
    refs = [ref for ref, at in repo.root.refs.items() if at == id and not ref.startswith("holds/")]
    artifacts = list(_artifacts(repo, id))
    session.emit(
        as_data(id, commit, repo.root.refs)
        | {"refs": sorted(refs), **documents}
        | {"events": events, "logged": logged, "artifacts": artifacts},
        lambda: _lines(
            session,
            id,
            commit,
            documents,
            events=events,
            logged=logged,
            refs=sorted(refs),
            artifacts=artifacts,
            held=kept(repo, id),
        ),
        paged=True,
    )


def _lines(
    session: Session,
    id: "CommitId",
    commit: "Commit",
    documents: Mapping[str, Any],
    *,
    events: list[dict[str, Any]],
    logged: Mapping[str, Mapping[str, int]],
    refs: list[str],
    artifacts: list[dict[str, Any]],
    held: bool,
) -> Iterator[str]:
    names = f"  ({', '.join(refs)})" if refs else ""
    yield session.paint(f"{commit.kind} {id}", fg="yellow") + session.paint(names, fg="green")
    best = documents.get("checkpoint", {}).get("best") is True
    yield from render.table(list(_fields(session, commit, held=held, best=best)))
    if commit.message:
        yield ""
        yield from (f"    {printable(line)}" for line in commit.message.strip().split("\n"))
    yield from _section("notes", _noted(documents.get("notes", {})))
    yield from _section("parents", [_parent(session.repo, parent) for parent in commit.parents])
    yield from _section("resumed", _resumed(documents.get("resumed", {})))
    yield from _section("params", _pairs(documents.get("params", {})))
    yield from _section("metrics", _metrics(documents.get("summary", {})))
    yield from _section("logged", _kinds(logged))
    yield from _section("events", _events(events))
    yield from _section("metadata", _pairs(documents.get("metadata", {})))
    for name in ("strategy", "retention"):
        yield from _section(name, _pairs(documents.get(name, {})))
    yield from _section("code", _code(documents))
    yield from _section("environment", _environment(documents))
    yield from _section("input", _pairs(documents.get("input", {})))
    yield from _section("verdict", _pairs(documents.get("verdict", {})))
    rows = [
        (one["path"], render.human_bytes(one["size_bytes"]), one["id"][:10]) for one in artifacts
    ]
    more = [(f"and {len(rows) - SHOWN_ARTIFACTS} more: `cas ls {id.short}:artifacts -r`", "", "")]
    yield from _section(
        "artifacts", rows[:SHOWN_ARTIFACTS] + (more if len(rows) > SHOWN_ARTIFACTS else [])
    )


def _fields(
    session: Session, commit: "Commit", *, held: bool, best: bool
) -> Iterator[tuple[str, str]]:
    told = {
        "run": commit.full_name,
        "experiment": None if commit.run else commit.experiment,
        "status": commit.status if commit.kind != "checkpoint" else None,
        "step": commit.step,
        "time": commit.time and render.moment(session.now, commit.time, terminal=session.terminal),
        "author": commit.author,
    }
    yield from ((f"{key}:", printable(value)) for key, value in told.items() if value is not None)
    if commit.monitor is not None:
        monitor = commit.monitor
        yield (
            "monitor:",
            f"{monitor.metric} {render.number(monitor.value)} ({monitor.mode} is best)",
        )
    if best:
        yield "best:", "it was saved as the best of the run"
    if commit.payload is not None:
        state = "kept" if held else session.paint("pruned", fg="red")
        yield "payload:", f"{commit.payload.short} {state}"
    if commit.volume is not None:
        given = render.human_bytes(commit.volume.given_bytes)
        yield (
            "bytes:",
            f"{given} given, {render.human_bytes(commit.volume.stored_bytes)} newly stored",
        )


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        yield ""
        yield f"{title}:"
        yield from (f"    {line}" for line in render.table(rows))


def _parent(repo: "Repo", parent: "Parent") -> tuple[str, ...]:
    from cas.errors import NotFoundError

    try:
        commit = repo.commit(parent.commit)
        what = commit.full_name or commit.kind
        what += "" if commit.step is None else f", step {commit.step}"
    except NotFoundError:
        what = "not here"
    refs = [ref for ref, at in repo.root.refs.items() if at == parent.commit]
    fixed = [ref for ref in refs if not ref.startswith(("holds/", "runs/"))]
    name = what + (f" ({', '.join(fixed)})" if fixed else "")
    details = [f"path {parent.path}"] if parent.path else []
    details += [f"{key} {_short(value)}" for key, value in sorted(parent.attrs.items())]
    return parent.role, parent.commit.short, printable(name), ", ".join(details)


def _pairs(document: Mapping[str, Any], front: str = "") -> list[tuple[str, ...]]:
    """Return the values of a document, a nested one's under joined names."""
    rows: list[tuple[str, ...]] = []
    for key, value in sorted(document.items()):
        if isinstance(value, dict) and value:
            rows += _pairs(value, f"{front}{key}.")
        else:
            rows.append((printable(f"{front}{key}"), _short(value)))
    return rows


def _noted(notes: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what people say of a run: labels and group in a line, then the text."""
    told = {"labels": ", ".join(notes.get("labels", [])), "group": notes.get("group")}
    rows: list[tuple[str, ...]] = [(key, printable(value)) for key, value in told.items() if value]
    lines = str(notes.get("notes") or "").strip().split("\n")
    return rows + [
        ("" if number else "notes", printable(line)) for number, line in enumerate(lines) if line
    ]


def _metrics(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, told in sorted(summary.items()):
        known = told if isinstance(told, dict) else {"last": told}
        keys = [key for key in ("last", "min", "max", "count") if _is_number(known.get(key))]
        rows.append((printable(name), *(f"{key} {render.number(known[key])}" for key in keys)))
    width = max(map(len, rows), default=0)
    return [row + ("",) * (width - len(row)) for row in rows]


def _resumed(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each time that a run broke off and went on."""
    rows: list[tuple[str, ...]] = []
    for one in told.get("resumed", []):
        step = one.get("step")
        where = "from its start" if step is None else f"from step {step}"
        changed = [
            f"{name} {_short(values.get('before'))} -> {_short(values.get('now'))}"
            for name, values in sorted(one.get("params", {}).items())
        ]
        rows.append((where, str(one.get("after") or "")[:10], printable(", ".join(changed))))
    return rows


def _logged(repo: "Repo", id: "CommitId") -> dict[str, dict[str, int]]:
    """Return how often what was logged beside numbers, by kind and key."""
    from cas.tracking.view import RunView

    if repo.lookup(repo.commit(id).tree, b"logged") is None:
        return {}
    return RunView(repo, id).keys()


def _kinds(logged: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (printable(key), kind, str(count))
        for kind, keys in sorted(logged.items())
        for key, count in sorted(keys.items())
    ]
    more: list[tuple[str, ...]] = [(f"and {len(rows) - SHOWN_LOGGED} more", "", "")]
    return rows[:SHOWN_LOGGED] + (more if len(rows) > SHOWN_LOGGED else [])


def _events(events: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the newest events of a run, oldest of them first."""
    rows: list[tuple[str, ...]] = []
    if len(events) > SHOWN_EVENTS:
        rows.append((f"{len(events) - SHOWN_EVENTS} before", "", ""))
    for one in events[-SHOWN_EVENTS:]:
        step = "" if one.get("step") is None else f"step {one['step']}"
        text = ": ".join(str(one[key]) for key in ("title", "text") if one.get(key))
        rows.append((printable(str(one.get("kind"))), step, _short(text)))
    return rows


def _code(documents: Mapping[str, Any]) -> list[tuple[str, ...]]:
    git = documents.get("source", {}).get("git") or {}
    rows = [(key, _short(value)) for key, value in sorted(git.items()) if value not in (None, "")]
    command = documents.get("command", {})
    if command.get("argv"):
        rows.append(("command", _short(command_line(command))))
    seed = documents.get("seeds", {}).get("seed")
    rows += [("seed", str(seed))] if seed is not None else []
    return [*rows, *_taken(documents.get("redacted"))]


def _taken(told: object) -> list[tuple[str, ...]]:
    """Return rows that say where secrets were taken out, and where the code is not exact."""
    if not told:
        return []
    from cas.tracking.privacy.redacted import by_place, missing

    counts = (f"{count} in {place}" for place, count in sorted(by_place(told).items()))
    rows: list[tuple[str, ...]] = [("redacted", _short(", ".join(counts)))]
    places = dict.fromkeys(f"{one.path}:{one.line}" for one in missing(told) if one.path)
    if places:
        rows.append(("not exact", _short(f"secrets taken out at {', '.join(places)}")))
    return rows


def command_line(command: Mapping[str, Any]) -> str:
    """Return a recorded command as it would be typed."""
    from shlex import join

    front = {"script": ["python"], "module": ["python", "-m"], "inline": ["python", "-c"]}
    options = [str(option) for option in command.get("python", [])]
    start = front.get(str(command.get("kind")), [])
    return join(start[:1] + options + start[1:] + [str(word) for word in command["argv"]])


def _environment(documents: Mapping[str, Any]) -> list[tuple[str, ...]]:
    environment, host = documents.get("environment", {}), documents.get("host", {})
    rows: list[tuple[str, ...]] = []
    python = environment.get("python")
    if isinstance(python, dict):
        rows.append(("python", _short(python.get("version"))))
    packages = environment.get("packages")
    if isinstance(packages, dict):
        known = [name for name in ("torch", "numpy", "jax", "tensorflow") if name in packages]
        told = "".join(f", {name} {packages[name]}" for name in known)
        rows.append(("packages", printable(f"{len(packages)}{told}")))
    rows += [(key, _short(host[key])) for key in ("host", "cpu", "gpus") if host.get(key)]
    return rows


def _artifacts(repo: "Repo", id: "CommitId") -> Iterator[dict[str, Any]]:
    """Yield path, size and id of everything below `artifacts`."""
    from cas.repo.trees.contents import Held, inside, top

    def below(same: list[Held]) -> Iterator[Held]:
        if same[0].folder:
            for inner in inside(repo, same):
                yield from below(inner)
        else:
            yield same[0]

    for same in top(repo, id):
        if same[0].entry.name == b"artifacts":
            for held in below(same):
                path = held.path.decode("utf-8", "surrogateescape").removeprefix("artifacts/")
                yield {
                    "path": printable(path),
                    "size_bytes": held.entry.size,
                    "id": str(held.entry.id),
                    "part": held.part,
                }


def _short(value: object) -> str:
    if isinstance(value, float):
        return repr(value)
    text = printable(value if isinstance(value, str) else _json(value))
    return text if len(text) <= 100 else f"{text[:97]}..."


def _json(value: object) -> str:
    import json

    from cas.plain import plain

    return json.dumps(plain(value), ensure_ascii=False)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
