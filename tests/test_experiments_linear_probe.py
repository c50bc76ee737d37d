"""The data and the probe of experiment 11; the experiment itself is run with all others."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch

from jepa_ode import JEPA, MAE
from jepa_ode.experiments import linear_probe
from jepa_ode.experiments._noisy_digits import DIGIT, Labelled, noisy_digits
from jepa_ode.experiments._probe import Learner, Probe
from jepa_ode.experiments._threads import one_thread


def test_views_have_the_covariances_that_are_stated():
    digits = noisy_digits(5, 2.0, 0.4, keep=0.75, seed=3)
    x, y = digits.sample(40_000, np.random.default_rng(0))
    assert x.shape == y.shape == (40_000, DIGIT + 5)
    cov = np.cov(digits.train.T, bias=True)
    assert np.linalg.eigvalsh(cov)[-1] == pytest.approx(1.0)
    Sxx, Syx = x.T @ x / len(x), y.T @ x / len(x)
    assert Syx[:DIGIT, :DIGIT] == pytest.approx(0.75**2 * cov, abs=0.01)
    masked = 0.75**2 * cov + 0.75 * 0.25 * np.diag(np.diagonal(cov))
    assert Sxx[:DIGIT, :DIGIT] == pytest.approx(masked, abs=0.01)
    assert Sxx[DIGIT:, DIGIT:] == pytest.approx(2.0 * np.eye(5), abs=0.08)
    assert Syx[DIGIT:, DIGIT:] == pytest.approx(0.8 * np.eye(5), abs=0.08)
    assert np.abs(Syx[:DIGIT, DIGIT:]).max() < 0.02


def test_the_split_is_that_of_the_seed_whatever_the_noise():
    alone, beside = noisy_digits(0, 0.0, 0.0, keep=0.5, seed=1), noisy_digits(9, 1.0, 0.3, keep=0.75, seed=1)
    assert np.array_equal(alone.train, beside.train)
    assert len(alone.train) == 1198 and len(alone.test) == 599
    assert not np.array_equal(alone.train, noisy_digits(0, 0.0, 0.0, keep=0.5, seed=2).train)


def test_labelled_views_carry_the_class_of_their_digit():
    digits = noisy_digits(3, 1.0, 0.4, keep=1.0)
    x, classes = Labelled(digits).sample(50, np.random.default_rng(0))
    for view, one_hot in zip(x[:, :DIGIT], classes, strict=True):
        row = np.flatnonzero((digits.train == view).all(axis=1))[0]
        assert one_hot.argmax() == digits.train_labels[row] and one_hot.sum() == 1


def test_noise_is_the_part_of_the_variance_that_it_causes():
    digits = noisy_digits(40, 0.5, 0.0, keep=0.75)
    probe = Probe(digits, seed=0)
    assert probe.noise(lambda images: images[:, :DIGIT]) == 0
    assert probe.noise(lambda images: images[:, DIGIT:]) == pytest.approx(1.0, abs=0.02)
    share = 40 * 0.5 / (40 * 0.5 + digits.test.var(axis=0).sum())
    assert probe.noise(lambda images: images) == pytest.approx(share, abs=0.02)


def test_the_scale_of_features_does_not_matter_but_noise_alone_is_chance():
    probe = Probe(noisy_digits(20, 1.0, 0.0, keep=0.75), seed=0)
    accuracy = probe.accuracy(lambda images: images[:, :DIGIT])
    assert accuracy > 0.95
    assert probe.accuracy(lambda images: 1e-3 * images[:, :DIGIT]) == pytest.approx(accuracy, abs=0.005)
    assert probe.accuracy(lambda images: images[:, DIGIT:]) < 0.2


def test_objectives_start_from_the_same_encoder():
    learner = Learner(noisy_digits(8, 1.0, 0.4, keep=0.75), (DIGIT + 8, 16, 5), 0.7, 16, seed=4)
    runs = [learner.follow(objective, 0.1, np.array([0, 3])) for objective in (JEPA(), JEPA(ema=5.0), MAE())]
    assert np.array_equal(runs[0][:, 0], runs[1][:, 0]) and np.array_equal(runs[0][:, 0], runs[2][:, 0])
    assert not np.array_equal(runs[0][:, 1], runs[2][:, 1])


def test_objectives_exchanged_fail_the_claim():
    found = linear_probe.run(fast=True, seeds=1, seed=11)
    assert found.holds
    exchanged = dataclasses.replace(found, accuracy=found.accuracy[:, ::-1], noise=found.noise[:, ::-1])
    failed = [not verdict.holds for verdict in exchanged.verdicts()]
    assert failed[:4] == [True] * 4


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
