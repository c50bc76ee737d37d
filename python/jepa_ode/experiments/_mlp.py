"""Training of nonlinear encoders, in PyTorch: what the experiments share that leave the theory's assumptions behind."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from .._frozen import FrozenArrays, read_only
from .._validate import FloatArray, as_choice, as_index, as_positive
from ..batches import Rows, Sampler
from ..encoders import EncoderResponses, ResponseRecorder
from ..models import StaticModel
from ..network import LinearNetwork, random_orthonormal
from ..objectives import JEPA, ObjectiveLike, as_objective
from ..training import as_snapshots, throttled
from ._result import Progress, silent
from ._threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..spectrum import Spectrum

__all__ = [
    "EncoderTraining",
    "batches",
    "from_network",
    "learn",
    "linear_head",
    "mlp",
    "nonlinear_share",
    "train_encoder",
]

_DRAWN = 50  # batches at a time: a call of a model's sample has a cost of its own

Seed: TypeAlias = int | np.random.Generator
Activation: TypeAlias = Literal["relu", "tanh", "gelu"]


def mlp(widths: Sequence[int], *, gain: float = 1.0, activation: Activation = "relu", seed: Seed = 0) -> nn.Sequential:
    """Return a multilayer perceptron with a linear last layer, float32, without biases.

    Parameters
    ----------
    widths : sequence of int
        ``(d, hidden, ..., k)``; two of them make a linear encoder.
    gain : float, default 1.0
        Each layer starts as ``gain`` times a random matrix with orthonormal rows or columns, so that all directions start
        alike; a small gain makes learning greedy.
    activation : {"relu", "tanh", "gelu"}, default "relu"
        Of the hidden layers.
    seed : int or numpy.random.Generator, default 0
        PyTorch's own random numbers are left alone.
    """
    rng = np.random.default_rng(seed)
    frames = [_orthonormal(rows, columns, rng) for columns, rows in pairwise(widths)]
    return _stack([as_positive("gain", gain) * frame for frame in frames], activation)


def from_network(network: LinearNetwork, activation: Activation = "relu") -> tuple[nn.Sequential, nn.Linear]:
    """Return the encoder of a linear network with an activation between its layers, and its predictor, float32."""
    return _stack(network.encoder, activation), _linear(network.predictor)


def linear_head(inputs: int, outputs: int, *, gain: float = 1.0, seed: Seed | None = None) -> nn.Linear:
    """Return a linear predictor or decoder, without bias.

    It starts as ``gain`` times the identity, the predictor that is aligned with any encoder (THEORY.md 2), or with a seed
    as ``gain`` times a random matrix with orthonormal rows or columns.
    """
    frame = np.eye(outputs, inputs) if seed is None else _orthonormal(outputs, inputs, np.random.default_rng(seed))
    return _linear(as_positive("gain", gain) * frame)


def batches(data: Sampler, size: int, *, seed: Seed = 0) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Return ``sample(step)`` for `train_encoder`: fresh minibatches x, y [size, d] of a model, float32.

    Parameters
    ----------
    data : model
        Anything with ``.sample(n, rng) -> x, y``, such as `jepa_ode.StaticModel`.
    size : int
        Samples of a minibatch.
    seed : int or numpy.random.Generator, default 0
    """
    import torch

    rng = np.random.default_rng(seed)
    size = as_index("size", size, minimum=1)
    ready: list[tuple[Tensor, Tensor]] = []

    def sample(_step: int) -> tuple[Tensor, Tensor]:
        if not ready:
            views = data.sample(_DRAWN * size, rng)
            x, y = (torch.from_numpy(np.asarray(view, dtype=np.float32)).split(size) for view in views)
            ready.extend(zip(x, y, strict=True))
        return ready.pop()

    return sample


@dataclass(frozen=True, eq=False)
class EncoderTraining(FrozenArrays):
    """How a training went.

    Attributes
    ----------
    iteration : int array [m]
        Steps taken at each snapshot.
    loss : array [steps]
        Of each minibatch, before its step.
    """

    iteration: Rows
    loss: FloatArray


def train_encoder(
    encoder: nn.Module,
    head: nn.Module,
    sample: Callable[[int], tuple[Tensor, Tensor]],
    objective: ObjectiveLike,
    *,
    optimizer: Literal["sgd", "adam"] = "sgd",
    lr: float,
    steps: int,
    snapshots: Any = 50,
    observe: Callable[[int, Any], object] | None = None,
    progress: Progress = silent,
) -> EncoderTraining:
    """Train an encoder with its predictor (JEPA) or decoder (MAE) on minibatches, in place (THEORY.md 1).

    The loss is half the mean over the batch of ``|head(encoder(x)) - target|^2``. JEPA's target is the representation of
    ``y``, behind a stop-gradient unless the objective says otherwise, MAE's is ``y`` itself.

    Parameters
    ----------
    encoder, head : torch.nn.Module
    sample : callable
        ``sample(step)`` returns the minibatch x, y of a step, two tensors.
    objective : JEPA, MAE, "jepa" or "mae"
        With its options. A moving-average target starts equal to the encoder, and after each step
        ``B += (lr / ema) (W - B)``, in the units of `jepa_ode.train`; ``lr`` may not exceed ``ema``. Weight decay is added
        to the gradient.
    optimizer : {"sgd", "adam"}, default "sgd"
        Those of ``torch.optim``.
    lr : float
        Learning rate.
    steps : int
    snapshots : int or int array [m], default 50
        So many iterations, evenly spread from 0 to ``steps``, or these.
    observe : callable, optional
        ``observe(step, encoder)`` is called at each snapshot.
    progress : callable, optional
        Told the part that is done.

    Raises
    ------
    FloatingPointError
        When the loss is no longer finite.
    """
    import torch

    objective = as_objective(objective)
    lr, steps = as_positive("lr", lr), as_index("steps", steps, minimum=1)
    at = as_snapshots(snapshots, steps)
    ema = objective.ema if isinstance(objective, JEPA) else None
    if ema is not None and lr > ema:
        raise ValueError(f"lr must not exceed ema, the time constant of the target: got {lr} and {ema}")
    family = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[as_choice("optimizer", optimizer, ("sgd", "adam"))]
    weights = [*encoder.parameters(), *head.parameters()]
    optimise = family(weights, lr=lr, weight_decay=objective.weight_decay)
    target = encoder if ema is None else copy.deepcopy(encoder).requires_grad_(False)
    loss = np.empty(steps)
    told, due = throttled(progress), set(at.tolist())
    for step in range(steps + 1):
        if step in due and observe is not None:
            observe(step, encoder)
        if step == steps:
            break
        x, y = sample(step)
        if isinstance(objective, JEPA):
            goal = target(y)
            if objective.stop_gradient:
                goal = goal.detach()
        else:
            goal = y
        error = 0.5 * (head(encoder(x)) - goal).square().sum() / len(x)
        loss[step] = error.item()
        if not math.isfinite(loss[step]):
            raise FloatingPointError(f"the loss is not finite after {step} steps; a smaller lr may help")
        optimise.zero_grad()
        error.backward()
        optimise.step()
        if ema is not None:
            with torch.no_grad():
                for average, weight in zip(target.parameters(), encoder.parameters(), strict=True):
                    average.lerp_(weight, lr / ema)
        told((step + 1) / steps)
    return EncoderTraining(read_only(at), read_only(loss))


def learn(
    spec: Spectrum,
    objective: ObjectiveLike,
    rng: np.random.Generator,
    *,
    turned: bool,
    eps: float,
    activation: Activation = "relu",
    batch_size: int = 128,
    **options: Any,
) -> tuple[EncoderResponses, float]:
    """Train an encoder with one hidden layer on the static model with these features, and record its responses to them.

    Parameters
    ----------
    spec : Spectrum
        n features.
    objective : JEPA, MAE, "jepa" or "mae"
    rng : numpy.random.Generator
    turned : bool
        Whether the features lie in random orthogonal directions of the data or along the axes.
    eps : float
        Balanced start of the layers [2n, n] and [n, 2n], without the activation.
    activation : {"relu", "tanh", "gelu"}, default "relu"
    batch_size : int, default 128
    **options
        Those of `train_encoder`.

    Returns
    -------
    EncoderResponses
        At the snapshots.
    float
        Share of the trained encoder's output that is not linear in its input.
    """
    n = len(spec)
    frame = _orthonormal(n, n, rng) if turned else np.eye(n)
    model = StaticModel.from_spectrum(spec, rotation=frame)
    probes, _ = model.sample(20 * n, rng)
    record = ResponseRecorder(probes, frame)
    encoder, head = from_network(LinearNetwork.balanced(n, 2, eps, rng, widths=(2 * n, n)), activation)
    with one_thread():
        train_encoder(encoder, head, batches(model, batch_size, seed=rng), objective, observe=record, **options)
    return record.responses, nonlinear_share(encoder, probes)


def nonlinear_share(encoder: nn.Module, x: FloatArray) -> float:
    """Return the share of the variance of the output that is not linear in the input, by regression on x [N, d]."""
    import torch

    with torch.no_grad():
        output = encoder(torch.from_numpy(x).float()).double().numpy()
    x, output = x - x.mean(axis=0), output - output.mean(axis=0)
    rest = output - x @ np.linalg.lstsq(x, output, rcond=None)[0]
    return float(np.square(rest).sum() / np.square(output).sum())


def _orthonormal(rows: int, columns: int, rng: np.random.Generator) -> FloatArray:
    """Return a random matrix whose rows or columns, whichever are fewer, are orthonormal."""
    frame = random_orthonormal(max(rows, columns), min(rows, columns), rng)
    return frame if rows >= columns else frame.T


def _stack(weights: Sequence[FloatArray], activation: Activation) -> nn.Sequential:
    from torch import nn

    known = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
    hidden = known[as_choice("activation", activation, ("relu", "tanh", "gelu"))]
    layers: list[nn.Module] = []
    for weight in weights:
        layers += [_linear(weight), hidden()]
    return nn.Sequential(*layers[:-1])


def _linear(weight: FloatArray) -> nn.Linear:
    import torch
    from torch import nn

    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer
