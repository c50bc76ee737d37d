"""Training of a deep linear network in steps: what gradient flow idealises (THEORY.md 1)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import engine
from ._frozen import read_only
from ._progress import progress_callback
from ._threads import as_threads
from ._validate import FloatArray, as_choice, as_flag, as_generator, as_index, as_non_negative, as_positive, as_real
from .batches import Rows, Sampler, as_source
from .covariances import Covariances
from .flow_problem import duals_of, network_flow, require_fit, start_state, unpack
from .network import LinearNetwork, as_directions
from .network_record import NetworkRecord
from .objectives import JEPA, Objective, ObjectiveLike, as_objective
from .schedule import Schedule
from .theory import as_schedule

if TYPE_CHECKING:
    from .spectrum import Spectrum

__all__ = ["Training", "train"]

_OPTIMIZERS = ("gd", "sgd", "momentum", "nesterov", "adam", "adamw")
_WITH_MOMENTUM = ("momentum", "nesterov")
_ADAPTIVE = ("adam", "adamw")
# The engine is called for so many steps at a time: about 50 ms of work on one core.
_CALL_WORK = 2e9
_CALL_STEPS = 20_000
_MOST_STEPS = 2**53  # which a double counts
_RATES = 2**16  # learning rates that are held at a time


@dataclass(frozen=True, eq=False, repr=False)
class Training(NetworkRecord):
    """A linear network in training, observed after the iterations ``iteration``.

    Values at iterations that were not reached are NaN, and ``status`` says why.

    Attributes
    ----------
    iteration : int array [m]
        Steps taken; 0 is the start.
    t : array [m]
        Sum of the learning rates so far, divided by ``1 - momentum`` for "momentum" and "nesterov", which go so much
        further in the long run. So it is the flow time that small steps approach, except for "adam" and "adamw", whose
        steps do not scale with the gradient: there it is no more than the sum.
    response : array [n, m]
        Encoder response ``w_i = |Wbar p_i| / |p_i|`` to the feature ``i`` of ``features`` (THEORY.md 6).
    loss : array [m] or None
        ``1/2 E |V Wbar x - target|^2`` of the population, or the mean over all pairs; None when the data have no
        covariances or no ``Syy``. Weight decay is not part of it.
    features : Spectrum
        The features that ``response`` refers to.
    objective : JEPA or MAE
    start : LinearNetwork
        The network at iteration 0.
    optimizer : str
    lr : float
    batch_size : int or None
    status : Status
        ``OK`` or ``NOT_FINITE``.
    message : str
        The same in words.
    steps : int
        Steps after which all weights were finite.
    schedule : Schedule or None
        Learning-rate schedule.
    predictor_rate : float
        Factor of the predictor's learning rate.
    final : LinearNetwork or None
        The network after ``steps`` steps; None if its weights are not finite.
    """

    iteration: Rows
    t: FloatArray
    response: FloatArray
    loss: FloatArray | None
    features: Spectrum
    objective: Objective
    start: LinearNetwork
    optimizer: str
    lr: float
    batch_size: int | None
    status: engine.Status
    message: str
    steps: int
    schedule: Schedule | None = None
    predictor_rate: float = 1.0
    final: LinearNetwork | None = None
    weights: FloatArray | None = field(default=None)  # [m, every entry], or None: network() reads it

    @property
    def success(self) -> bool:
        """Whether every step was taken and left finite weights."""
        return self.status == engine.Status.OK

    def network(self, k: int) -> LinearNetwork:
        """Return the network after ``iteration[k]`` steps.

        Parameters
        ----------
        k : int
            Index into ``iteration``; negative counts from the end.

        Raises
        ------
        ValueError
            When the training was run without ``keep_weights=True``, or ``iteration[k]`` was not reached.
        IndexError
            When there is no ``iteration[k]``.
        """
        return self._network(k, f"iteration {self.iteration[k]}", "train")

    def plot(self, ax: Any = None) -> Any:
        """Plot the encoder responses against ``t``, for Adam against iterations, on ``ax`` and return it."""
        from .plot import plot_training

        return plot_training(self, ax=ax)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset``: ``response`` [feature, iteration], ``loss`` and ``t`` [iteration], parameters."""
        attrs = {
            "optimizer": self.optimizer,
            "lr": self.lr,
            **({} if self.batch_size is None else {"batch_size": self.batch_size}),
            "steps": self.steps,
        }
        coordinates = {"iteration": self.iteration, "t": ("iteration", self.t)}
        return self._to_xarray("iteration", coordinates, {}, attrs)

    def __repr__(self) -> str:
        return (
            f"Training({self.objective!r}, depth={self.start.depth}, features={len(self.response)}, "
            f"optimizer={self.optimizer!r}, lr={self.lr:g}, batch_size={self.batch_size}, "
            f"status={self.status.name}, steps={self.steps})"
        )


def train(
    net: LinearNetwork,
    data: Covariances | Sampler | tuple[Any, Any],
    objective: ObjectiveLike,
    *,
    optimizer: str = "gd",
    lr: float,
    steps: int,
    batch_size: int | None = None,
    shuffle: bool = True,
    rng: int | np.random.Generator = 0,
    momentum: float | None = None,
    betas: tuple[float, float] | None = None,
    adam_eps: float | None = None,
    predictor_rate: float = 1.0,
    schedule: Schedule | None = None,
    snapshots: Any = 50,
    features: Spectrum | None = None,
    keep_weights: bool = False,
    threads: int | None = None,
    progress: bool | Callable[[float], object] = False,
) -> Training:
    """Train a deep linear network in steps, on a population or on minibatches (THEORY.md 1).

    Parameters
    ----------
    net : LinearNetwork
        The start. JEPA needs a predictor [h_L, h_L], MAE one that decodes to the data, [d, h_L].
    data : Covariances, model or pair (x, y)
        What the gradient is of. Without ``batch_size`` it is that of the population: of these covariances, of the
        model's, or of the second moments of all pairs. With it, of minibatches:

        - `Covariances` with ``Syy``: Gaussian samples with mean zero and these covariances;
        - anything with ``.sample(n, rng) -> x, y``, as `StaticModel` and `DynamicModel`: one call per batch;
        - arrays x, y [samples, d], as they are (`Covariances.from_pairs` centres them): batches without replacement, in a
          new order each epoch. The samples that are left at the end of an epoch, fewer than a batch, are dropped.
    objective : JEPA, MAE, "jepa" or "mae"
        The loss is half the mean over the batch of ``|V Wbar x - target|^2``. A moving-average target starts equal to the
        encoder, and after each step ``B += (dt / ema) (W - B)`` with ``dt`` what the step adds to `Training.t`: ``ema`` is
        in units of flow time, and no ``dt`` may exceed it. A target ``m B + (1 - m) W`` has ``ema = dt / (1 - m)``. Weight
        decay is added to the gradient; with "adamw" it is decoupled, ``W -= rate * decay * W``.
    optimizer : {"gd", "sgd", "momentum", "nesterov", "adam", "adamw"}, default "gd"
        The formulas are those of ``torch.optim``: SGD ("gd" and "sgd" are two names of it), SGD with momentum (without
        dampening), with Nesterov's, Adam, AdamW.
    lr : float
        Learning rate, positive.
    steps : int
        Number of steps, at most 2**53.
    batch_size : int, optional
        Samples of a minibatch; None means the population.
    shuffle : bool, default True
        For pairs: False takes them in the given order, batch k being the rows ``[k * batch_size, (k + 1) * batch_size)``,
        and starts again when no full batch is left.
    rng : int or numpy.random.Generator, default 0
        All randomness of the batches. A seed gives the same run whatever the threads and the snapshots.
    momentum : float in [0, 1), optional
        Of "momentum" and "nesterov", by default 0.9; an error with the others, as are the next two.
    betas : (float, float) in [0, 1), optional
        Of "adam" and "adamw": decay of the means of the gradient and of its square, by default (0.9, 0.999).
    adam_eps : float, optional
        Of "adam" and "adamw": added to the root of the mean square, by default 1e-8.
    predictor_rate : float, default 1.0
        Multiplies the learning rate of the predictor, non-negative; 0 keeps it as it is.
    schedule : Schedule, optional
        Multiplies the learning rate; its clock is the number of steps taken before: ``lr * schedule(k)`` for step k + 1.
    snapshots : int or int array [m], default 50
        When to observe: so many evenly spaced iterations, 0 and ``steps`` included (fewer where there are no more), or
        increasing iteration numbers from 0 to ``steps``.
    features : Spectrum, optional
        Whose ``duals`` the responses refer to; by default those of the population's covariances, for pairs of their second
        moments.
    keep_weights : bool, default False
        Keep the weights at every snapshot, for :meth:`Training.network`.
    threads : int, optional
        Threads within a step, by default as many as there are CPUs, fewer for small networks. Results do not depend on
        them, bit for bit.
    progress : bool or callable, default False
        True shows a bar (needs tqdm); a callable is told the fraction of steps taken, at most ten times a second and at
        the end.

    Returns
    -------
    Training
        Divergence is its ``status``, never an exception, and ``message`` names the iteration: the first after which a
        weight is not finite. (Adam's steps have a bounded length, so that it may wander off for long before.)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, naming what would.
    ImportError
        When ``progress=True`` and tqdm is missing.

    Notes
    -----
    Since the network is linear, a batch enters through its second moments, unless it is so small that it is cheaper to
    send the samples through the layers: a step costs much less than by automatic differentiation.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> model = jo.StaticModel.from_spectrum(jo.Spectrum([0.8, 0.8], rho=[0.9, 0.4]))
    >>> net = jo.LinearNetwork.balanced(2, depth=2, eps=0.1)
    >>> run = jo.train(net, model, "jepa", optimizer="sgd", lr=0.02, steps=10_000, batch_size=32)
    >>> run.success
    True
    >>> bool(np.abs(run.response[:, -1] - [0.81, 0.16]).max() < 0.05)  # noise about the fixed points rho^L
    True
    """
    if not isinstance(net, LinearNetwork):
        raise TypeError(f"net must be a LinearNetwork, got {type(net).__name__}")
    objective = as_objective(objective)
    d = net.widths[0]
    optimizer = as_choice("optimizer", optimizer, _OPTIMIZERS)
    lr = as_positive("lr", lr)
    steps = as_index("steps", steps)
    if steps > _MOST_STEPS:
        raise ValueError(f"steps must be at most 2**53 = {_MOST_STEPS:,}")
    if batch_size is not None:
        batch_size = as_index("batch_size", batch_size, minimum=1)
    shuffle = as_flag("shuffle", shuffle)
    for name, value, users in (
        ("momentum", momentum, _WITH_MOMENTUM),
        ("betas", betas, _ADAPTIVE),
        ("adam_eps", adam_eps, _ADAPTIVE),
    ):
        if value is not None and optimizer not in users:
            raise ValueError(f"{name} is an option of {' and '.join(map(repr, users))}, got optimizer={optimizer!r}")
    momentum = _as_decay("momentum", 0.9 if momentum is None else momentum)
    betas = _as_betas((0.9, 0.999) if betas is None else betas)
    adam_eps = as_non_negative("adam_eps", 1e-8 if adam_eps is None else adam_eps)
    predictor_rate = as_non_negative("predictor_rate", predictor_rate)
    clock = as_schedule(schedule)
    at = as_snapshots(snapshots, steps)
    rates = _Rates(lr, clock)
    clock_scale = 1 - momentum if optimizer in _WITH_MOMENTUM else 1.0
    times, longest = rates.elapsed(at, steps, clock_scale)
    ema = objective.ema if isinstance(objective, JEPA) else None
    if ema is not None and longest > ema:
        raise ValueError(
            f"ema={ema:g} must be at least the flow time of a step, {longest:g}: the target moves by the "
            "part of its distance to the encoder that the one is of the other"
        )

    threads = as_threads(threads)
    source, population = as_source(data, d, batch_size, shuffle, as_generator(rng), threads)
    yy = None if population is None else population.Syy
    require_fit(net, objective, yy if batch_size is None else np.empty(0))  # batches bring their own
    if features is None and population is None:
        raise ValueError("data without covariances() need features=, along which responses are measured")

    trainer = engine.NetworkTrainer(
        list(net.widths),
        net.predictor.shape[0],
        objective.code,
        objective.stop_gradient if isinstance(objective, JEPA) else True,
        (ema or 0.0) * clock_scale,
        objective.weight_decay,
        optimizer,
        momentum,
        betas,
        adam_eps,
        predictor_rate,
        threads,
        batch_size,
        *(() if batch_size is not None else (population.Sxx, population.Syx, yy)),
    )
    trainer.set_state(start_state(net, objective))
    observer = _Observer(net, objective, population, features, at.size, bool(keep_weights))

    done = 0
    finite = True
    with progress_callback(progress, "training") as callback:
        tell = throttled(callback)
        for k, stop in enumerate([*at, steps]):
            while finite and done < stop:
                tell(done / steps)
                count, x, y, rows = source(min(stop - done, _steps_per_call(trainer.work)))
                taken = trainer.advance(rates(done, done + count), x, y, rows)
                finite = taken == count
                done += taken
            if not finite:
                break
            if k < at.size:
                observer.observe(k, trainer.state)

    observer.respond()
    for array in (observer.response, observer.loss, observer.weights):
        if array is not None:
            array.flags.writeable = False  # no copy: they may be all the memory there is
    return Training(
        iteration=read_only(at),
        t=read_only(times),
        response=observer.response,
        loss=observer.loss,
        features=observer.features,
        objective=objective,
        start=net,
        optimizer=optimizer,
        lr=lr,
        batch_size=batch_size,
        status=engine.Status.OK if finite else engine.Status.NOT_FINITE,
        message=f"took all {steps} steps"
        if finite
        else f"the weights are not finite after iteration {done + 1}; a smaller lr may help",
        steps=done,
        schedule=clock,
        predictor_rate=predictor_rate,
        final=unpack(trainer.state[: observer.size], net) if finite else None,
        weights=observer.weights,
    )


class _Rates:
    """The learning rate of each step, some steps at a time: memory does not grow with their number."""

    def __init__(self, lr: float, clock: Schedule | None) -> None:
        self.lr, self.clock = lr, clock

    def __call__(self, first: int, last: int) -> FloatArray:
        rates = np.full(last - first, self.lr)
        if self.clock is not None:
            rates *= self.clock(np.arange(first, last, dtype=np.float64))
        return rates

    @np.errstate(over="ignore")  # beyond the largest double the time is inf
    def elapsed(self, at: Rows, steps: int, clock_scale: float) -> tuple[FloatArray, float]:
        """Return the flow times of these iterations, which increase, and that of the longest step."""
        if self.clock is None:
            times = at.astype(np.float64) * self.lr / clock_scale
            return times, float(np.float64(self.lr if steps else 0.0) / clock_scale)
        sums, total, largest = np.zeros(at.size), 0.0, 0.0
        for first in range(0, steps, _RATES):
            rates = self(first, min(first + _RATES, steps))
            reached = np.cumsum(np.concatenate([[total], rates]))
            here = slice(*np.searchsorted(at, [first, first + reached.size]))
            sums[here] = reached[at[here] - first]
            total, largest = float(reached[-1]), max(largest, float(rates.max()))
        return sums / clock_scale, float(np.float64(largest) / clock_scale)


def _as_decay(name: str, value: Any) -> float:
    number = as_real(name, value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be in [0, 1), got {number}")
    return number


def _as_betas(betas: Any) -> tuple[float, float]:
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
    return _as_decay("betas[0]", betas[0]), _as_decay("betas[1]", betas[1])


def as_snapshots(snapshots: Any, steps: int) -> Rows:
    if np.ndim(snapshots) == 0:
        count = as_index("snapshots", snapshots, minimum=2)
        even = np.linspace(0, steps, count).round().astype(np.int64)
        return even[np.diff(even, prepend=-1) > 0]
    array = np.asarray(snapshots)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(
            f"snapshots must be a number or an array [m] of whole numbers, got dtype {array.dtype}, shape {array.shape}"
        )
    at = array.astype(np.int64)
    if at.size and (at[0] < 0 or at[-1] > steps or (np.diff(at) <= 0).any()):
        raise ValueError(f"snapshots must increase from iteration to iteration and lie in 0 to steps = {steps}")
    return at


def _steps_per_call(work: float) -> int:
    return max(1, min(_CALL_STEPS, int(_CALL_WORK / work)))


def throttled(callback: Callable[[float], object] | None) -> Callable[[float], None]:
    """Return a function that passes its argument on to the callback at most ten times a second."""
    last = -1.0

    def tell(done: float) -> None:
        nonlocal last
        now = time.monotonic()
        if callback is not None and now - last > 0.1:
            last = now
            callback(done)

    return tell


# --- observation ------------------------------------------------------------------------------------


# Numbers that encoders kept until their responses are measured may take, 32 MiB, and what an array takes beside its own.
_KEPT = 2**22
_ARRAY = 32


class _Observer:
    """Rows of a `Training`, NaN until observed.

    Responses are measured at the end, if there are not too many: NumPy's linear algebra, which finds the features, leaves
    threads behind that spin for a while, and would take a CPU from the training. For the same reason the engine measures
    them, or the next training would suffer.
    """

    def __init__(
        self,
        net: LinearNetwork,
        objective: Objective,
        population: Any,
        features: Spectrum | None,
        count: int,
        keep_weights: bool,
    ) -> None:
        self.net, self.population, self._features = net, population, features
        if features is not None:
            self._directions(features)  # or raise now
        self.size = sum(block.size for block in (*net.encoder, net.predictor))
        self.encoders: dict[int, FloatArray] = {}  # by row
        self.count = count
        self.weights = np.full((count, self.size), np.nan) if keep_weights else None
        self.flow = None
        self.loss = None
        if population is not None and population.Syy is not None:
            self.flow = network_flow(net, objective, population.Sxx, population.Syx, population.Syy)
            self.loss = np.full(count, np.nan)

    def observe(self, k: int, state: FloatArray) -> None:
        if self.flow is not None and self.loss is not None:
            self.loss[k] = self.flow.loss(state)
        if self.weights is not None:
            self.weights[k] = state[: self.size]
        self.encoders[k] = engine.encoder_product(list(self.net.widths), state)
        if len(self.encoders) * (self.encoders[k].size + _ARRAY) > _KEPT:
            self.respond()

    def respond(self) -> None:
        directions = self._directions(self.features)
        for k, encoder in self.encoders.items():
            self.response[:, k] = engine.encoder_response(encoder, directions)
        self.encoders.clear()

    @cached_property
    def features(self) -> Spectrum:
        if self._features is not None:
            return self._features
        return Covariances(self.population.Sxx, self.population.Syx, self.population.Syy).spectrum()

    @cached_property
    def response(self) -> FloatArray:
        return np.full((self._directions(self.features).shape[1], self.count), np.nan)

    def _directions(self, features: Spectrum) -> FloatArray:
        return as_directions(duals_of(features), self.net.widths[0])
