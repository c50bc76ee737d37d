"""What an analysis says, in sentences computed from its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..analysis import order_correlation
from .cautions import next_to_nothing_shared, options_at_work, theory_fails, too_few_samples
from .words import LABEL, count, number, percent

if TYPE_CHECKING:
    from .study import Analysis, Learning

__all__ = ["Finding", "findings"]


class Finding(NamedTuple):
    """A word or two that name it, and a sentence or two."""

    topic: str
    text: str


def findings(analysis: Analysis) -> list[Finding]:
    """Return the key findings, most important first; what limits their worth comes before all."""
    cautions = [
        Finding("Samples", too_few_samples(analysis)),
        Finding("Pairs", next_to_nothing_shared(analysis)),
        Finding("Options", options_at_work(analysis)),
        Finding("Theory", theory_fails(analysis)),
    ]
    predictions = [Finding("Learned", _nothing(analysis))]
    if not predictions[0].text:
        predictions = [
            Finding("Learned", _what(analysis)),
            Finding("Order", _order(analysis)),
            Finding("Time", _timing(analysis)),
            Finding("Early stopping", _overlap(analysis)),
            Finding("Noise", _suppression(analysis)),
        ]
    if not analysis.settings.plain:
        predictions = [Finding(topic, text and f"For the plain objectives: {text}") for topic, text in predictions]
    measured = [Finding("Loss", _losses(analysis)), Finding("Check", _check(analysis))]
    return [finding for finding in [*cautions, *predictions, *measured] if finding.text]


def _nothing(analysis: Analysis) -> str:
    """Say why nothing is learned, if so."""
    if analysis.jepa.order.size or analysis.mae.order.size:
        return ""
    lam, eps = analysis.spectrum.lam, analysis.settings.eps
    text = "Neither JEPA nor MAE learns anything: "
    if (lam < 0).all():
        return text + "every feature has a negative covariance lambda. Has y the wrong sign?"
    if (lam <= 0).all():
        return text + "no feature has a positive covariance lambda."
    highest = max(float(each.fixed_point.max()) for each in analysis.learnings.values())
    if highest <= eps:
        return text + f"the start of {eps:g} lies above every fixed point, of which the highest is {number(highest)}."
    return text + (
        f"no feature predicts y from x well enough to outgrow the start of {eps:g}; the highest fixed point is "
        f"{number(highest)}."
    )


def _what(analysis: Analysis) -> str:
    spec, n = analysis.spectrum, len(analysis.spectrum)
    return (
        f"Of {count(n, 'feature')}, JEPA learns {analysis.jepa.order.size} and MAE {analysis.mae.order.size} "
        f"(depth {analysis.settings.depth:g}, start {analysis.settings.eps:g}). "
        f"The most predictable one has rho = {spec.rho.max():.2f}."
    )


def _order(analysis: Analysis) -> str:
    value = analysis.order_correlation
    if not analysis.ranks:
        return ""
    learned = np.union1d(analysis.jepa.order, analysis.mae.order)
    spec = analysis.spectrum
    if value > 0.95:
        verdict = "JEPA and MAE learn the features in nearly the same order"
    elif value > 0.6:
        verdict = "JEPA and MAE learn the features in a similar order"
    elif value > 0.2:
        verdict = "JEPA and MAE learn the features in clearly different orders"
    elif value > -0.2:
        verdict = "The orders in which JEPA and MAE learn the features have nothing in common"
    else:
        verdict = "JEPA and MAE learn the features in opposite orders"
    trend = order_correlation(-spec.lam[learned], -spec.rho[learned])
    if math.isnan(trend):
        return f"{verdict} (rank correlation {value:.2f})."
    return (
        f"{verdict} (rank correlation {value:.2f}). JEPA looks at rho and lambda, MAE at lambda alone, and "
        f"{_trend_in_words(trend, value)} (rank correlation {trend:.2f})."
    )


def _trend_in_words(trend: float, alike: float) -> str:
    if trend > 0.6:
        return "here features of high covariance lambda also have high rho"
    if trend >= -0.6:
        return "here lambda and rho are only loosely related"
    if alike > 0.6:
        return "here, though lambda decides for both, features of high covariance lambda have low rho"
    return "here features of high covariance lambda have low rho"


def _timing(analysis: Analysis) -> str:
    spreads = []
    for learning in analysis.learnings.values():
        times = learning.critical_time[learning.order]
        if times.size < 2:
            return ""
        spreads.append((times[0], times[-1], times[-1] / times[0]))
    (first_j, last_j, ratio_j), (first_m, last_m, ratio_m) = spreads
    return (
        f"JEPA needs t = {number(first_j)} for its first feature and {number(last_j)} for its last "
        f"(a factor of {number(ratio_j)}), MAE {number(first_m)} and {number(last_m)} (a factor of {number(ratio_m)})."
    )


def _overlap(analysis: Analysis) -> str:
    shared = analysis.overlap
    if not shared.k.size:
        return ""
    worst = int(np.argmin(shared.coefficient))
    if shared.coefficient[worst] == 1:
        return f"Stopped early after any number of features up to {shared.k[-1]}, the two have learned the same ones."
    return (
        f"Stopped when each has learned {count(int(shared.k[worst]), 'feature')}, they have {shared.shared[worst]} in common; "
        f"this is the stopping point where they differ most (representation overlap {shared.representation[worst]:.2f})."
    )


def _suppression(analysis: Analysis) -> str:
    both = np.intersect1d(analysis.jepa.order, analysis.mae.order)
    both = both[analysis.resolved[both]]
    if both.size < 2:
        return ""
    rho = analysis.spectrum.rho
    low = both[np.argmin(rho[both])]
    jepa, mae = analysis.jepa.fixed_point[low], analysis.mae.fixed_point[low]
    if rho[low] >= 1 or jepa >= mae:
        return ""
    depth = analysis.settings.depth
    return (
        f"The noisiest clear feature both learn (#{low + 1}, rho = {rho[low]:.2f}) ends at a response of "
        f"{jepa:.2g} in JEPA and {mae:.2g} in MAE: JEPA suppresses what it cannot predict"
        + (f", by rho^{depth:g}." if depth > 1 else ".")
    )


def _losses(analysis: Analysis) -> str:
    ends = {}
    for name, learning in analysis.learnings.items():
        flow = learning.check.flow
        if flow is None or flow.loss is None:
            return ""
        known = flow.loss[np.isfinite(flow.loss)]
        if known.size < 2:
            return ""
        ends[name] = (known[0], known[-1])
    jepa, mae = ends["jepa"], ends["mae"]
    text = f"JEPA's loss {_change(*jepa)}, MAE's {_change(*mae)}."
    if jepa[1] > jepa[0]:
        text += (
            " A rising JEPA loss is no failure: it starts low only because everything starts near zero, and features "
            "are learned all the same."
        )
    return text


def _change(start: float, end: float) -> str:
    return f"{'rises' if end > start else 'falls'} from {number(start)} to {number(end)}"


def _check(analysis: Analysis) -> str:
    checks = [learning.check for learning in analysis.learnings.values()]
    if all(check.flow is None for check in checks):
        return f"Not made. {' '.join(dict.fromkeys(check.note for check in checks))}"
    parts = [f"{LABEL[name]}: {_checked(learning)}" for name, learning in analysis.learnings.items()]
    comparison = next(check.comparison for check in checks if check.comparison is not None)
    return f"The deep linear network itself was trained (gradient flow). {' '.join(parts)} {comparison.assumptions.summary()}"


def _checked(learning: Learning) -> str:
    """Say how one objective's network compares with the prediction, its few sentences closed."""
    check, comparison = learning.check, learning.check.comparison
    if comparison is None:
        return f"not trained. {check.note}"
    predicted = learning.order.size
    if check.flow and check.cut and comparison.predicted_time.min() > check.flow.t[-1]:
        end = number(check.flow.t[-1])
        return f"nothing to compare, the budget of work ended the flow at t = {end}, before any feature is learned."
    if comparison.compared:
        text = (
            f"critical times off by {percent(comparison.median_error)} in the median and {percent(comparison.max_error)} "
            f"at most over {comparison.compared} of {count(predicted, 'feature')}"
        )
        if comparison.ranks:
            text += f", rank correlation of the orders {comparison.order_correlation:.3f}"
    else:
        text = (
            f"none of {count(predicted, 'feature')} predicted to be learned is learned by the network in the time given"
        )
    if check.cut:
        text += f" (the budget of work ended the flow at t = {number(check.flow.t[-1])})" if check.flow else ""
    surprises = comparison.unexpected.size
    if surprises:
        names = ", ".join(f"#{check.features[i] + 1}" for i in comparison.unexpected[:5])
        text += f"; the network also learned {count(surprises, 'feature')} that by the theory it never learns ({names}"
        text += ", ...)" if surprises > 5 else ")"
    return f"{text}."
