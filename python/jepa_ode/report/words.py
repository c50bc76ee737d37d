"""Numbers and counts in words, for sentences and tables."""

from __future__ import annotations

import math

__all__ = ["LABEL", "count", "have", "number", "percent"]

LABEL = {"jepa": "JEPA", "mae": "MAE"}


def number(value: float) -> str:
    """Three digits, no exponent where it can be avoided."""
    if 0.001 <= abs(value) < 1e6:
        digits = 2 - math.floor(math.log10(abs(value)))
        return f"{round(float(value), digits):,.{max(0, digits)}f}"
    return f"{value:.3g}"


def percent(fraction: float) -> str:
    """Two digits, or whole per cents from 100% on."""
    return f"{100 * fraction:.2g}%" if fraction < 0.995 else f"{100 * fraction:.0f}%"


def count(items: int, noun: str) -> str:
    """Return "1 feature", "2 features"."""
    return f"{items} {noun}{'s' * (items != 1)}"


def have(items: int) -> str:
    """Return "1 feature has", "2 features have"."""
    return f"{count(items, 'feature')} {'has' if items == 1 else 'have'}"
