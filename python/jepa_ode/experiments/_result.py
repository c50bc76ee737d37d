"""What an experiment is, what it finds, and the verdict that follows from its data."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from .._extras import require
from .._frozen import FrozenArrays
from .._validate import as_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["About", "Progress", "Result", "Verdict", "how_many", "silent"]

Progress: TypeAlias = Callable[[float], object]  # told the part that is done


def silent(part: float) -> None:
    """Say nothing of the progress."""


def how_many(name: str, given: int | None, usual: int, least: int = 2) -> int:
    """Return how many features or repetitions there are to be: the usual number unless another is given."""
    return usual if given is None else as_index(name, given, minimum=least)


@dataclass(frozen=True)
class About:
    """What an experiment is about.

    Attributes
    ----------
    number : int
        Its place among the claims (THEORY.md 5).
    title : str
    claim : str
        What is to be shown, in a sentence.
    extra : str or None
        The extra of the package that it needs, beside matplotlib for its figure.
    """

    number: int
    title: str
    claim: str
    extra: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A quantity measured in the data of an experiment against a threshold set before.

    Attributes
    ----------
    quantity : str
        What was measured, in words.
    value : float
        NaN where it could not be measured; the claim then does not hold.
    relation : {"<=", ">="}
    threshold : float

    Examples
    --------
    >>> from jepa_ode.experiments import Verdict
    >>> print(Verdict("rank correlation of the two orders", -1.0, "<=", -0.9))
    holds: rank correlation of the two orders: -1 <= -0.9
    """

    quantity: str
    value: float
    relation: Literal["<=", ">="]
    threshold: float

    @property
    def holds(self) -> bool:
        """Whether the quantity is on the right side of its threshold."""
        if self.relation == "<=":
            return bool(self.value <= self.threshold)
        return bool(self.value >= self.threshold)

    def __str__(self) -> str:
        word = "holds" if self.holds else "FAILS"
        if math.isnan(self.value):
            return f"{word}: {self.quantity}: not measured, should be {self.relation} {self.threshold:g}"
        relation = self.relation if self.holds else f"not {self.relation}"
        return f"{word}: {self.quantity}: {self.value:.4g} {relation} {self.threshold:g}"


@dataclass(frozen=True, eq=False, repr=False)
class Result(FrozenArrays, ABC):
    """The data of an experiment: a frozen dataclass of arrays that knows its verdicts and draws itself.

    Attributes
    ----------
    setting : mapping of str to values
        What was run, in words that a page can show.
    """

    setting: Mapping[str, Any]

    layout: ClassVar[tuple[int, int]] = (1, 1)  # rows and columns of axes
    size: ClassVar[tuple[float, float]] = (6.4, 4.4)  # of the figure, in inches

    @abstractmethod
    def verdicts(self) -> Sequence[Verdict]:
        """Return what the data say of the claim; it holds when all of them do."""

    @abstractmethod
    def _draw(self, axes: Sequence[Axes]) -> None:
        """Draw on the axes of the layout, row by row."""

    @property
    def holds(self) -> bool:
        """Whether the claim holds in these data."""
        return all(verdict.holds for verdict in self.verdicts())

    def plot(self, axes: Any = None) -> np.ndarray[Any, Any]:
        """Draw the figure.

        Parameters
        ----------
        axes : array or sequence of matplotlib axes, optional
            As many as ``layout`` has, row by row; by default those of a new figure. Room for labels and colour bars is best
            made by ``pyplot.subplots(*result.layout, figsize=result.size, layout="constrained")``. To draw one panel on
            axes of your own take its data: they are the fields of the result.

        Returns
        -------
        array of Axes

        Raises
        ------
        ValueError
            For another number of axes.
        """
        if axes is None:
            require("matplotlib", "figures need", "plot")
            from matplotlib import pyplot

            axes = self._axes(pyplot.figure(figsize=self.size, layout="constrained"))
        given = np.atleast_1d(np.asarray(axes, dtype=object))
        rows, columns = self.layout
        if given.size != rows * columns:
            raise ValueError(f"{type(self).__name__} draws on {rows} x {columns} axes, got {given.size}")
        self._draw(list(given.flat))
        return given

    def figure(self) -> Figure:
        """Return the figure, unknown to pyplot: nothing has to close it."""
        require("matplotlib", "figures need", "plot")
        from matplotlib.figure import Figure

        figure = Figure(figsize=self.size, layout="constrained")
        self.plot(self._axes(figure))
        return figure

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the fields that are arrays, by name."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}

    def _axes(self, figure: Figure) -> np.ndarray[Any, Any]:
        rows, columns = self.layout
        return np.asarray(figure.subplots(rows, columns, squeeze=False))

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}: the claim {'holds' if self.holds else 'does NOT hold'}"]
        return "\n  ".join([*lines, *map(str, self.verdicts())])
