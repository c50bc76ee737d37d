"""Which experiments there are: one per file of this folder, found by looking."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from ._result import About, Progress, Result

__all__ = ["Experiment", "find", "names", "require_extras"]

_MODULES = {
    "plot": ("matplotlib",),
    "analyze": ("matplotlib", "sklearn"),
    "experiments": ("matplotlib", "sklearn", "torch"),
}


class Experiment(Protocol):
    """A file of this folder: it says what it is about and runs."""

    ABOUT: About

    def run(self, *, fast: bool = False, seed: int = 0, progress: Progress = ...) -> Result:
        """Run the experiment; a fast one takes seconds and is rougher."""


def names() -> list[str]:
    """Return the names of the experiments in the order of the claims.

    Examples
    --------
    >>> from jepa_ode import experiments
    >>> experiments.names()[:3]
    ['loss_curves', 'collapse', 'greedy_in_lambda']
    """
    package = import_module(__package__)
    found = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
    return sorted(found, key=lambda name: find(name).ABOUT.number)


def find(name: str) -> Experiment:
    """Return the experiment of this name; hyphens are as good as underscores.

    Raises
    ------
    ValueError
        Where there is none, naming those that there are.
    """
    module = str(name).replace("-", "_")
    if module.startswith("_") or not module.isidentifier() or find_spec(f"{__package__}.{module}") is None:
        raise ValueError(f"no experiment is called {name!r}; there are {', '.join(names())}")
    return cast(Experiment, import_module(f"{__package__}.{module}"))


def require_extras(experiments: list[Experiment]) -> None:
    """Raise ImportError, naming the command that helps, unless all experiments can run here."""
    for extra in dict.fromkeys(["plot", *(each.ABOUT.extra for each in experiments if each.ABOUT.extra)]):
        missing = [module for module in _MODULES[extra] if find_spec(module) is None]
        if missing:
            raise ImportError(f'{missing[0]} is missing: pip install "jepa-ode[{extra}]"')
