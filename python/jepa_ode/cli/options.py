"""Types of the command line's options: what a text stands for, or what would be right."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

__all__ = ["count", "from_one", "from_zero", "positive", "real", "seed", "shape", "share", "shrinkage", "whole"]


def real(requirement: str, holds: Callable[[float], bool]) -> Callable[[str], float]:
    """Return the type of an option that takes real numbers for which `holds`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and holds(value)):
            raise argparse.ArgumentTypeError(f"must be {requirement}, got {text!r}")
        return value

    return parse


positive = real("a positive number", lambda value: value > 0)
from_one = real("a number of at least 1", lambda value: value >= 1)
share = real("a number between 0 and 1", lambda value: 0 < value < 1)
from_zero = real("zero or a positive number", lambda value: value >= 0)


def whole(least: int) -> Callable[[str], int]:
    """Return the type of an option that takes whole numbers from `least` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return value

    return parse


count = whole(1)
seed = whole(0)


def shape(text: str) -> tuple[int, int]:
    """Return the height and width that "8x8" stands for."""
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, like 8x8, got {text!r}") from None
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {text!r}")
    return height, width


def shrinkage(text: str) -> str | float | None:
    """Return the amount of shrinkage, or the name of the rule that chooses it."""
    if text in ("none", "ledoit-wolf"):
        return None if text == "none" else text
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount <= 1:
        raise argparse.ArgumentTypeError(f"must be none, ledoit-wolf or a number from 0 to 1, got {text!r}")
    return amount
