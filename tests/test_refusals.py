"""What is refused says what was wrong with it, and what there is to see says what it is: sentences that users read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jepa_ode as jo
from jepa_ode.cli import options
from jepa_ode.cli.failure import one_line
from jepa_ode.pairs import DataError, read_pairs
from jepa_ode.sweeps import tasks

SPECTRUM = jo.Spectrum([1.0, 0.5], [2.0, 1.0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: jo.Covariances(np.eye(2), np.eye(2), mean_x=[0.0]), r"mean_x must have shape \(2,\), got \(1,\)"),
        (
            lambda: jo.models.StaticModel(np.eye(2), np.eye(3)),
            r"noise must be .* shape \(2,\) or \(2, 2\), got \(3, 3\)",
        ),
        (lambda: jo.time_to_reach(SPECTRUM, "jepa", depth=2, eps=0.1, w=[0.2, -0.3]), "got -0.3 for feature 1"),
        (lambda: solution(v0=0.5).sensitivity(), "holds for a balanced start only"),
        (lambda: solution(v0=0.5).critical_time(1.0), "fraction must lie between 0 and 1"),
        (
            lambda: tasks.solve(lam=[1.0], rho=[0.5], objective="mae", ema=0.5, depth=2, eps=0.1, t=[0.0, 1.0]),
            "no ema",
        ),
        (lambda: read_pairs(Path("a"), Path("b"), Path("c")), "got 3 files"),
    ],
)
def test_arguments(call: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        call()


def solution(**how: Any) -> jo.Solution:
    return jo.solve(SPECTRUM, "jepa", depth=2, eps=0.1, t=np.linspace(0, 5, 6), **how)


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (options.shape, "8", "must be HEIGHTxWIDTH, like 8x8, got '8'"),
        (options.shape, "8x0", "must be positive, got '8x0'"),
        (options.shrinkage, "some", "must be none, ledoit-wolf or a number from 0 to 1, got 'some'"),
        (options.shrinkage, "1.5", "must be none, ledoit-wolf or a number from 0 to 1, got '1.5'"),
        (options.count, "0", "must be a whole number of at least 1, got '0'"),
    ],
)
def test_options(parse: Any, text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        parse(text)
    assert str(refused.value) == says


def test_one_array_is_no_pair(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(2))
    with pytest.raises(DataError, match=r"a single file of pairs must be an \.npz with the arrays x and y"):
        read_pairs(tmp_path / "x.npy")


def test_failures_are_one_line() -> None:
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(OSError(2, "No such file", "a.csv")) == "a.csv: no such file"
    assert one_line(OSError(28, "No space left")) == "no space left"


def test_repr() -> None:
    assert repr(jo.Spectrum([], [])) == "Spectrum(0 features)"
    assert repr(jo.models.StaticModel(np.ones((3, 2)))) == "StaticModel(d=3, latents=2)"
