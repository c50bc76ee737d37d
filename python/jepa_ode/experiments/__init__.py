"""The claims about JEPA and MAE as experiments that run, show themselves and judge themselves (THEORY.md 5).

Each file of this folder is an experiment: ``run`` returns its data, a `Result` with ``verdicts()`` and ``plot()``.
``jepa-ode reproduce`` runs them all and writes a gallery; so does `reproduce`.

>>> from jepa_ode.experiments import fixed_points
>>> found = fixed_points.run(fast=True)
>>> found.holds
True

To add one, add a file: an `About` named ``ABOUT`` and a function ``run(*, fast, seed, progress)``. Nothing else has to know.
"""

from typing import Any as _Any

from ._catalogue import find, names
from ._reproduce import Outcome, reproduce
from ._result import About, Progress, Result, Verdict, silent

__all__ = ["About", "Outcome", "Progress", "Result", "Verdict", "find", "names", "reproduce", "silent"]


def __getattr__(name: str) -> _Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return find(name)
    except ValueError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *names()})
