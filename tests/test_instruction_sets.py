"""The instruction sets against one another, each forced in a process of its own (RELIABILITY.md 15)."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import jepa_ode as jo
import reference
from conftest import case_count
from ensembles import random_ensemble
from record import Records

INFO = jo.build_info()
ISAS = [isa for isa in INFO["isas_compiled"] if isa in INFO["isas_supported"]]
EPS_M, RTOL = np.finfo(float).eps, 1e-8

# What an answer is defined to: rounding, but for methods that choose steps by an estimate of their error the tolerance.
MARKS = {"exact": (EPS_M, "eps_m", 4), "tsit5": (RTOL, "rtol", 1), "dop853": (RTOL, "rtol", 1)}

# Writes the responses of the pickled ensembles, by method.
SOLVE = """
import pickle, sys
import jepa_ode as jo
isa, methods, rtol, cases, results = sys.argv[1:]
info = jo.build_info()
assert info["isa"] == isa and info["forced"], info
with open(cases, "rb") as file:
    ensembles = pickle.load(file)
answers = {method: [jo.solve(**e, method=method, rtol=float(rtol)).w for e in ensembles] for method in methods.split()}
with open(results, "wb") as file:
    pickle.dump(answers, file)
"""

Responses = dict[str, list[npt.NDArray[np.float64]]]


@pytest.fixture(scope="module")
def ensembles() -> list[dict[str, Any]]:
    rng = np.random.default_rng(15)
    return [random_ensemble(rng, 10) for _ in range(case_count(ci=30, campaign=2000))]


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory, ensembles: list[dict[str, Any]]) -> dict[str, Responses]:
    """The responses of every instruction set that was compiled and that this machine runs."""
    folder = tmp_path_factory.mktemp("instruction_sets")
    cases = folder / "cases"
    cases.write_bytes(pickle.dumps(ensembles))
    answers = {}
    for isa in ISAS:
        subprocess.run(
            [sys.executable, "-W", "error", "-c", SOLVE, isa, " ".join(MARKS), str(RTOL), cases, folder / isa],
            env={**os.environ, "JEPA_ODE_ISA": isa},
            check=True,
            timeout=3600,
        )
        answers[isa] = pickle.loads((folder / isa).read_bytes())
    return answers


@pytest.mark.skipif(len(ISAS) < 2, reason="one instruction set only was compiled, or runs on this machine")
@pytest.mark.parametrize("method", MARKS)
def test_instruction_sets_agree(
    record: Records, ensembles: list[dict[str, Any]], responses: dict[str, Responses], method: str
) -> None:
    unit, name, mark = MARKS[method]
    for one, other in itertools.combinations(ISAS, 2):
        for case, w, w_ref in zip(ensembles, responses[one][method], responses[other][method], strict=True):
            spec, depth, objective = case["spec"], case["depth"], case["objective"]
            np.testing.assert_array_equal(np.isnan(w), np.isnan(w_ref))
            lam, sigma2 = spec.lam[:, None], spec.sigma2[:, None]
            error = reference.layer_error(w, w_ref, case["t"], lam, sigma2, depth, objective)
            held = (w_ref > 1e-290) & np.isfinite(w_ref)  # a response of all digits
            record(15, f"E / {name} of {one} and {other}, {method}", error[held] / unit, at_most=mark)
