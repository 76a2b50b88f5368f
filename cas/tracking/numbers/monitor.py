"""By which metric checkpoints are compared, when the user does not say: told by its name."""

import re
from collections.abc import Collection
from typing import Final

from cas.errors import InvalidInputError

# By these words of its name a metric is told to be of a validation set, an error, or a score.
_VALIDATION: Final = frozenset({"val", "valid", "validation", "dev", "eval", "test"})
_TRAINING: Final = frozenset({"train", "training"})
_ERRORS: Final = frozenset(
    {"error", "err", "mse", "rmse", "mae", "mape", "nll", "ppl", "perplexity", "wer", "cer", "fid"}
    | {"kl", "ece", "bpb", "bpc", "rmsle"}
)
_SCORES: Final = frozenset(
    {"acc", "accuracy", "top1", "top5", "f1", "auc", "auroc", "auprc", "ap", "map", "precision"}
    | {"recall", "bleu", "rouge", "dice", "iou", "miou", "r2", "psnr", "ssim", "reward", "return"}
    | {"score", "wins", "elo", "mcc", "ndcg", "mrr"}
)
_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def monitor(
    metrics: Collection[str], metric: str | None = None, mode: str | None = None
) -> tuple[str, str] | None:
    """Return the metric by which checkpoints are compared, and whether `min` or `max` is best.

    What the user names counts, or nothing until it is logged. Otherwise: the loss of a validation
    set, `loss`, any other loss; then a score such as accuracy, and an error such as `mse`, of a
    validation set first; else the first metric by name, smallest best.
    """
    if mode not in {None, "min", "max"}:
        raise InvalidInputError(f"the mode of a monitor is 'min' or 'max', not {mode!r}")
    if metric is None:
        metric = min(metrics, key=_rank, default=None)
    if metric is None or metric not in metrics:
        return None
    return metric, mode or ("max" if _is_score(metric) else "min")


def is_validation(metric: str) -> bool:
    """Say whether a metric is, by its name, one of a validation set."""
    return not _VALIDATION.isdisjoint(_words(metric))


def is_loss(metric: str) -> bool:
    """Say whether a metric is, by its name, a loss or an error: the smaller the better."""
    words = _words(metric)
    return "loss" in words or not _ERRORS.isdisjoint(words)


def subject(metric: str) -> frozenset[str]:
    """Return what a metric is about, by its name, be it of training or of validation."""
    return frozenset(_words(metric) - _VALIDATION - _TRAINING)


def _rank(metric: str) -> tuple[int, str]:
    """Return how early a metric is chosen as monitor."""
    words = _words(metric)
    validation = not _VALIDATION.isdisjoint(words)
    if "loss" in words:
        rank = 0 if validation else 1 if words == {"loss"} else 2
    elif _is_score(metric):
        rank = 3 if validation else 5
    elif not _ERRORS.isdisjoint(words):
        rank = 4 if validation else 6
    else:
        rank = 7
    return rank, metric


def _is_score(metric: str) -> bool:
    words = _words(metric)
    return not _SCORES.isdisjoint(words) and words.isdisjoint(_ERRORS) and "loss" not in words


def _words(metric: str) -> set[str]:
    return {word.lower() for word in _WORDS.findall(metric)}
