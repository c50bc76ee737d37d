"""Runs experiments and keeps what comes out: figures, data, verdicts, and the gallery of all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from .._validate import as_index
from ..report.markup import data_uri
from ..report.numbers import plain, versions
from ._catalogue import find, names, require_extras
from ._result import About, Progress, Result, silent

__all__ = ["Outcome", "reproduce"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One experiment that was run.

    Attributes
    ----------
    name : str
    about : About
    result : Result or None
        None where the experiment broke.
    error : str
        Why, in a line; empty otherwise.
    seconds : float
        Run time, figure included.
    """

    name: str
    about: About
    result: Result | None
    error: str
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the claim was seen to hold."""
        return self.result is not None and self.result.holds

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "broke" if self.result is None else "holds" if self.result.holds else "does not hold"


def reproduce(
    experiments: Sequence[str] | None = None,
    *,
    fast: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Callable[[str, float], object] | None = None,
) -> list[Outcome]:
    """Run experiments: the claims of THEORY.md 5, each with its figure and a verdict computed from its data.

    Parameters
    ----------
    experiments : sequence of str, optional
        Their names, as `names` returns them; by default all.
    fast : bool, default False
        Smaller versions, of seconds each.
    seed : int, default 0
        Of everything random.
    out : path, optional
        Folder for, per experiment, ``NAME.png``, ``NAME.npz`` (its arrays) and ``NAME.json`` (setting, verdicts), and for
        ``gallery.html``, one page with all of this run. Files are written as soon as an experiment is over, so that nothing is
        lost when a later one is interrupted. By default nothing is written.
    progress : callable, optional
        Told the name of an experiment and the part of it that is done.

    Returns
    -------
    list of Outcome
        An experiment that raises is an outcome with its error; the others run all the same.

    Raises
    ------
    ValueError
        For a name that no experiment has.
    ImportError
        When a package is missing that one of them needs, before any is run.
    OSError
        When ``out`` cannot be written to.

    Examples
    --------
    >>> from jepa_ode import experiments
    >>> (outcome,) = experiments.reproduce(["fixed_points"], fast=True)
    >>> outcome.verdict
    'holds'
    """
    as_index("seed", seed)
    chosen = [_name(each) for each in (names() if experiments is None else dict.fromkeys(experiments))]
    require_extras([find(name) for name in chosen])
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()  # rather now than after the first experiment
    outcomes: list[Outcome] = []
    sources: dict[str, str] = {}
    for name in chosen:
        start = time.perf_counter()
        tell: Progress = silent if progress is None else partial(progress, name)
        tell(0.0)
        result, error = None, ""
        try:
            result = find(name).run(fast=fast, seed=seed, progress=tell)
            if folder is not None:
                sources[name] = _save_figure(result, folder / f"{name}.png")
        except Exception as reason:  # whatever an experiment raises concerns that experiment
            error = " ".join(f"{type(reason).__name__}: {reason}".split())
        outcome = Outcome(name, find(name).ABOUT, result, error, time.perf_counter() - start)
        outcomes.append(outcome)
        tell(1.0)
        if folder is not None:
            _save_numbers(outcome, folder, fast=fast, seed=seed)
            from ._gallery import write_gallery

            write_gallery(outcomes, sources, folder / "gallery.html", fast=fast, seed=seed)
    return outcomes


def _name(name: str) -> str:
    find(name)
    return name.replace("-", "_")


def _save_figure(result: Result, path: Path) -> str:
    """Draw the figure once: the page shows the file."""
    result.figure().savefig(path, dpi=200)
    return data_uri("png", path.read_bytes())


def _save_numbers(outcome: Outcome, folder: Path, *, fast: bool, seed: int) -> None:
    result = outcome.result
    content: dict[str, Any] = {
        "name": outcome.name,
        "claim": outcome.about.claim,
        "verdict": outcome.verdict,
        "error": outcome.error,
        "verdicts": [] if result is None else [asdict(each) | {"holds": each.holds} for each in result.verdicts()],
        "setting": {} if result is None else _jsonable(result.setting),
        "fast": fast,
        "seed": seed,
        "seconds": outcome.seconds,
        "versions": versions(),
    }
    (folder / f"{outcome.name}.json").write_text(json.dumps(plain(content), indent=2) + "\n", encoding="utf-8")
    if result is not None:
        np.savez_compressed(folder / f"{outcome.name}.npz", allow_pickle=False, **result.arrays())


def _jsonable(setting: Mapping[str, Any]) -> dict[str, Any]:
    simple = (bool, int, float, str, list, tuple, dict, np.ndarray, np.generic)
    return {name: value if isinstance(value, simple) else repr(value) for name, value in setting.items()}
