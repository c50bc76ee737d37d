"""Claim 11: a linear probe of nonlinear encoders over their training, on digits and on digits beside noise.

A probe of a full-rank linear encoder sees what a probe of the pixels sees, whatever was learned. So the encoder ends in a
bottleneck: it must choose what to keep. MAE learns first what has the largest covariance lambda (THEORY.md 4), and in the end
keeps what explains most of its target, the largest lambda rho; JEPA goes by rho. They disagree about features of large variance
and small rho. Noise that is new in each view is no such feature: its lambda is 0, and neither objective learns it. Noise that
two views share in part, as two moments of a flickering background do, has lambda = rho sigma^2, here above that of any feature
of the digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._validate import FloatArray
from ..batches import Rows
from ..covariances import Covariances
from ..objectives import JEPA, MAE, Objective
from ._noisy_digits import DIGIT, noisy_digits
from ._probe import Learner
from ._result import About, Progress, Result, Verdict, how_many, silent
from ._threads import one_thread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=11,
    title="Linear probe over training",
    claim="Encoders with a bottleneck, digits beside noise of large variance that two views share in part: JEPA's linear probe "
    "is never behind MAE's and ends 0.1 above the best that MAE's ever reaches, as MAE's representation fills with noise. On "
    "digits alone the two end within 0.1 of each other; noise that the views do not share costs MAE less than that.",
    extra="experiments",
)
CASES = ("digits alone", "noise new in each view", "noise shared in part")
EMA = 5.0  # time constant of the target, in flow time
METHODS: dict[str, Objective] = {"JEPA": JEPA(), "JEPA, moving-average target": JEPA(ema=EMA), "MAE": MAE()}
LEVELS = ("pixels of the digit", "all pixels", "supervised encoder", "untrained encoder")
MARGIN = 0.1  # of accuracies, what counts as a difference: six standard errors on 599 images
KEEP = 0.75  # part of a digit's pixels that a view shows
GAIN = 0.7  # of every layer at the start: between the rho of the noise, which JEPA then only forgets, and that of the digits


@dataclass(frozen=True, eq=False, repr=False)
class LinearProbe(Result):
    """Attributes: ``iteration`` [m], ``accuracy``, ``noise`` [case, method, seed, m] (part of the features' variance that noise
    pixels cause) and ``reference`` [case, 3, seed], accuracies too.
    """

    iteration: Rows
    accuracy: FloatArray
    noise: FloatArray
    reference: FloatArray

    layout: ClassVar[tuple[int, int]] = (1, 3)
    size: ClassVar[tuple[float, float]] = (13.0, 4.6)

    def verdicts(self) -> Sequence[Verdict]:
        """The worse of JEPA's two targets against MAE."""
        (alone, unshared, shared), noise = self.accuracy, self.noise[2, :, :, -1]
        above = (shared[:2, :, -1] - shared[2].max(axis=-1)).min()
        ahead = (shared[2] - shared[:2]).mean(axis=1).max()
        apart = np.abs((alone[:2] - alone[2])[:, :, -1].mean(axis=1)).max()
        cost = (alone - unshared)[2, :, -1].mean()
        return (
            Verdict("shared noise: JEPA at the end minus MAE at its best, lowest of all seeds", above, ">=", MARGIN),
            Verdict("shared noise: largest lead of MAE at equal iterations, mean of seeds", ahead, "<=", MARGIN / 2),
            Verdict("shared noise: its part in JEPA's representation, highest of all", noise[:2].max(), "<=", 0.1),
            Verdict("shared noise: its part in MAE's representation, lowest of all", noise[2].min(), ">=", 0.5),
            Verdict("digits alone: distance of JEPA from MAE at the end, mean of seeds", apart, "<=", MARGIN),
            Verdict("noise new in each view: what it costs MAE at the end, mean of seeds", cost, "<=", MARGIN),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.style import INK, OBJECTIVE_COLOR, add_legend, dress

        looks: tuple[dict[str, Any], ...] = (
            {"color": OBJECTIVE_COLOR["jepa"], "marker": "o"},
            {"color": "#7fb0de", "marker": "^"},
            {"color": OBJECTIVE_COLOR["mae"], "marker": "s"},
        )
        at = self.iteration[1:]  # the axis is logarithmic; iteration 0 is a line of its own
        for k, (ax, rho) in enumerate(zip(axes, (None, 0, self.setting["noise_rho"]), strict=True)):
            for name, look, runs in zip(METHODS, looks, self.accuracy[k, :, :, 1:], strict=True):
                ax.fill_between(at, runs.min(axis=0), runs.max(axis=0), color=look["color"], alpha=0.2, linewidth=0)
                ax.plot(at, runs.mean(axis=0), label=name, markersize=4.5, linewidth=1.6, **look)
            levels = (*self.reference[k].mean(axis=-1), self.accuracy[k, :, :, 0].mean())
            for name, level, style in zip(LEVELS, levels, ("-", "--", ":", "-."), strict=True):
                ax.axhline(level, color=INK, alpha=0.7, linestyle=style, linewidth=1.1, label=name, zorder=1)
            title = CASES[k] if rho is None else rf"{CASES[k]} ($\rho = {rho:g}$)"
            ax.set(title=title, xscale="log", ylim=(0.1, 1.0))
            dress(ax, "iteration", "accuracy of the linear probe" if k == 0 else "")
        add_legend(axes[0], "lower right")


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    seeds: int | None = None,
    noise_pixels: int = 32,
    noise_variance: float = 2.0,
    noise_rho: float = 0.4,
    bottleneck: int = 10,
) -> LinearProbe:
    """Train encoders on pairs of masked digits; as they learn, fit logistic regressions to what they make of whole images.

    Parameters
    ----------
    fast : bool, default False
        Narrower encoders, fewer and larger steps, two seeds.
    seed : int, default 0
        Of the splits, starts, batches, masks and noise.
    progress : callable, optional
    seeds : int, optional
        Trainings of each kind, each on a split of its own; by default 5.
    noise_pixels : int, default 32
        Beside the 64 of the digit.
    noise_variance : float, default 2.0
        Of each, where the first principal component of the digits has variance 1.
    noise_rho : float, default 0.4
        Correlation between the views of a noise pixel that they share in part. As it is, its lambda exceeds any of the digits'.
    bottleneck : int, default 10
        Units of the representation.
    """
    width, lr, batch, steps = (64, 0.2, 64, 500) if fast else (128, 0.1, 128, 3000)
    at = np.unique([0, *np.geomspace(10, steps, 6 if fast else 16).round().astype(int)])
    starts = np.random.SeedSequence(seed).generate_state(how_many("seeds", seeds, 2 if fast else 5, 1)).tolist()
    found = np.empty((2, len(CASES), len(METHODS), len(starts), at.size))
    reference = np.empty((len(CASES), len(LEVELS) - 1, len(starts)))
    with one_thread():
        for k, (pixels, rho) in enumerate(((0, 0.0), (noise_pixels, 0.0), (noise_pixels, noise_rho))):
            for j, start in enumerate(starts):
                progress((k * len(starts) + j) / (len(CASES) * len(starts)))
                digits = noisy_digits(pixels, noise_variance, rho, keep=KEEP, seed=start)
                learner = Learner(digits, (DIGIT + pixels, width, width, bottleneck), GAIN, batch, start)
                found[:, k, :, j] = np.stack([learner.follow(each, lr, at) for each in METHODS.values()], axis=1)
                reference[k, :, j] = *learner.pixels(), learner.supervised(steps)
    pairs = noisy_digits(0, 0.0, 0.0, keep=KEEP, seed=starts[0]).sample(10_000, np.random.default_rng(seed))
    largest = Covariances.from_pairs(*pairs, exchangeable=True).spectrum().lam.max()
    setting = {
        "digits": "scikit-learn's, 1,198 for training and 599 for testing the probe, split anew for every seed",
        "noise": f"{noise_pixels} normal pixels beside the {DIGIT} of the digit, shared noise with rho = {noise_rho:g}",
        "lambda": f"{noise_rho * noise_variance:g} of shared noise, at most {largest:.2f} of features of the digits",
        "views": f"each pixel of the digit shown with probability {KEEP:g}, both views by chances of their own",
        "encoder": f"tanh, widths {(DIGIT + noise_pixels, width, width, bottleneck)}, {GAIN} times orthonormal at the start",
        "predictor": f"{GAIN} times the identity at the start, aligned as the theory has it",
        "training": f"SGD, learning rate {lr}, {steps} minibatches of {batch}, the same for all; {len(starts)} seeds",
        "moving-average target": f"time constant {EMA:g} (flow time), {EMA / lr:g} steps",
        "probe": "logistic regression on the features of whole images, standardised",
        "supervised encoder": "squared error of a linear classifier, Adam with learning rate 0.001",
        "noise_rho": noise_rho,
        "seed": seed,
    }
    return LinearProbe(setting, at, found[0], found[1], reference)
