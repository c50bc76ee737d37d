"""What comes before all findings.

Too few samples, views that share next to nothing, options that the predictions ignore, a theory that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..diagnostic import NOISY, NOT_EXCHANGEABLE, STRONG_COUPLING
from .words import LABEL, count, number, percent

if TYPE_CHECKING:
    from ..analysis import TheoryCheck
    from .study import Analysis, Learning

__all__ = ["next_to_nothing_shared", "options_at_work", "theory_fails", "too_few_samples"]

# Below so many samples for each feature the features themselves are mostly chance.
_SAMPLES_PER_FEATURE = 5
# A prediction that does worse on the network does not describe it.
_ORDER, _MEDIAN_ERROR = 0.8, 0.2


def too_few_samples(analysis: Analysis) -> str:
    """Return a warning if there are fewer than five samples for each feature, else nothing."""
    samples, n = analysis.covariances.n_samples, analysis.n_total
    if samples is None or samples >= _SAMPLES_PER_FEATURE * n:
        return ""
    return (
        f"Only {count(samples, 'pair')} for {count(n, 'feature')}, {samples / n:.1f} for each: these features and "
        "everything said of them may be chance. Ten pairs for each feature are a fair start."
    )


def next_to_nothing_shared(analysis: Analysis) -> str:
    """Return a warning if there are samples enough, but Syx does not stand out of their noise, else nothing."""
    diagnostic = analysis.spectrum.diagnostic
    noise = None if diagnostic is None else diagnostic.asymmetry_expected
    if noise is None or noise <= NOISY or too_few_samples(analysis):
        return ""
    return (
        "What x and y share does not stand clear of the sampling noise, which alone would make Syx differ from its transpose "
        f"by {percent(noise)} of its size: what follows may be chance. Are the rows of x and y pairs of one sample each?"
    )


def options_at_work(analysis: Analysis) -> str:
    """Return what the network does with options that the predictions do not know, nothing without such options."""
    changed = [each for each in analysis.learnings.values() if not each.objective.is_plain]
    if not changed:
        return ""
    return (
        " ".join(_with_options(each) for each in changed)
        + " The predictions have no such options: what is said of the plain objectives need not hold with them."
    )


def theory_fails(analysis: Analysis) -> str:
    """Return how far the network is from the predictions of the plain objectives; nothing where they hold."""
    failures = [
        f"{LABEL[name]}'s critical times are off by {percent(check.median_error)} in the median"
        + (f", its order has a rank correlation of {check.order_correlation:.2f}" if check.ranks else "")
        for name, learning in analysis.learnings.items()
        if (check := learning.check.comparison) is not None and learning.objective.is_plain and _fails(check)
    ]
    if not failures:
        return ""
    return (
        f"The theory does not describe these data at this start of {analysis.settings.eps:g}: against the trained "
        f"network {'; '.join(failures)}. Trust the network where the two differ. {_reason(analysis)}"
    )


def _fails(check: TheoryCheck) -> bool:
    if check.median_error > _MEDIAN_ERROR:
        return True
    return check.ranks and check.order_correlation < _ORDER and not _are_close(check)


def _are_close(check: TheoryCheck) -> bool:
    """Whether all predicted times lie so close together that errors which are no failure could turn any two round."""
    times = check.predicted_time[np.isfinite(check.relative_error)]
    return bool(times.size and (1 - _MEDIAN_ERROR) * times.max() <= (1 + _MEDIAN_ERROR) * times.min())


def _reason(analysis: Analysis) -> str:
    diagnostic = analysis.spectrum.diagnostic
    if diagnostic is not None and diagnostic.coupling >= STRONG_COUPLING:
        return f"The likely reason: the features couple strongly ({percent(diagnostic.coupling)})."
    if diagnostic is not None and diagnostic.asymmetry >= NOT_EXCHANGEABLE:
        return (
            f"The likely reason: the views are not exchangeable (Syx differs from its transpose by "
            f"{percent(diagnostic.asymmetry)}), and the features are those of its symmetric part alone."
        )
    return (
        "The likely reason: at a small start the aligned solution is unstable. Couplings, even rounding, grow along the "
        "long plateau, and once a strong feature is learned, the network's order can be the reverse of the predicted one; "
        "a larger start (eps) brings the two together."
    )


def _with_options(learning: Learning) -> str:
    flow, comparison = learning.check.flow, learning.check.comparison
    if flow is None or comparison is None:
        return f"No network was trained with {learning.objective!r}: nothing is known of what it learns."
    features = len(comparison.predicted_time)
    learned = int(np.count_nonzero(np.isfinite(comparison.integrated_time)))
    highest = float(comparison.final[1].max(initial=0.0))
    start = float(comparison.integrated[:, 0].max(initial=0.0))
    text = (
        f"With {learning.objective!r} the network learns {learned} of {count(features, 'feature')}"
        f"{' before the budget of work ends the flow' if learning.check.cut else ''}, "
        "measured against the fixed points of the plain objective"
    )
    if highest < start:
        text += f": its representation collapses, the highest response falls from {number(start)} to {number(highest)}"
    return f"{text}."
