"""What the reader of a report should keep in mind, and how far the data are from the assumptions, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .cautions import theory_fails
from .words import LABEL, have

if TYPE_CHECKING:
    from .study import Analysis

__all__ = ["diagnostic_sentences", "limits"]


def limits(analysis: Analysis) -> list[str]:
    """Return what the reader should keep in mind: noise, barely learned features, cut-offs, options."""
    return [*_left_out(analysis), *_noise(analysis), *_barely_learned(analysis), *_flow_notes(analysis)]


def diagnostic_sentences(analysis: Analysis) -> list[str]:
    """Return how far the data are from the assumptions, one sentence or two per line."""
    diagnostic = analysis.spectrum.diagnostic
    if diagnostic is None:
        return []
    first, *others = diagnostic.summary().splitlines()
    sentences = [f"{first} {analysis.settings.remark}".strip(), *others]
    if theory_fails(analysis):
        sentences.append(
            "What is said of coupling does not know the start and the objective. The check on the network does, and it "
            "finds larger errors: it has the last word."
        )
    return sentences


def _left_out(analysis: Analysis) -> list[str]:
    shown, total = len(analysis.spectrum), analysis.n_total
    if shown == total:
        return []
    held = f"This report holds the {shown} features that either objective learns first"
    return [f"{held} and leaves out {total - shown} of {total}."]


def _noise(analysis: Analysis) -> list[str]:
    spec = analysis.spectrum
    texts = []
    steep = int(np.count_nonzero(spec.rho > 1))
    if steep:
        texts.append(
            f"{have(steep)} a rho above 1. rho is the slope of a regression of y on x, no correlation: it exceeds 1 where y "
            "is larger than x, where samples are few, or where the views were not made in the same way."
        )
    noise = int(np.count_nonzero(spec.lam <= 0))
    if noise:
        texts.append(
            f"{have(noise)} a covariance of zero or below: noise, or of opposite sign in the two views. On its own "
            "such a feature is never learned."
        )
    vague = int(np.count_nonzero(~analysis.resolved & (spec.rho > 0)))
    if vague:
        texts.append(
            f"{have(vague)} a rho within two standard errors of zero: more pairs are needed to say whether there is "
            "anything to learn."
        )
    return texts


def _barely_learned(analysis: Analysis) -> list[str]:
    settings = analysis.settings
    unborn = {
        name: int(np.count_nonzero(learning.fixed_point > 0)) - learning.order.size
        for name, learning in analysis.learnings.items()
    }
    return [
        f"{have(number)} so low a fixed point in {LABEL[name]} that {settings.fraction:g} of it is less than "
        f"{settings.min_growth:g} times the start of {settings.eps:g}: not counted as learned."
        for name, number in unborn.items()
        if number > 0
    ]


def _flow_notes(analysis: Analysis) -> list[str]:
    notes = {name: learning.check.note for name, learning in analysis.learnings.items() if learning.check.note}
    if len(notes) == 2 and notes["jepa"] == notes["mae"]:
        texts = [notes["jepa"]]
    else:
        texts = [f"{LABEL[name]}: {note}" for name, note in notes.items()]
    settings = analysis.settings
    if not settings.plain:
        changed = " and ".join(repr(each) for each in (settings.jepa, settings.mae) if not each.is_plain)
        texts.append(
            f"The matrix flow follows {changed}. The predictions have no such options: they are those of the plain objectives, "
            "and where the two part is the effect of the options."
        )
    return texts
