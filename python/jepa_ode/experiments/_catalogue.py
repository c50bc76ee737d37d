"""Which experiments there are: one per file of this folder, found by looking."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
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
    return sorted(_modules(), key=lambda name: find(name).ABOUT.number)


def find(name: str) -> Experiment:
    """Return the experiment of this name; hyphens are as good as underscores.

    Raises
    ------
    ValueError
        Where there is none, naming those that there are, and for a file that is no experiment.
    """
    module = str(name).replace("-", "_")
    if module not in _modules():
        near = get_close_matches(module, _modules(), n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"no experiment is called {name!r}{meant}; there are {', '.join(names())}")
    found = import_module(f"{__package__}.{module}")
    if not isinstance(getattr(found, "ABOUT", None), About) or not callable(getattr(found, "run", None)):
        raise ValueError(f"{found.__file__} is no experiment: it needs ABOUT, an About, and a function run")
    return cast(Experiment, found)


def require_extras(experiments: list[Experiment]) -> None:
    """Raise ImportError, naming the command that helps, unless all experiments can run here."""
    for extra in dict.fromkeys(["plot", *(each.ABOUT.extra for each in experiments if each.ABOUT.extra)]):
        missing = [module for module in _MODULES[extra] if find_spec(module) is None]
        if missing:
            command = f'pip install "jepa-ode[{extra}]"'
            if extra == "plot":
                raise ImportError(f"{missing[0]} is missing, which all figures need: {command}")
            needy = [each.ABOUT.title for each in experiments if each.ABOUT.extra == extra]
            which = f"{' and '.join(needy)} need{'s' * (len(needy) == 1)}"
            raise ImportError(f"{missing[0]} is missing, which {which}: {command}, or name other experiments")


def _modules() -> list[str]:
    package = import_module(__package__)
    return [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
