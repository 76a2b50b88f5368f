"""What a run says of itself for people while it is open: labels and notes."""

from typing import Final

from cas.repo import annotations
from cas.repo.annotations import Annotation, Change
from cas.tracking.guard import Guarded, guarded
from cas.tracking.labels import changed, clean, cleaned, noted

NOTES: Final = "notes.json"


class Annotated(Guarded):
    """The calls of a run that say something of it for people."""

    @guarded
    def add_label(self, *labels: str) -> None:
        """Give the run labels: words to find it by. They can be changed after its end, too."""
        with self._telling(NOTES):
            new = clean(labels)
        self._annotate(lambda said: said.labelled(add=new), "label")

    @guarded
    def add_tag(self, *labels: str) -> None:
        """Give the run labels: the same as `add_label`. A cas tag is a name of one commit."""
        self.add_label(*labels)

    @guarded
    def remove_label(self, *labels: str) -> None:
        """Take labels away from the run; one that it does not have is passed over."""
        old = clean(labels)
        self._annotate(lambda said: said.labelled(remove=old), "label")

    @guarded
    def notes(self, text: str, *, append: bool = False) -> None:
        """Say what the run is about, in place of what was said or, with `append`, below it."""
        with self._telling(NOTES):
            told = cleaned(text)
        self._annotate(lambda said: noted(said, told, append=append), "note")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the run so far, in order."""
        said = annotations.current(self.repo, self._live.state.uid)
        return () if said is None else said.labels

    def _annotate(self, how: Change, what: str) -> None:
        state = self._live.state
        told = f"{what} {state.run}"
        self._live.between(
            lambda: changed(self.repo, state.uid, Annotation(), how, told, run=state.run)
        )
