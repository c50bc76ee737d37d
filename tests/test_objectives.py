"""The objectives as arguments: names, options and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import fields

import pytest

import jepa_ode as jo
from jepa_ode.objectives import as_objective
from jepa_ode.sweeps import tasks


@pytest.mark.parametrize(("name", "objective"), [("jepa", jo.JEPA()), ("MAE", jo.MAE()), (jo.MAE(0.1), jo.MAE(0.1))])
def test_names_and_instances(name: str | jo.MAE, objective: jo.JEPA | jo.MAE) -> None:
    assert as_objective(name) == objective
    assert pickle.loads(pickle.dumps(objective)) == objective


def test_closed_forms_hold_for_the_defaults_only() -> None:
    assert jo.JEPA().is_plain
    assert jo.MAE().is_plain
    for objective in (jo.JEPA(stop_gradient=False), jo.JEPA(ema=1.0), jo.JEPA(weight_decay=0.1), jo.MAE(0.1)):
        assert not objective.is_plain


def test_who_knows_the_options_by_name_knows_them_all() -> None:
    """Each of these would ignore a new option without a word: docs/extending.md has the list."""
    options = {field.name for field in fields(jo.JEPA)} | {field.name for field in fields(jo.MAE)}
    assert options == {
        "stop_gradient",
        "ema",
        "weight_decay",
    }  # stability, assumptions, cli/analyze: look, then add it here
    assert options == set(tasks._OPTIONS)


def test_bad_options_are_named() -> None:
    for options, message in (
        ({"ema": 0.0}, "ema must be positive"),
        ({"ema": 1.0, "stop_gradient": False}, "ema needs stop_gradient=True"),
        ({"weight_decay": -1.0}, "weight_decay must be non-negative"),
    ):
        with pytest.raises(ValueError, match=message):
            jo.JEPA(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stop_gradient must be True or False"):
        jo.JEPA(stop_gradient=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="objective must be 'jepa' or 'mae'"):
        as_objective("byol")
    with pytest.raises(TypeError, match=r"got the class: write jepa_ode\.JEPA\(\)"):
        as_objective(jo.JEPA)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got int"):
        as_objective(1)  # type: ignore[arg-type]
