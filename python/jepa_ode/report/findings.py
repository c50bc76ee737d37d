"""What an analysis says, in sentences computed from its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..analysis import order_correlation

if TYPE_CHECKING:
    from .study import Analysis, Learning

__all__ = ["Finding", "diagnostic_sentences", "findings", "limits"]

LABEL = {"jepa": "JEPA", "mae": "MAE"}


class Finding(NamedTuple):
    """A word or two that name it, and a sentence or two."""

    topic: str
    text: str


def findings(analysis: Analysis) -> list[Finding]:
    """Return the key findings, most important first."""
    if not analysis.jepa.order.size and not analysis.mae.order.size:
        text = (
            "Neither JEPA nor MAE learns anything: no feature predicts y from x well enough to outgrow the start "
            f"of {analysis.settings.eps:g}."
        )
        return [Finding("Learned", text)]
    all_findings = [
        Finding("Learned", _what(analysis)),
        Finding("Order", _order(analysis)),
        Finding("Time", _timing(analysis)),
        Finding("Early stopping", _overlap(analysis)),
        Finding("Noise", _suppression(analysis)),
        Finding("Loss", _losses(analysis)),
        Finding("Check", _check(analysis)),
    ]
    return [finding for finding in all_findings if finding.text]


def limits(analysis: Analysis) -> list[str]:
    """Return what the reader should keep in mind: noise, barely learned features, cut-offs, options."""
    spec, settings = analysis.spectrum, analysis.settings
    texts = []
    dropped = analysis.n_total - len(spec)
    if dropped:
        texts.append(
            f"This report holds the {len(spec)} features that either objective learns first and leaves out "
            f"{dropped} of {analysis.n_total}."
        )
    noise = int(np.count_nonzero(spec.lam <= 0))
    if noise:
        texts.append(
            f"{_have(noise)} a covariance of zero or below: noise, or of opposite sign in the two views. On its own "
            "such a feature is never learned."
        )
    vague = int(np.count_nonzero(~analysis.resolved & (spec.rho > 0)))
    if vague:
        texts.append(
            f"{_have(vague)} a rho within two standard errors of zero: more pairs are needed to say whether there is "
            "anything to learn."
        )
    for learning in analysis.learnings.values():
        unborn = int(np.count_nonzero(learning.fixed_point > 0)) - learning.order.size
        if unborn > 0:
            texts.append(
                f"{_have(unborn)} so low a fixed point in {_name(learning)} that {settings.fraction:g} of it is less than "
                f"{settings.min_growth:g} times the start of {settings.eps:g}: not counted as learned."
            )
    notes = {name: learning.check.note for name, learning in analysis.learnings.items() if learning.check.note}
    if len(notes) == 2 and notes["jepa"] == notes["mae"]:
        texts.append(notes["jepa"])
    else:
        texts += [f"{LABEL[name]}: {note}" for name, note in notes.items()]
    if not settings.plain:
        changed = " and ".join(repr(each) for each in (settings.jepa, settings.mae) if not each.is_plain)
        texts.append(
            f"The matrix flow follows {changed}. The predictions have no such options: they are those of the plain objectives, "
            "and where the two part is the effect of the options."
        )
    return texts


def diagnostic_sentences(analysis: Analysis) -> list[str]:
    """Return how far the data are from the assumptions, one sentence or two per line."""
    diagnostic = analysis.spectrum.diagnostic
    return [] if diagnostic is None else diagnostic.summary().splitlines()


def _what(analysis: Analysis) -> str:
    spec, n = analysis.spectrum, len(analysis.spectrum)
    return (
        f"Of {_count(n, 'feature')}, JEPA learns {analysis.jepa.order.size} and MAE {analysis.mae.order.size} "
        f"(depth {analysis.settings.depth:g}, start {analysis.settings.eps:g}). "
        f"The most predictable one has rho = {spec.rho.max():.2f}."
    )


def _order(analysis: Analysis) -> str:
    value = analysis.order_correlation
    if math.isnan(value):
        return ""
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
    learned = np.union1d(analysis.jepa.order, analysis.mae.order)
    trend = order_correlation(-spec.lam[learned], -spec.rho[learned])
    if math.isnan(trend):
        return f"{verdict} (rank correlation {value:.2f})."
    if trend > 0.6:
        reason = "here features of high covariance lambda also have high rho"
    elif trend < -0.6:
        reason = "here features of high covariance lambda have low rho"
    else:
        reason = "here lambda and rho are only loosely related"
    return (
        f"{verdict} (rank correlation {value:.2f}). JEPA looks at rho and lambda, MAE at lambda alone, and {reason} "
        f"(rank correlation {trend:.2f})."
    )


def _timing(analysis: Analysis) -> str:
    spreads = []
    for learning in analysis.learnings.values():
        times = learning.critical_time[learning.order]
        if times.size < 2:
            return ""
        spreads.append((times[0], times[-1], times[-1] / times[0]))
    (first_j, last_j, ratio_j), (first_m, last_m, ratio_m) = spreads
    return (
        f"JEPA needs t = {_number(first_j)} for its first feature and {_number(last_j)} for its last "
        f"(a factor of {_number(ratio_j)}), MAE {_number(first_m)} and {_number(last_m)} (a factor of {_number(ratio_m)})."
    )


def _overlap(analysis: Analysis) -> str:
    shared = analysis.overlap
    if not shared.k.size:
        return ""
    worst = int(np.argmin(shared.coefficient))
    if shared.coefficient[worst] == 1:
        return f"Stopped early after any number of features up to {shared.k[-1]}, the two have learned the same ones."
    return (
        f"Stopped when each has learned {_count(int(shared.k[worst]), 'feature')}, they have {shared.shared[worst]} in common; "
        f"this is the stopping point where they differ most (representation overlap {shared.representation[worst]:.2f})."
    )


def _suppression(analysis: Analysis) -> str:
    both = np.intersect1d(analysis.jepa.order, analysis.mae.order)
    both = both[analysis.resolved[both]]
    if both.size < 2:
        return ""
    rho = analysis.spectrum.rho
    low = both[np.argmin(rho[both])]
    return (
        f"The noisiest clear feature both learn (#{low + 1}, rho = {rho[low]:.2f}) ends at a response of "
        f"{analysis.jepa.fixed_point[low]:.2g} in JEPA and {analysis.mae.fixed_point[low]:.2g} in MAE: JEPA suppresses "
        f"what it cannot predict, by rho^{analysis.settings.depth:g}."
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


def _check(analysis: Analysis) -> str:
    parts = []
    for learning in analysis.learnings.values():
        comparison = learning.check.comparison
        if comparison is None or not comparison.compared:
            continue
        parts.append(
            f"{_name(learning)}: critical times off by {100 * comparison.median_error:.2g}% in the median over "
            f"{_count(comparison.compared, 'feature')}, rank correlation of the orders {comparison.order_correlation:.3f}"
        )
    if not parts:
        return ""
    return f"The deep linear network itself was trained (gradient flow). {'; '.join(parts)}."


def _change(start: float, end: float) -> str:
    if end > start:
        return f"rises from {_number(start)} to {_number(end)}"
    return f"falls from {_number(start)} to {_number(end)}"


def _name(learning: Learning) -> str:
    return LABEL[learning.objective.name]


def _number(value: float) -> str:
    """Three digits, no exponent where it can be avoided."""
    if 0.001 <= abs(value) < 1e6:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{round(float(value), digits if digits else -(math.floor(math.log10(abs(value))) - 2)):,.{digits}f}"
    return f"{value:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _have(number: int) -> str:
    return "1 feature has" if number == 1 else f"{number} features have"
