"""The compiled engine. Written by tools/make_stub.py."""

import enum
import typing

import numpy
import numpy.typing

class FlowRun:
    def __init__(
        self,
        network: NetworkFlow,
        state: numpy.typing.NDArray[numpy.float64],
        times: numpy.typing.NDArray[numpy.float64],
        directions: numpy.typing.NDArray[numpy.float64],
        method: str,
        rtol: float,
        atol: float,
        max_steps: int,
        keep_weights: bool,
        visit: object,
        levels: numpy.typing.NDArray[numpy.float64] | None,
        stop_when_crossed: bool,
        rest: float,
        plateau: float,
    ) -> None: ...

class NetworkFlow:
    def __init__(
        self,
        widths: list[int],
        outputs: int,
        objective: int,
        stop_gradient: bool,
        ema_time: float,
        weight_decay: float,
        predictor_rate: float,
        sxx: numpy.typing.NDArray[numpy.float64] | None,
        syx: numpy.typing.NDArray[numpy.float64] | None,
        syy: numpy.typing.NDArray[numpy.float64] | None = None,
        coupling: numpy.typing.NDArray[numpy.float64] | None = None,
        rho: numpy.typing.NDArray[numpy.float64] | None = None,
    ) -> None: ...
    def loss(self, state: numpy.typing.NDArray[numpy.float64]) -> float: ...
    def velocity(
        self, state: numpy.typing.NDArray[numpy.float64], repeats: int = 1
    ) -> numpy.typing.NDArray[numpy.float64]: ...

class NetworkTrainer:
    def __init__(
        self,
        widths: list[int],
        outputs: int,
        objective: int,
        stop_gradient: bool,
        ema_time: float,
        weight_decay: float,
        optimizer: str,
        momentum: float,
        betas: tuple[float, float],
        adam_eps: float,
        predictor_rate: float,
        threads: int,
        batch_size: int | None = None,
        sxx: numpy.typing.NDArray[numpy.float64] | None = None,
        syx: numpy.typing.NDArray[numpy.float64] | None = None,
        syy: numpy.typing.NDArray[numpy.float64] | None = None,
    ) -> None: ...
    def advance(
        self,
        rates: numpy.typing.NDArray[numpy.float64],
        x: numpy.typing.NDArray[numpy.float64] | None = None,
        y: numpy.typing.NDArray[numpy.float64] | None = None,
        rows: numpy.typing.NDArray[numpy.int64] | None = None,
    ) -> int: ...
    def set_state(self, state: numpy.typing.NDArray[numpy.float64]) -> None: ...
    @property
    def state(self) -> numpy.typing.NDArray[numpy.float64]: ...
    @property
    def work(self) -> float: ...

class ObservedFlow:
    def __init__(self, made_by_the_engine_alone: typing.Never) -> None: ...
    @property
    def crossings(self) -> numpy.typing.NDArray[numpy.float64] | None: ...
    @property
    def final_weights(self) -> numpy.typing.NDArray[numpy.float64]: ...
    @property
    def loss(self) -> numpy.typing.NDArray[numpy.float64] | None: ...
    @property
    def nfev(self) -> int: ...
    @property
    def plateaus(self) -> list[typing.Annotated[list[float], "FixedSize(2)"]]: ...
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
    def time(self) -> float: ...
    @property
    def weights(self) -> numpy.typing.NDArray[numpy.float64] | None: ...

class Status(enum.IntEnum):
    OK = 0
    MAX_STEPS = 1
    STEP_TOO_SMALL = 2
    NOT_FINITE = 3
    STOPPED = 4

def critical_time(
    lam: numpy.typing.NDArray[numpy.float64],
    sigma2: numpy.typing.NDArray[numpy.float64],
    eps: numpy.typing.NDArray[numpy.float64],
    depth: float,
    objective: int,
    fraction: float,
    threads: int,
) -> numpy.typing.NDArray[numpy.float64]: ...
def encoder_product(
    widths: list[int], state: numpy.typing.NDArray[numpy.float64]
) -> numpy.typing.NDArray[numpy.float64]: ...
def encoder_response(
    encoder: numpy.typing.NDArray[numpy.float64], directions: numpy.typing.NDArray[numpy.float64]
) -> numpy.typing.NDArray[numpy.float64]: ...
def fixed_point(
    lam: numpy.typing.NDArray[numpy.float64], sigma2: numpy.typing.NDArray[numpy.float64], depth: float, objective: int
) -> numpy.typing.NDArray[numpy.float64]: ...
def output_array(rows: int, columns: int, single: bool) -> numpy.ndarray: ...
def product(
    a: numpy.typing.NDArray[numpy.float64], b: numpy.typing.NDArray[numpy.float64], repeats: int = 1
) -> numpy.typing.NDArray[numpy.float64]: ...
def run_flows(runs: list[FlowRun], threads: int, progress: object = None) -> list[ObservedFlow]: ...
def sample_moments(
    x: numpy.typing.NDArray[numpy.float64], y: numpy.typing.NDArray[numpy.float64], threads: int
) -> tuple[typing.Any, ...]: ...
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
