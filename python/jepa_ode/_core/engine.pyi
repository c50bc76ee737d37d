"""The compiled engine. Written by tools/make_stub.py."""

import enum
import typing

import numpy
import numpy.typing

class NetworkFlow:
    def __init__(
        self,
        widths: list[int],
        outputs: int,
        objective: int,
        stop_gradient: bool,
        ema_time: float,
        weight_decay: float,
        sxx: numpy.typing.NDArray[numpy.float64],
        syx: numpy.typing.NDArray[numpy.float64],
        syy: numpy.typing.NDArray[numpy.float64] | None = None,
    ) -> None: ...
    def integrate(
        self,
        state: numpy.typing.NDArray[numpy.float64],
        times: numpy.typing.NDArray[numpy.float64],
        directions: numpy.typing.NDArray[numpy.float64],
        method: str,
        rtol: float,
        atol: float,
        max_steps: int,
        keep_weights: bool,
        progress: object = None,
    ) -> ObservedFlow: ...
    def loss(self, state: numpy.typing.NDArray[numpy.float64]) -> float: ...
    def velocity(
        self, state: numpy.typing.NDArray[numpy.float64], repeats: int = 1
    ) -> numpy.typing.NDArray[numpy.float64]: ...

class ObservedFlow:
    def __init__(self, made_by_the_engine_alone: typing.Never) -> None: ...
    @property
    def loss(self) -> numpy.typing.NDArray[numpy.float64] | None: ...
    @property
    def nfev(self) -> int: ...
    @property
    def reached(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def response(self) -> numpy.typing.NDArray[numpy.float64]: ...
    @property
    def stabilised_steps(self) -> int: ...
    @property
    def status(self) -> Status: ...
    @property
    def steps(self) -> int: ...
    @property
    def weights(self) -> numpy.typing.NDArray[numpy.float64] | None: ...

class Status(enum.IntEnum):
    OK = 0
    MAX_STEPS = 1
    STEP_TOO_SMALL = 2
    NOT_FINITE = 3

def critical_time(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    eps: numpy.typing.NDArray[numpy.float64],
    depth: float,
    objective: int,
    fraction: float,
    threads: int,
) -> numpy.typing.NDArray[numpy.float64]: ...
def fixed_point(
    lam: numpy.typing.NDArray[numpy.float64], sigma2: numpy.typing.NDArray[numpy.float64], depth: float, objective: int
) -> numpy.typing.NDArray[numpy.float64]: ...
def output_array(rows: int, columns: int, single: bool) -> numpy.ndarray: ...
def product(
    a: numpy.typing.NDArray[numpy.float64], b: numpy.typing.NDArray[numpy.float64], repeats: int = 1
) -> numpy.typing.NDArray[numpy.float64]: ...
def sensitivity(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    eps: numpy.typing.NDArray[numpy.float64],
    depth: float,
    objective: int,
    t: numpy.typing.NDArray[numpy.float64],
    threads: int,
) -> tuple[
    numpy.typing.NDArray[numpy.float64],
    numpy.typing.NDArray[numpy.float64],
    numpy.typing.NDArray[numpy.float64],
    numpy.typing.NDArray[numpy.float64],
]: ...
def solve_exact(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    eps: numpy.typing.NDArray[numpy.float64],
    depth: float,
    objective: int,
    t: numpy.typing.NDArray[numpy.float64],
    threads: int,
    out: numpy.ndarray,
) -> numpy.typing.NDArray[numpy.int8]: ...
def solve_layers(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    sigma2_y: numpy.typing.NDArray[numpy.float64] | None,
    eps: numpy.typing.NDArray[numpy.float64],
    predictor: numpy.typing.NDArray[numpy.float64] | None,
    depth: float,
    target: str,
    decay: float,
    tau: float,
    t: numpy.typing.NDArray[numpy.float64],
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    threads: int,
) -> tuple[
    numpy.typing.NDArray[numpy.float64],
    numpy.typing.NDArray[numpy.float64],
    numpy.typing.NDArray[numpy.float64] | None,
    numpy.typing.NDArray[numpy.int8],
    numpy.typing.NDArray[numpy.int64],
]: ...
def solve_runge_kutta(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    eps: numpy.typing.NDArray[numpy.float64],
    depth: float,
    objective: int,
    t: numpy.typing.NDArray[numpy.float64],
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    threads: int,
) -> tuple[typing.Any, ...]: ...
def status_message(status: Status) -> str: ...
def tableau(method: str) -> dict[str, typing.Any]: ...
def time_to_reach(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    eps: numpy.typing.NDArray[numpy.float64],
    depth: float,
    objective: int,
    w: numpy.typing.NDArray[numpy.float64],
    threads: int,
) -> numpy.typing.NDArray[numpy.float64]: ...
