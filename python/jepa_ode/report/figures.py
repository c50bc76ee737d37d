"""The figures of a report: each with its title, a sentence that says what to see, and an SVG in a data URI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plot
from .._validate import FloatArray
from ..analysis import order_correlation
from .markup import figure_source
from .words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .study import Analysis, Learning

__all__ = ["ReportFigure", "Section", "draw_sections"]

# Half the width of a desktop page or the whole width of a phone: at 10 points the text is readable on both.
_SIZE = (4.8, 3.6)
# A rank correlation above which a caption speaks of a trend.
_TREND = 0.6


@dataclass(frozen=True)
class ReportFigure:
    """A figure ready for the page.

    Attributes
    ----------
    title, caption : str
        What it is, and what to see in it.
    source : str
        ``data:image/svg+xml;base64,...``
    """

    title: str
    caption: str
    source: str


@dataclass(frozen=True)
class Section:
    """A heading, an introduction and figures."""

    name: str
    title: str
    text: str
    figures: tuple[ReportFigure, ...]


def draw_sections(analysis: Analysis) -> Iterator[Section]:
    """Draw the figures, section by section."""
    yield _features(analysis)
    yield _dynamics(analysis)
    yield _patterns(analysis)
    yield _times(analysis)
    if any(learning.check.flow is not None for learning in analysis.learnings.values()):
        yield _check(analysis)
        yield _losses(analysis)


def _features(analysis: Analysis) -> Section:
    spec = analysis.spectrum
    stderr = spec.diagnostic is not None and spec.diagnostic.rho_stderr is not None
    return Section(
        "features",
        "The features of the data",
        "A feature is a direction of the data along which x predicts y. Two numbers decide its fate: the covariance "
        "lambda = E[x y], which says how strong it is, and the regression coefficient rho = lambda / sigma^2, which "
        "says how predictable it is. Features are numbered by falling rho.",
        (
            _figure(
                "Strength and predictability",
                "Right: strong (lambda). Top: predictable (rho). JEPA favours the top, MAE the right; where the "
                "points rise to the right, the two agree."
                + (" Bars are two standard errors." if stderr else "")
                + (" Grey: rho is not positive, never learned." if (spec.rho <= 0).any() else ""),
                lambda ax: plot.plot_spectrum(spec, ax),
            ),
            _figure(
                "Learning order, JEPA against MAE",
                "One point per feature, coloured by rho as in the other figures; on the dashed line both learn it at the "
                "same place." + _rank_correlation(analysis),
                lambda ax: plot.plot_order(analysis.jepa.critical_time, analysis.mae.critical_time, spec.rho, ax),
            ),
        ),
    )


def _rank_correlation(analysis: Analysis) -> str:
    if not analysis.ranks:
        return ""
    return f" Rank correlation of the orders: {analysis.order_correlation:.2f}."


def _by_rho(analysis: Analysis) -> float:
    """Return how far JEPA learns in the order of falling rho: a rank correlation, 0 where there is none."""
    return _along(analysis.jepa, analysis.spectrum.rho)


def _along(learning: Learning, values: FloatArray) -> float:
    """Return the rank correlation of an order with falling `values`; 0 for fewer than three features."""
    if learning.order.size < 3:
        return 0.0
    value = order_correlation(learning.critical_time[learning.order], -values[learning.order])
    return 0.0 if np.isnan(value) else value


def _jepa_caption(analysis: Analysis) -> str:
    trend = _by_rho(analysis)
    first = ""
    if trend > _TREND:
        first = " The predictable (dark) come first."
    elif trend < -_TREND:
        first = " Here the less predictable (light) come first, because they are stronger."
    return f"Each feature ends at rho to the power of the depth, the predictable (dark) highest.{first}"


def _mae_caption(analysis: Analysis) -> str:
    sentences = []
    if _along(analysis.mae, analysis.spectrum.lam) > 0.95:
        sentences.append("Features rise in the order of lambda.")
    both = np.intersect1d(analysis.jepa.order, analysis.mae.order)
    if both.size:
        noisy = both[np.argmin(analysis.spectrum.rho[both])]
        if analysis.mae.fixed_point[noisy] > 2 * analysis.jepa.fixed_point[noisy]:
            sentences.append("Noisy (light) ones end far higher than in JEPA.")
        ratio = float(np.median(analysis.jepa.critical_time[both] / analysis.mae.critical_time[both]))
        if ratio > 3:
            sentences.append(
                f"Mind the time axis: in the median MAE learns a feature {number(ratio)} times as fast as JEPA."
            )
    return " ".join(sentences)


def _dynamics(analysis: Analysis) -> Section:
    spec = analysis.spectrum

    def responses(learning: Learning, caption: str) -> ReportFigure:
        name = plot.OBJECTIVE_LABEL[learning.objective.name]
        return _figure(
            f"{name}: response of the encoder",
            caption,
            lambda ax: plot.plot_responses(learning.t, learning.response, spec.rho, ax),
        )

    return Section(
        "dynamics",
        "What is learned when",
        "Predicted response of a deep linear encoder to each feature while it trains, exact for features that do not couple. "
        "Time is logarithmic, in units of gradient flow.",
        (
            responses(
                analysis.jepa,
                _jepa_caption(analysis),
            ),
            responses(
                analysis.mae,
                _mae_caption(analysis),
            ),
        ),
    )


def _patterns(analysis: Analysis) -> Section:
    spec, shape = analysis.spectrum, analysis.settings.image_shape
    duals = np.asarray(spec.duals)
    kind = "as images" if shape else "as rows of a heat map"
    a, b = analysis.jepa.order, analysis.mae.order
    common = min(a.size, b.size)
    same = int(np.argmin(np.append(a[:common] == b[:common], False)))
    alike = f"JEPA and MAE agree on the first {same}." if same > 1 else ""
    figures = []
    for learning in analysis.learnings.values():
        name = plot.OBJECTIVE_LABEL[learning.objective.name]
        shown = min(learning.order.size, 16)
        # Four tiles in a row, each as wide as a quarter of the figure, with room for a line of text.
        height = 1.49 * -(-shown // 4) * shape[0] / shape[1] + 0.1 if shape else 0.24 * shown + 0.7
        figures.append(
            _figure(
                f"{name}: the features in the order it learns them",
                ("Read from left to right, line by line. " if shape else "First learned on top. ") + alike,
                _drawer(plot.plot_features, duals, learning.order, spec.rho, image_shape=shape),
                size=(4.8, max(height, 1.4)),
            )
        )
    return Section(
        "patterns",
        f"The features themselves, {kind}",
        "The pattern that a feature adds to the data (its dual direction), red where it raises a value and blue where "
        "it lowers it, each scaled to its own largest entry. With each: its place in the order, its number, its rho.",
        tuple(figures),
    )


def _times(analysis: Analysis) -> Section:
    times = {name: (learning.critical_time, learning.leading_time) for name, learning in analysis.learnings.items()}
    return Section(
        "times",
        "Critical times and early stopping",
        f"The critical time of a feature is when its response reaches {analysis.settings.fraction:g} of its own fixed "
        "point. The leading order is the textbook formula for a vanishing start; the exact time is what counts.",
        (
            _figure(
                "Exact and leading order",
                "Filled: exact. Open: leading order. Where they part, the formula misleads."
                + (" JEPA's times climb as rho falls." if _by_rho(analysis) > _TREND else ""),
                lambda ax: plot.plot_critical_times(times, analysis.spectrum.rho, ax),
            ),
            _figure(
                "Overlap under early stopping",
                "Each objective is stopped when it has learned k features. Dots: share of the k features that both have. "
                "Solid line: overlap of the two representations, weighted by how much each feature contributes.",
                lambda ax: plot.plot_overlap(analysis.overlap, ax),
            ),
        ),
    )


def _check(analysis: Analysis) -> Section:
    figures = []
    comparisons = {
        name: learning.check.comparison
        for name, learning in analysis.learnings.items()
        if learning.check.comparison is not None
    }
    figures.append(
        _figure(
            "Critical times: network against theory",
            "On the dashed line the prediction is right.",
            lambda ax: plot.plot_check(comparisons, ax),
        )
    )
    negative = ""
    if (analysis.spectrum.rho < 0).any():
        negative = (
            " At the far left: features of negative rho. On their own they are never learned; in a network, coupling "
            "to others can let them grow late."
        )
    figures.append(
        _figure(
            "Final responses: network against theory",
            "Where each feature stands when the flow ends." + negative,
            lambda ax: plot.plot_check_final(comparisons, ax),
        )
    )
    for name, comparison in comparisons.items():
        label = plot.OBJECTIVE_LABEL[name]
        rho = analysis.spectrum.rho[analysis.learnings[name].check.features]
        figures.append(
            _figure(
                f"{label}: network against theory",
                "Broad lines: the network. Dashed: predicted. Eight of the features, spread over all that are learned.",
                _drawer(plot.plot_check_responses, comparison, rho),
            )
        )
    return Section(
        "check",
        "Checked on the network itself",
        "The theory treats features one by one; real features couple. So the whole deep linear network was trained (its matrix "
        "gradient flow, integrated) and compared.",
        tuple(figures),
    )


def _losses(analysis: Analysis) -> Section:
    figures = []
    for name, learning in analysis.learnings.items():
        flow = learning.check.flow
        if flow is None or flow.loss is None:
            continue
        caption = (
            "It ends higher than it began: the target moves with the encoder, so that the loss measures how much "
            "there is to predict and not how badly it is predicted."
            if name == "jepa"
            else "The target is the data itself" + (": the loss can only fall." if learning.objective.is_plain else ".")
        )
        if name == "jepa" and not flow.loss[0] < flow.loss[np.isfinite(flow.loss)][-1]:
            caption = "It ends lower than it began."
        figures.append(
            _figure(
                f"{plot.OBJECTIVE_LABEL[name]}: loss of the network",
                caption,
                _drawer(plot.plot_losses, flow.t, flow.loss, name, predicted=learning.check.loss),
            )
        )
    return Section(
        "losses",
        "Loss curves",
        "Loss of the network while it trains, and the loss that the theory gives.",
        tuple(figures),
    )


def _drawer(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Axes], Any]:
    return lambda ax: function(*args, ax=ax, **options)


def _figure(
    title: str, caption: str, draw: Callable[[Axes], Any], *, size: tuple[float, float] = _SIZE
) -> ReportFigure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    return ReportFigure(title, caption.strip(), figure_source(figure))
