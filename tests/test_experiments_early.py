"""What the experiments on losses, collapse and early stopping must notice when it is not so."""

from __future__ import annotations

import dataclasses

import pytest

from jepa_ode.experiments import collapse, early_stopping, loss_curves


def failing(result: loss_curves.Result) -> int:
    return sum(not verdict.holds for verdict in result.verdicts())


def test_exchanged_losses_are_noticed() -> None:
    found = loss_curves.run(fast=True, seed=3)
    assert failing(dataclasses.replace(found, loss=found.loss[::-1])) == 4  # what each does, and where each ends
    assert failing(dataclasses.replace(found, response=0.1 * found.response)) == 1


def test_a_representation_that_stays_is_noticed_and_so_is_one_that_goes() -> None:
    found = collapse.run(fast=True, seed=3)
    assert failing(dataclasses.replace(found, variance=found.variance[:, 1:])) == 1
    assert failing(dataclasses.replace(found, response=found.response[:, [0] * found.response.shape[1]])) == 2
    assert failing(dataclasses.replace(found, delay=2 * found.delay)) >= 1


@pytest.mark.parametrize("depth", [1, 3])
def test_collapse_at_other_depths(depth: int) -> None:
    assert collapse.run(fast=True, depth=depth).holds


def test_equal_trends_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rising = early_stopping.feature_trends
    monkeypatch.setattr(early_stopping, "feature_trends", lambda n, _, **ranges: rising(n, "same", **ranges))
    assert failing(early_stopping.run(fast=True)) == 6


def test_shallow_encoders_learn_in_one_order() -> None:
    assert not early_stopping.run(fast=True, depth=2).holds
