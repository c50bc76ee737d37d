"""What an encoder that is no linear network learns when: its responses to the features of the data, recorded in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ._extras import require
from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray, as_choice, as_float_array, as_index, as_positive, require_finite
from .batches import Rows
from .flow_problem import duals_of
from .learning import crossing_times, least_level
from .network import as_directions
from .spectrum import Spectrum

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["EncoderResponses", "ResponseRecorder"]

Kind = Literal["regression", "jacobian"]


@dataclass(frozen=True, eq=False, repr=False)
class EncoderResponses(FrozenArrays):
    """Responses of an encoder to features, recorded while it was trained.

    Attributes
    ----------
    step : int array [m]
        When, in whatever unit the recorder was told.
    response : array [n, m]
        Response to each feature (see `ResponseRecorder`).
    kind : {"regression", "jacobian"}
        How it was measured.
    features : Spectrum or None
        The features, where the recorder was given a spectrum.
    """

    step: Rows
    response: FloatArray
    kind: Kind
    features: Spectrum | None = None

    def learning_times(
        self, fraction: float = 0.5, *, threshold: Literal["final", "absolute"] = "final", min_growth: float = 1.0
    ) -> FloatArray:
        """Return from which step on each feature counts as learned (THEORY.md 4).

        Parameters
        ----------
        fraction : float, default 0.5
            Height of the threshold, in units of what `threshold` names.
        threshold : {"final", "absolute"}, default "final"
            What a feature must reach `fraction` of: its last response, or the number one. An encoder of any kind has no
            fixed points that were known beforehand. "final" misorders a training that has not converged.
        min_growth : float, default 1.0
            Factor, at least 1, of the first response that the threshold must exceed: what does not grow is not learned.

        Returns
        -------
        array [n]
            Between the steps recorded the response is taken to be linear in the logarithm of the step. inf for features
            that are not learned, or not for good.
        """
        as_choice("threshold", threshold, ("final", "absolute"))
        fraction = as_positive("fraction", fraction)
        if not self.step.size:
            raise ValueError("nothing has been recorded yet")
        level = np.broadcast_to(
            fraction * self.response[:, -1] if threshold == "final" else fraction, len(self.response)
        )
        times = crossing_times(self.step.astype(np.float64), self.response, level)
        return np.where(level > least_level(self.response[:, 0], min_growth), times, np.inf)

    def learning_order(
        self, fraction: float = 0.5, *, threshold: Literal["final", "absolute"] = "final", min_growth: float = 1.0
    ) -> npt.NDArray[np.intp]:
        """Return the indices of the features that are learned, first to last; the parameters are those of `learning_times`."""
        times = self.learning_times(fraction, threshold=threshold, min_growth=min_growth)
        order = np.argsort(times, kind="stable")
        return order[np.isfinite(times[order])]

    def plot(self, ax: Any = None, *, relative: bool = False) -> Any:
        """Draw the responses as a heat map on ``ax`` and return it: features across, training down.

        Parameters
        ----------
        ax : matplotlib axes, optional
        relative : bool, default False
            Each feature in units of its own largest response, which shows when it rises, however little.
        """
        from .plot import plot_response_map

        return plot_response_map(self.step, self.response, ax, relative=relative)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset``: ``response`` [feature, step] and, where known, the parameters of the features."""
        require("xarray", "to_xarray needs", "xarray")
        import xarray

        names = () if self.features is None else ("lam", "rho", "sigma2")
        return xarray.Dataset(
            {"response": (("feature", "step"), self.response)},
            coords={"step": self.step, **{name: ("feature", getattr(self.features, name)) for name in names}},
            attrs={"kind": self.kind},
        )

    def __repr__(self) -> str:
        n, m = self.response.shape
        return f"EncoderResponses({n} features, {m} steps, kind={self.kind!r})"


class ResponseRecorder:
    """Records which features of the data an encoder of any kind, a ``torch.nn.Module``, responds to.

    The response ``w_i = |Wbar p_i| / |p_i|`` of a linear encoder (THEORY.md 6) needs a matrix ``Wbar``. For an encoder ``f``
    that is not linear, two matrices take its place, and both are ``Wbar`` where ``f(x) = Wbar x + b``:

    - "regression": ``Cov(f(x), x) Sxx^-1``, the best linear approximation of ``f`` on the data, by least squares over the
      probes. It takes one pass forward and needs no derivatives.
    - "jacobian": ``E[df/dx]``, the derivative of ``f`` on average over the probes. It takes one pass backward per output.

    For Gaussian ``x`` the two are equal (Stein's lemma); for other data they differ, and the regression is what the
    gradients of the two losses see first. Neither sees what ``f`` makes of a feature by an even function, such as its
    absolute value: its slopes cancel.

    Parameters
    ----------
    x : array_like or tensor [N, ...]
        Probes: inputs of the encoder, which stay the same throughout. "regression" needs more of them than coordinates,
        rather ten times as many: the error of what is not linear in ``f`` falls with ``sqrt(N)``. "jacobian" does with few.
    features : Spectrum or array_like [d, n], optional
        The features: a spectrum with its dual directions, as of `Covariances.spectrum`, or the directions ``p_i``, as
        columns in the order in which ``x`` is flattened. Default: the d coordinates.
    kind : {"regression", "jacobian"}, default "regression"
    input_shape : sequence of int, optional
        Shape of one input, such as ``(1, 28, 28)``, where ``x`` is flat and the encoder wants images.
    batch_size : int, default 1024
        Probes that the encoder sees at a time.

    Notes
    -----
    The encoder is measured in evaluation mode, on its own device and in its own precision, and each of its modules is put
    back into the mode that it had. Gradients, buffers and the random numbers of the training are left alone.

    Examples
    --------
    In a training loop, ``cov`` being the `Covariances` of the data::

        record = jo.ResponseRecorder(x[:5000], cov.spectrum())
        for step, (x, y) in enumerate(batches):
            if step % 100 == 0:
                record(step, encoder)
            ...
        found = record.responses
        found.learning_order()
        found.plot()
    """

    def __init__(
        self,
        x: Any,
        features: Spectrum | Any = None,
        *,
        kind: Kind = "regression",
        input_shape: Any = None,
        batch_size: int = 1024,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise ImportError('ResponseRecorder needs PyTorch: pip install "jepa-ode[experiments]"') from error
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu().numpy()
        probes = require_finite("x", as_float_array("x", x, ndim=None))
        if probes.ndim < 2 or not probes.size:
            raise ValueError(f"x must hold inputs along its first axis, [N, ...], got shape {probes.shape}")
        flat = probes.reshape(len(probes), -1)
        if input_shape is not None:
            shape = tuple(as_index("input_shape", size, minimum=1) for size in input_shape)
            if np.prod(shape) != flat.shape[1]:
                raise ValueError(f"input_shape {shape} does not hold the {flat.shape[1]} values of an input")
            probes = flat.reshape(len(flat), *shape)
        self.kind: Kind = as_choice("kind", kind, ("regression", "jacobian"))
        self.features = features if isinstance(features, Spectrum) else None
        if features is None:
            directions = np.eye(flat.shape[1])
        else:
            directions = as_directions(features if self.features is None else duals_of(features), flat.shape[1])
        self._batch_size = as_index("batch_size", batch_size, minimum=1)
        self._probes = torch.from_numpy(probes.copy())
        self._directions = directions
        if self.kind == "regression":
            # PyTorch's, as NumPy's linear algebra leaves threads behind that spin and take a CPU from the training.
            self._readout = torch.from_numpy(_regression(flat) @ directions)
        self._steps: list[int] = []
        self._rows: list[FloatArray] = []

    def __call__(self, step: int, encoder: Any) -> FloatArray:
        """Measure the encoder, record its responses as those of this step and return them [n].

        Raises
        ------
        ValueError
            When the encoder does not map N inputs to N outputs, or the steps do not increase.
        FloatingPointError
            When an output is NaN or infinite.
        """
        step = as_index("step", step)
        if self._steps and step <= self._steps[-1]:
            raise ValueError(f"steps must increase, got {step} after {self._steps[-1]}")
        # What is not finite is looked for below.
        with _undisturbed(encoder), np.errstate(invalid="ignore", over="ignore"):
            matrix = self._slopes(encoder) if self.kind == "regression" else self._jacobian(encoder) @ self._directions
        if not np.isfinite(matrix).all():
            raise FloatingPointError(f"the encoder's output or derivative is not finite at step {step}")
        self._steps.append(step)
        self._rows.append(np.linalg.norm(matrix, axis=0))
        return self._rows[-1].copy()

    @property
    def responses(self) -> EncoderResponses:
        """What has been recorded so far."""
        rows = np.stack(self._rows, axis=1) if self._rows else np.empty((self._directions.shape[1], 0))
        return EncoderResponses(
            read_only(np.array(self._steps, dtype=np.int64)), read_only(rows), self.kind, self.features
        )

    def _slopes(self, encoder: Any) -> FloatArray:
        """Return the regression of the outputs on the probes, along the directions, [k, n]."""
        import torch

        with torch.no_grad():
            outputs = torch.cat([self._output(encoder, x) for x in self._batches(encoder)]).cpu()
            slopes = (outputs - outputs.mean(dim=0)).T @ self._readout
        return np.asarray(slopes.numpy())

    def _jacobian(self, encoder: Any) -> FloatArray:
        """Return the average derivative of the outputs, [k, d]."""
        import torch

        total: Any = 0.0
        with torch.inference_mode(False), torch.enable_grad():
            for batch in self._batches(encoder):
                x = batch.clone().requires_grad_(True)
                summed = self._output(encoder, x).sum(dim=0)
                if not summed.requires_grad:
                    raise ValueError(
                        "the encoder's output cannot be differentiated; kind='regression' needs no derivative"
                    )
                rows = []
                for output in summed:
                    (slope,) = torch.autograd.grad(output, x, retain_graph=True, allow_unused=True)
                    slope = torch.zeros_like(x) if slope is None else slope
                    rows.append(slope.double().sum(dim=0).flatten().cpu().numpy())
                total = total + np.stack(rows)
        return np.asarray(total / len(self._probes))

    def _batches(self, encoder: Any) -> Iterator[Any]:
        """Yield the probes in batches, where and in the precision in which the encoder computes."""
        parameters = encoder.parameters() if hasattr(encoder, "parameters") else ()
        like = next((p for p in parameters if p.is_floating_point()), self._probes)
        for batch in self._probes.split(self._batch_size):
            yield batch.to(device=like.device, dtype=like.dtype)

    def _output(self, encoder: Any, x: Any) -> Any:
        """Return the output [N, k] in double precision."""
        import torch

        output = encoder(x)
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"the encoder must return a tensor, got {type(output).__name__}")
        if output.ndim < 1 or len(output) != len(x):
            raise ValueError(f"the encoder must return one output per input, {len(x)}, got shape {tuple(output.shape)}")
        return output.reshape(len(x), -1).double()


def _regression(x: FloatArray) -> FloatArray:
    """Return what turns centred outputs y [N, k] into their least-squares slopes ``y^T R`` on x [N, d]."""
    centred = x - x.mean(axis=0)
    left, scale, right = np.linalg.svd(centred, full_matrices=False)
    rank = int(np.count_nonzero(scale > scale[0] * max(x.shape) * np.finfo(np.float64).eps))
    if rank >= len(x) - 1:
        raise ValueError(
            f"{len(x)} probes leave a regression on {x.shape[1]} coordinates undetermined: give more, "
            "or choose kind='jacobian'"
        )
    return np.asarray((left[:, :rank] / scale[:rank]) @ right[:rank])


@contextmanager
def _undisturbed(encoder: Any) -> Iterator[None]:
    """Put the encoder into evaluation mode; afterwards its modes and PyTorch's random numbers are as they were."""
    import torch

    modules = list(encoder.modules()) if isinstance(encoder, torch.nn.Module) else []
    modes = [module.training for module in modules]
    devices = {p.device for module in modules for p in module.parameters(recurse=False) if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
