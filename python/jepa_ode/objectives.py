"""The two training objectives and the options that change their dynamics (THEORY.md 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from ._validate import as_non_negative, as_positive

__all__ = ["JEPA", "MAE", "Objective", "ObjectiveLike", "as_objective"]


@dataclass(frozen=True, slots=True)
class JEPA:
    """Predict the latent representation of the target (THEORY.md 1).

    The loss is ``1/2 E || V Wbar x - SG(Wbar y) ||^2``.

    Parameters
    ----------
    stop_gradient : bool, default True
        Whether the target is a constant for differentiation. Without it the representation collapses to zero.
    ema : float, optional
        Time constant ``tau`` of an exponential-moving-average target encoder, in units of flow time; with a learning-rate
        schedule it counts on the schedule's clock. None (the default) is the plain stop-gradient, the limit ``tau -> 0``.
    weight_decay : float, default 0.0
        Coefficient ``eta >= 0`` of the term ``-eta W`` that is added to the flow of every weight.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> jo.JEPA()
    JEPA(stop_gradient=True, ema=None, weight_decay=0.0)
    """

    stop_gradient: bool = True
    ema: float | None = None
    weight_decay: float = 0.0

    name: ClassVar[str] = "jepa"
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not isinstance(self.stop_gradient, bool):
            raise TypeError(f"stop_gradient must be True or False, got {self.stop_gradient!r}")
        if self.ema is not None:
            as_positive("ema", self.ema)
            if not self.stop_gradient:
                raise ValueError("ema needs stop_gradient=True: a moving-average target is never differentiated")
        as_non_negative("weight_decay", self.weight_decay)

    @property
    def is_plain(self) -> bool:
        """Whether the closed forms of THEORY.md 3 apply: stop-gradient, no moving average, no weight decay."""
        return self.stop_gradient and self.ema is None and self.weight_decay == 0.0


@dataclass(frozen=True, slots=True)
class MAE:
    """Predict the target itself (THEORY.md 1).

    The loss is ``1/2 E || V Wbar x - y ||^2``.

    Parameters
    ----------
    weight_decay : float, default 0.0
        Coefficient ``eta >= 0`` of the term ``-eta W`` that is added to the flow of every weight.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> jo.MAE(weight_decay=0.01).is_plain
    False
    """

    weight_decay: float = 0.0

    name: ClassVar[str] = "mae"
    code: ClassVar[int] = 1

    def __post_init__(self) -> None:
        as_non_negative("weight_decay", self.weight_decay)

    @property
    def is_plain(self) -> bool:
        """Whether the closed forms of THEORY.md 3 apply: no weight decay."""
        return self.weight_decay == 0.0


Objective: TypeAlias = JEPA | MAE
ObjectiveLike: TypeAlias = Objective | str


def as_objective(value: object) -> Objective:
    """Return ``value`` as an objective; the names ``"jepa"`` and ``"mae"`` stand for their defaults.

    Parameters
    ----------
    value : JEPA, MAE, "jepa" or "mae"
        Names in any case.

    Raises
    ------
    ValueError
        For any other string.
    TypeError
        For anything else.

    Examples
    --------
    >>> from jepa_ode.objectives import as_objective
    >>> as_objective("mae")
    MAE(weight_decay=0.0)
    """
    if isinstance(value, JEPA | MAE):
        return value
    if isinstance(value, str):
        if value.lower() == JEPA.name:
            return JEPA()
        if value.lower() == MAE.name:
            return MAE()
        raise ValueError(f"objective must be 'jepa' or 'mae' (or a JEPA or MAE instance), got {value!r}")
    if value in (JEPA, MAE):
        raise TypeError(f"objective must be an instance, got the class: write jepa_ode.{value.__name__}()")
    raise TypeError(f"objective must be a JEPA or MAE instance, 'jepa' or 'mae', got {type(value).__name__}")


def require_plain(objective: Objective, what: str) -> None:
    """Raise ValueError unless the closed forms apply to ``objective``."""
    if not objective.is_plain:
        raise ValueError(
            f"{what} holds for plain objectives only (stop-gradient, no ema, no weight_decay), got {objective!r}; "
            "for the others jepa_ode.solve(...) integrates, with .critical_time() and .learning_order() of its result, "
            "jepa_ode.fixed_points lists where they end, and jepa_ode.gradient_flow integrates the network itself"
        )
