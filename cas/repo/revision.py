"""Revisions: what people write to name a commit.

A word is a hash (full, or unique from four digits on) or the name of a ref, with or without its
first part; `HEAD` is `heads/main`. `EXP@latest`, `EXP@best`, `EXP@min=METRIC` and `EXP@max=METRIC`
choose among an experiment's runs, and after `EXP/NAME` among that run's checkpoints. `~N` goes back
along `previous`, `^ROLE` along a role. A `:` only ever begins a path.
"""

from collections.abc import Iterable, Iterator
from string import hexdigits

from cas.errors import AmbiguousError, InvalidInputError, NotFoundError
from cas.ids import CommitId, ObjectId
from cas.objects.commit import PREVIOUS, Commit
from cas.objects.kind import Kind
from cas.repo import layout
from cas.repo.repo import Repo
from cas.repo.retain.choice import choose

MIN_HASH = 4
MAX_STEPS = 10_000_000
LISTED = 8
ALIASES = {"HEAD": layout.MAIN}
# The first parts that may be left out; a live run's draft only counts where nothing else does.
ROOMS = (
    "",
    layout.RUNS,
    layout.TAGS,
    layout.HEADS,
    layout.DATASETS,
    layout.MODELS,
    layout.REPRODUCTIONS,
)


def resolve(repo: Repo, text: str) -> CommitId:
    """Return the commit that a revision names.

    Raises NotFoundError, AmbiguousError with what it could be, or InvalidInputError.
    """
    if ":" in text:
        raise InvalidInputError(f"{text}: a revision alone is wanted here, without a path")
    word, steps = _split(text)
    id = _selected(repo, word) if "@" in word else _named(repo, word)
    for sign, argument in steps:
        id = _back(repo, id, argument, text) if sign == "~" else _along(repo, id, argument, text)
    return id


def resolve_path(repo: Repo, text: str) -> tuple[CommitId, bytes]:
    """Return the commit and the path of `REV` or `REV:PATH`; the path is empty without one."""
    word, _, path = text.partition(":")
    raw = path.encode("utf-8", "surrogateescape").strip(b"/")
    if any(part in {b".", b".."} for part in raw.split(b"/")):
        raise InvalidInputError(f"{text}: a path in a commit has no '.' and no '..' in it")
    return resolve(repo, word), raw


def starting(repo: Repo, digits: str) -> list[CommitId]:
    """Return the commits whose hash begins with these hex digits, in order."""
    prefix = bytes.fromhex(digits[: len(digits) // 2 * 2])
    low = digits.lower()
    found = {
        CommitId(place.row.id)
        for place in repo.store.index.starting(prefix)
        if place.row.kind == Kind.COMMIT and place.row.id.hex().startswith(low)
    }
    return sorted(found)


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the word at the start and the steps after it."""
    steps: list[tuple[str, str]] = []
    word = ""
    for character in text:
        if character in "~^":
            steps.append((character, ""))
        elif steps:
            steps[-1] = (steps[-1][0], steps[-1][1] + character)
        else:
            word += character
    if not word:
        raise InvalidInputError(f"{text!r} is no revision: it begins with a hash or a name")
    return word, steps


def _named(repo: Repo, word: str) -> CommitId:
    found = dict(_meanings(repo, word))
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    if found:
        raise AmbiguousError(word, _few(sorted(found)))
    raise NotFoundError("revision", word, _hint(repo, word))


def _meanings(repo: Repo, word: str) -> Iterator[tuple[str, CommitId]]:
    """Yield all that a word could mean."""
    refs = repo.root.refs
    name = ALIASES.get(word, word).removeprefix("refs/")
    names = [room + name for room in ROOMS if room + name in refs]
    if not names and layout.OPEN + name in refs:
        names = [layout.OPEN + name]
    yield from ((name, refs[name]) for name in names)
    if len(word) >= MIN_HASH and set(word) <= set(hexdigits) and len(word) <= 2 * ObjectId.SIZE:
        yield from ((f"commit {id.short}", id) for id in starting(repo, word))


def _selected(repo: Repo, word: str) -> CommitId:
    name, _, selector = word.partition("@")
    name = name.removeprefix("refs/").removeprefix(layout.RUNS)
    refs = repo.root.refs
    single = refs.get(layout.RUNS + name) or refs.get(layout.OPEN + name)
    if single is not None:
        return choose(repo, [single], selector, word)
    tips: dict[str, CommitId] = {}
    for room in (layout.OPEN, layout.RUNS):
        inside = f"{room}{name}/"
        tips |= {ref.removeprefix(room): id for ref, id in refs.items() if ref.startswith(inside)}
    if not name or not tips:
        raise NotFoundError("experiment", name or word, _hint(repo, name))
    return choose(repo, [tips[ref] for ref in sorted(tips)], selector, word, runs=True)


def _back(repo: Repo, id: CommitId, argument: str, text: str) -> CommitId:
    if argument and not (argument.isascii() and argument.isdigit()):
        raise InvalidInputError(f"{text}: ~ is followed by a number, not {argument!r}")
    count = int(argument[:20] or "1")
    if count > MAX_STEPS:
        raise InvalidInputError(f"{text}: ~{argument} is further than any history goes")
    for done in range(count):
        parents = repo.commit(id).parents_of(PREVIOUS)
        if not parents:
            raise NotFoundError("revision", text, f"only {done} come before it")
        id = parents[0].commit
    return id


def _along(repo: Repo, id: CommitId, role: str, text: str) -> CommitId:
    commit = repo.commit(id)
    ends = {parent.commit: parent for parent in commit.parents_of(role)}
    if len(ends) == 1:
        return next(iter(ends))
    if ends:
        ids = [f"{end.short}{f' ({p.path})' if p.path else ''}" for end, p in ends.items()]
        raise AmbiguousError(text, _few(ids))
    raise NotFoundError("revision", text, _roles(commit, id))


def _roles(commit: Commit, id: CommitId) -> str:
    roles = sorted({parent.role for parent in commit.parents})
    if not roles:
        return f"{id.short} has no parents"
    return f"{id.short} has {', '.join(f'^{role}' for role in roles)}"


def _hint(repo: Repo, word: str) -> str:
    """Say what may have been meant."""
    refs = repo.root.refs
    if word in ALIASES:
        return "nothing was committed by `cas commit`; `cas log` lists the runs, which are no HEAD"
    if any(ref.startswith(f"{layout.RUNS}{word}/") for ref in refs):
        return f"it is an experiment: say {word}@latest or {word}@best"
    from difflib import get_close_matches

    names: dict[str, None] = dict.fromkeys(ALIASES)
    for ref in refs:
        if not ref.startswith(layout.HOLDS):
            room, _, rest = ref.partition("/")
            names |= dict.fromkeys((rest, rest.rpartition("/")[2]))
            if f"{room}/" == layout.RUNS:
                names[rest.rpartition("/")[0]] = None
    near = get_close_matches(word, [name for name in names if name], n=3)
    full = [_full(refs, name) for name in near]
    return f"did you mean {' or '.join(dict.fromkeys(full))}?" if near else "`cas log` lists runs"


def _full(refs: Iterable[str], name: str) -> str:
    """Return the shortest form of a near name that is a revision."""
    known = [ref.partition("/")[2] for ref in refs]
    if name in known or name in ALIASES:
        return name
    return next((ref for ref in known if ref.endswith(f"/{name}")), name)


def _few(candidates: list[str]) -> list[str]:
    more = len(candidates) - LISTED
    return candidates[:LISTED] + ([f"{more} more"] if more > 0 else [])
