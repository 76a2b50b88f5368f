"""Taking packs out of a repository: the steps that gc and repack share.

New packs are listed and old ones condemned by one root; then the condemned files are deleted; then
another root takes them off the condemned list. Nothing but what a root has condemned is ever
deleted. Whether packs may go is decided before; it holds for exactly the root that is followed.
Format: docs/format/ordering.md.
"""

import os
from collections.abc import Iterable

from cas.errors import CasError, ConflictError, OutcomeUnknownError, RefusedError
from cas.progress import Progress
from cas.repo import root as roots
from cas.repo.layout import PACKS, ROOTS
from cas.repo.repo import Repo
from cas.repo.root import Operation, Root
from cas.repo.transaction import ATTEMPTS, begun
from cas.store.pack import PackInfo


def swap(
    repo: Repo,
    base: Root,
    operation: Operation,
    leaving: Iterable[PackInfo],
    coming: Iterable[PackInfo],
) -> Root | None:
    """Take packs off the list and list others; None when the root has moved on.

    What comes does not leave: it may have been taken for a file that nobody owns while it was open.
    """
    coming = tuple(coming)
    came = {info.name for info in coming}
    going = {info.name: info for info in leaving if info.name not in came}
    known = {info.name for info in base.condemned}
    after = base.follow(
        operation,
        packs=tuple(info for info in base.packs if info.name not in going) + coming,
        condemned=base.condemned + tuple(i for name, i in going.items() if name not in known),
    )
    return published(repo, after)


def sweep(repo: Repo, root: Root, operation: Operation, progress: Progress) -> None:
    """Delete what this root condemns, then take exactly that off the list."""
    backend = repo.backend
    if root.condemned:
        # Another process may have put this root and not made its name durable yet: after a
        # power cut an older root would list what is deleted here.
        backend.sync(ROOTS)
    progress.start("delete", total=len(root.condemned))
    for info in root.condemned:
        backend.delete(info.key)
        progress.advance()
    if root.condemned:
        backend.sync(PACKS)
    progress.finish()
    deleted = {info.name for info in root.condemned}
    for _ in range(ATTEMPTS):
        if _cleared(repo, repo.refresh(), deleted, operation):
            return
    # Others publish faster than this: the next collection takes the names off the list.


def published(repo: Repo, after: Root) -> Root | None:
    """Publish a root and take it up; None when its number is taken."""
    try:
        root = roots.publish(repo.backend, after, os.urandom(16))
    except ConflictError:
        return None
    except OutcomeUnknownError as error:
        raise OutcomeUnknownError(after.operation.id.hex(), str(error)) from error
    repo.adopt(root)
    repo.store.refresh()
    return root


def refused(error: CasError, done: str) -> RefusedError:
    """Return the error that something kept cannot be read, so that nothing is `done`."""
    return RefusedError(
        f"nothing is {done} while something kept cannot be read: {error}; look with `cas fsck`"
    )


def _cleared(repo: Repo, base: Root, deleted: set[bytes], operation: Operation) -> bool:
    left = tuple(info for info in base.condemned if info.name not in deleted)
    if left == base.condemned:
        return True
    own = begun(repo, operation.what, operation.run)
    return published(repo, base.follow(own, condemned=left)) is not None
