"""One plain sentence about two models on the same rows."""

from __future__ import annotations

from tributary import metrics


def compare(called: str, metric: str, ours: metrics.Scores, theirs: metrics.Scores) -> str:
    """Does one model beat the other?

    Args:
        called: the other's name within the sentence.
        metric: what they are judged by.
        ours: scored on some rows.
        theirs: scored on the same rows under the same rng_seed.

    Returns:
        A clause without its subject: `beats the constant: mae 2.7 against 4.4, better by 1.7 (95 % interval ...)`.
    """
    compared = metrics.difference(metric, ours, theirs)
    if compared is None:
        reason = ours.undefined.get(metric) or theirs.undefined.get(metric)
        return f"cannot be compared with {called}: {metric} is undefined ({reason})"
    gain, low, high = compared
    figures = f"{metric} {ours.values[metric]:.4g} against {theirs.values[metric]:.4g}"
    if gain == 0:
        return f"is neither better nor worse than {called}: {figures}"
    if gain > 0 and low > 0:
        return f"beats {called}: {figures}, better by {gain:.3g} (95 % interval {low:.3g} to {high:.3g})"
    if gain > 0:
        return f"is ahead of {called}, but not beyond chance: {figures} (95 % interval {low:.3g} to {high:.3g})"
    beyond = "" if high < 0 else ", though not beyond chance"
    return f"does not beat {called}: {figures}, worse by {-gain:.3g}{beyond} (95 % interval {-high:.3g} to {-low:.3g})"
