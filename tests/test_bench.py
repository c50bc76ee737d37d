"""``jepa-ode bench`` and the tools of bench/: what they measure is right and complete. How fast it is, is not asked here."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import jepa_ode as jo
import reference_flow
from jepa_ode import bench
from jepa_ode._core import engine
from jepa_ode.bench import Measurement, Settings
from jepa_ode.cli import main
from jepa_ode.flow_problem import network_flow, start_state
from jepa_ode.objectives import as_objective

TINY = Settings(features=300, integrated=40, rounds=1)
FOLDER = Path(__file__).resolve().parent.parent / "bench"


def figure(solver: str, seconds: float, isa: str = "avx2", threads: int = 1) -> Measurement:
    return Measurement(isa, solver, threads, 100, seconds, 3, 1e-7)


class TestMeasurement:
    def test_rates(self) -> None:
        f = figure("exact", 1e-3)
        assert f.points_per_second == pytest.approx(100 * 200 / 1e-3)
        assert f.nanoseconds_per_point == pytest.approx(1e6 / 20_000)
        assert f.features_per_second == pytest.approx(1e5)

    def test_every_solver_and_number_of_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bench, "available_cpus", lambda: 3)
        found = bench.measure(TINY, with_scipy=True)
        expected = [("np.full", 1), ("exact", 1), ("exact", 3), ("dop853", 1), ("dop853", 3)]
        if bench.has_scipy():
            expected.append(("scipy", 1))
        assert [(f.solver, f.threads) for f in found] == expected
        assert {f.isa for f in found} == {jo.build_info()["isa"]}
        assert all(f.seconds > 0 and f.rounds == 1 and f.error <= 1e-6 for f in found)

    def test_one_cpu_is_measured_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bench, "available_cpus", lambda: 1)
        assert [f.solver for f in bench.measure(TINY)] == ["np.full", "exact", "dop853"]

    def test_wrong_answers_are_not_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = bench._Work.solve

        def wrong(self: bench._Work, method: str, *, threads: int, rtol: float = 1e-8) -> bench.FloatArray:
            w = right(self, method, threads=threads, rtol=rtol)
            return w * 1.001 if method == "exact" else w

        monkeypatch.setattr(bench._Work, "solve", wrong)
        with pytest.raises(RuntimeError, match=r"exact and integrated solutions differ by 1\.0e-03$"):
            bench.measure(TINY)

    def test_settings_are_checked(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            Settings(features=0)

    def test_the_loosest_tolerance_is_taken(self) -> None:
        reference = np.ones((2, 3))
        rtol, error = bench._loosest(lambda rtol: reference * (1 + 20 * rtol), reference)
        assert rtol == pytest.approx(10**-7.5)
        assert error == pytest.approx(20 * 10**-7.5)
        assert math.isnan(bench._loosest(lambda _: np.full((2, 3), np.nan), reference)[1])


class TestProcesses:
    def test_each_instruction_set_has_its_own(self) -> None:
        stages: list[tuple[str, float]] = []
        found = bench.bench(TINY, progress=lambda stage, share: stages.append((stage, share)))
        isas = bench.installed_isas()
        assert list(dict.fromkeys(f.isa for f in found)) == isas
        assert stages == [(isa, share) for isa in isas for share in (0.0, 1.0)]

    def test_failure_is_told(self) -> None:
        with pytest.raises(RuntimeError, match="measurement of sse9 failed: ImportError: JEPA_ODE_ISA must be one of"):
            bench._in_own_process("sse9", TINY, with_scipy=False)

    def test_a_forced_one_is_the_only_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        info = {**jo.build_info(), "isas_compiled": ("baseline", "avx2"), "isas_supported": ("baseline", "avx2")}
        monkeypatch.setattr(bench, "build_info", lambda: {**info, "forced": False, "isa": "avx2"})
        assert bench.installed_isas() == ["baseline", "avx2"]
        monkeypatch.setattr(bench, "build_info", lambda: {**info, "forced": True, "isa": "baseline"})
        assert bench.installed_isas() == ["baseline"]


def test_table_holds_the_ratios() -> None:
    found = [figure("np.full", 1e-3), figure("exact", 3e-3), figure("dop853", 1e-2), figure("scipy", 5e-2)]
    lines = bench.table(found).splitlines()
    assert len(lines) == 5
    assert lines[2].endswith("3.0 times the cost of writing, 16.7 x SciPy")
    assert lines[3].endswith("5 x SciPy")
    assert "SciPy" not in bench.table(found[:-1])


class TestCommand:
    def test_table_and_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "bench.json"
        assert main(["bench", "--quick", "--features", "200", "--json", str(path)]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"jepa-ode {jo.__version__}, ")
        assert err.splitlines() == [f"{isa} ..." for isa in bench.installed_isas()]
        content = json.loads(path.read_text())
        assert content["build"]["version"] == jo.__version__
        solvers = {record["solver"] for record in content["records"]}
        assert solvers == {"np.full", "exact", "dop853"} | ({"scipy"} if bench.has_scipy() else set())
        exact = next(record for record in content["records"] if record["solver"] == "exact")
        assert exact["features"] == 200
        assert exact["points_per_second"] == pytest.approx(1e9 / exact["nanoseconds_per_point"])

    def test_without_scipy_it_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("jepa_ode.cli.bench.has_scipy", lambda: False)
        monkeypatch.setattr("jepa_ode.cli.bench.bench", lambda *_, **__: [figure("np.full", 1.0), figure("exact", 2.0)])
        assert main(["bench"]) == 0
        assert capsys.readouterr().out.endswith('SciPy not installed: pip install "jepa-ode[bench]" compares with it\n')

    def test_a_folder_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--json", str(tmp_path / "none" / "x.json")]) == 1
        assert capsys.readouterr().err == f"jepa-ode: error: {tmp_path / 'none'} is no folder\n"


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    """The modules that the files of bench/ share."""
    names = (
        *("workload", "measure", "peers", "flow_workload", "flow_peers"),
        *("bench_peers", "bench_flow", "bench_right_hand_side"),
    )
    loaded = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    yield loaded
    for name in names:
        del sys.modules[name]


class TestTools:
    def test_workload_ends_when_the_slowest_has_arrived(self, tools: dict[str, ModuleType]) -> None:
        for case in tools["workload"].W1:
            work = tools["workload"].workload(case, 50)
            exact = tools["workload"].checked_exact(work)
            assert exact.shape == (50, 200)
            assert np.isfinite(exact).all()
            limit = jo.fixed_point(work.spec, case.objective, depth=case.depth)
            grown = limit > case.eps
            assert (exact[grown, -1] > 0.9 * limit[grown]).all()

    @pytest.mark.parametrize(("slope", "factor"), [(1.0, 3e3), (0.8, 10.0), (1.3, 1e5), (1.0, 1e-2)])
    def test_tuned_finds_the_loosest(self, tools: dict[str, ModuleType], slope: float, factor: float) -> None:
        exact = np.ones((3, 4))

        def run(rtol: float) -> bench.FloatArray:
            return exact * (1 + factor * rtol**slope)

        rtol, error = tools["workload"].tuned(run, exact, 1e-6)
        assert error <= 1e-6 < factor * (rtol * 10**0.25) ** slope

    def test_tuned_stays_within_what_it_may_try(self, tools: dict[str, ModuleType]) -> None:
        exact = np.ones((3, 4))
        assert tools["workload"].tuned(lambda _: exact, exact, 1e-6, largest=1e-4)[0] == 1e-4
        rtol, error = tools["workload"].tuned(
            lambda rtol: exact + 7 * rtol, exact, 1.0, largest=0.1, error=lambda w, e: float(np.max(w - e))
        )
        assert (rtol, error) == (0.1, pytest.approx(0.7))

    def test_tuned_gives_up(self, tools: dict[str, ModuleType]) -> None:
        exact = np.ones((3, 4))
        rtol, best = tools["workload"].tuned(lambda _: exact * 1.01, exact, 1e-6)
        assert math.isnan(rtol)
        assert best == pytest.approx(0.01)

    def test_errors_of_missing_values_are_infinite(self, tools: dict[str, ModuleType]) -> None:
        assert tools["workload"].error([np.nan, 1.0], np.ones(2)) == math.inf

    def test_turns(self, tools: dict[str, ModuleType]) -> None:
        calls: list[str] = []
        times = tools["measure"].in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)
        assert calls == list("abababab")  # the first two warm up
        assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}

    def test_turns_after_a_trial(self, tools: dict[str, ModuleType]) -> None:
        calls: list[str] = []
        runs = {name: lambda name=name: calls.append(name) for name in "ab"}
        tools["measure"].in_turns(runs, rounds=3, budget=10.0, fewest=1, warm={"a": 20.0, "b": 5.0})
        assert calls == list("abb")

    def test_markdown(self, tools: dict[str, ModuleType]) -> None:
        table = tools["measure"].markdown(["solver", "ms"], [["exact", 1.23456], ["none", float("nan")]])
        assert table.splitlines() == [
            "| solver | ms   |",
            "|--------|------|",
            "| exact  | 1.23 |",
            "| none   | -    |",
        ]


class TestPeers:
    def test_answers_are_measured_and_the_missing_named(
        self, tools: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("scipy")

        def absent(_: object) -> Iterator[object]:
            raise ImportError("No module named 'absent'")

        monkeypatch.setitem(tools["peers"].PACKAGES, "absent", absent)
        work = tools["workload"].workload(tools["workload"].W1[3], 20)
        records = tools["bench_peers"].compare(work, ("scipy", "absent"), 1, 0.01)
        capsys.readouterr()
        by_key = {(r["solver"], r["target"]): r for r in records}
        for name in ("jepa_ode exact", "jepa_ode dop853", "SciPy DOP853, one system", "SciPy LSODA, one system"):
            for target in tools["workload"].TARGETS:
                record = by_key[name, target]
                assert record["error"] <= target
                assert record["milliseconds"] > 0
        assert by_key["jepa_ode exact", 1e-6]["peer / exact"] == 1
        table = tools["bench_peers"].tables(records)
        assert "absent: missing: No module named 'absent'" in table
        assert "fastest peer / exact" in table
        assert "| absent, best" in tools["bench_peers"].summary(records)

    @pytest.mark.parametrize("k", range(7))
    def test_right_hand_sides_are_those_of_the_theory(self, tools: dict[str, ModuleType], k: int) -> None:
        case = tools["workload"].W1[k]
        work = tools["workload"].workload(case, 5)
        lam, sigma2, w = work.spec.lam, work.spec.sigma2, np.linspace(0.1, 0.9, 5)
        u, depth = w ** (1 / case.depth), case.depth
        power = 2 * depth if case.objective == "jepa" else depth
        q = 1 if case.objective == "jepa" else depth + 1
        expected = u**power * (lam - sigma2 * u**q)  # THEORY.md 2
        np.testing.assert_allclose(tools["peers"].velocity(work)(u, lam, sigma2), expected, rtol=1e-13, atol=1e-15)


class TestFlow:
    """bench_flow.py on a network of 4 features."""

    @pytest.fixture
    def options(self, tools: dict[str, ModuleType]) -> argparse.Namespace:
        pytest.importorskip("scipy")
        return tools["bench_flow"].parse(["--rounds", "1", "--fewest", "1", "--peers", "scipy"])

    @pytest.mark.parametrize("objective", ["jepa", "mae"])
    @pytest.mark.parametrize("long", [False, True])
    def test_answers_are_measured(
        self, tools: dict[str, ModuleType], options: argparse.Namespace, objective: str, long: bool
    ) -> None:
        case = tools["flow_workload"].Case(objective, 4, 3, 200.0, long)
        records, remarks = tools["bench_flow"].compare(case, options, {})
        by_solver = {r["solver"]: r for r in records}
        assert list(by_solver) == ["jepa_ode auto", "jepa_ode auto, matched", "SciPy RK45", "SciPy DOP853"]
        for record in records:
            assert record["case"] == f"{objective} d=4 L=3 T={2000 if long else 200}"
            assert record["error"] < 1e-4
            assert record["right-hand sides"] > 0
            assert record["us per right-hand side"] == pytest.approx(
                1e6 * record["seconds"] / record["right-hand sides"]
            )
        theirs, matched = [by_solver[f"SciPy {m}"] for m in ("RK45", "DOP853")], by_solver["jepa_ode auto, matched"]
        assert matched["error"] <= max(record["error"] for record in theirs)
        best = min(record["seconds"] for record in theirs)
        assert float(matched["best peer / this"]) == pytest.approx(best / matched["seconds"], rel=6e-3)
        assert not remarks

    def test_reference_is_right(self, tools: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("scipy")
        monkeypatch.setattr(tools["flow_peers"], "RTOL", 1e-12)
        monkeypatch.setattr(tools["flow_peers"], "ATOL", 1e-14)
        case = tools["flow_workload"].Case("jepa", 4, 3, 200.0, long=True)
        net = tools["flow_workload"].network(case)
        accurate = list(tools["flow_peers"].scipy_peers(net))[1]
        reference = tools["bench_flow"].references(net, case)
        assert [of.t[-1] for of in reference] == [200, 2000]
        for of, response in reference.items():
            np.testing.assert_allclose(accurate.run(of.t).response, response, rtol=0, atol=1e-9)

    def test_wrong_answers_are_not_timed(
        self, tools: dict[str, ModuleType], options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = tools["bench_flow"].references

        def wrong(*arguments: object) -> dict[object, bench.FloatArray]:
            return {case: response + 1e-3 for case, response in right(*arguments).items()}

        monkeypatch.setattr(tools["bench_flow"], "references", wrong)
        with pytest.raises(AssertionError, match=r"most accurate peer differ by 1\.0e-03$"):
            tools["bench_flow"].compare(tools["flow_workload"].Case("jepa", 4, 2, 200.0), options, {})

    def test_missing_and_slow_peers_are_told(
        self, tools: dict[str, ModuleType], options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def absent(_: object) -> Iterator[object]:
            raise ImportError("No module named 'absent'")

        monkeypatch.setitem(tools["flow_peers"].PACKAGES, "absent", absent)
        options.peers, options.limit = ["scipy", "absent"], 1e-9
        case = tools["flow_workload"].Case("jepa", 4, 2, 200.0, long=True)
        records, remarks = tools["bench_flow"].compare(case, options, {})
        assert [r["solver"] for r in records if r["seconds"] == "> 1e-09"] == ["SciPy RK45", "SciPy DOP853"]
        assert all(r["best peer / this"].startswith("> ") for r in records[:2])
        table = tools["bench_flow"].table(records, remarks)
        assert "absent: missing: No module named 'absent'" in table
        assert f"SciPy RK45, {case}: not run, its short horizon foretells more than" in table

    def test_accurate_peers_set_the_error_to_match(self, tools: dict[str, ModuleType]) -> None:
        trial = tools["bench_flow"].Trial
        trials = [trial(1.0, 10, 1e-5), trial(1.1, 10, 2e-6), trial(2.0, 10, 1e-9)]
        assert tools["bench_flow"].error_to_match(trials) == 2e-6

    @pytest.mark.parametrize("objective", ["jepa", "mae"])
    def test_right_hand_sides_are_those_of_the_theory(self, tools: dict[str, ModuleType], objective: str) -> None:
        net = tools["flow_workload"].network(tools["flow_workload"].Case(objective, 4, 3, 1.0))
        rng = np.random.default_rng(1)
        weights = [rng.standard_normal((4, 4)) for _ in range(4)]
        moved = tools["flow_peers"].velocity(weights, net.cov.Sxx, net.cov.Syx, objective)
        W, V, _ = reference_flow.velocity(weights[:-1], weights[-1], net.cov, as_objective(objective))
        np.testing.assert_allclose(moved, [*W, V], rtol=1e-12, atol=1e-12)

    def test_peers_agree(self, tools: dict[str, ModuleType]) -> None:
        case = tools["flow_workload"].Case("jepa", 4, 2, 200.0)
        net = tools["flow_workload"].network(case)
        found, _ = tools["peers"].gather(net, tools["flow_peers"].PACKAGES)
        reference = tools["bench_flow"].references(net, case)[case]
        for peer in found:
            np.testing.assert_allclose(peer.run(case.t).response, reference, rtol=0, atol=1e-4)

    def test_covariances_are_those_of_w2(self, tools: dict[str, ModuleType]) -> None:
        cov = tools["flow_workload"].covariances(16)
        assert np.linalg.eigvalsh(cov.Sxx)[0] > 0.1
        np.testing.assert_array_equal(cov.Syx, cov.Syx.T)
        rho = np.linalg.eigvals(np.linalg.solve(cov.Sxx, cov.Syx))
        assert ((rho.real > 0.2) & (rho.real < 0.95)).all()


class TestRightHandSide:
    """bench_right_hand_side.py on matrices of 4 x 4."""

    def test_ratios(self, tools: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(*_: object) -> None:
            raise ImportError("No module named 'absent'")

        tool = tools["bench_right_hand_side"]
        monkeypatch.setitem(tool.LIBRARIES, "absent", absent)
        records, missing = tool.compare(4, tool.parse(["--rounds", "1", "--slice", "1e-4"]))
        assert [(r["objective"], r["L"], r["products"]) for r in records] == [
            *(("jepa", 1, 5), ("jepa", 2, 8), ("jepa", 4, 14)),
            *(("mae", 1, 4), ("mae", 2, 7), ("mae", 4, 13)),
        ]
        rates = [value for name, value in records[0].items() if name.endswith("GFLOP/s")]
        assert len(rates) >= 2
        for record in records:
            assert record["us for its products"] == pytest.approx(record["products"] * 2e-3 * 4**3 / max(rates))
            assert record["ratio"] == pytest.approx(record["us per right-hand side"] / record["us for its products"])
        assert missing["absent"] == "No module named 'absent'"
        assert "absent: missing: No module named 'absent'" in tool.table(records, missing)

    def test_what_is_repeated_is_right(self, tools: dict[str, ModuleType]) -> None:
        a, b = np.random.default_rng(0).standard_normal((2, 5, 5))
        np.testing.assert_allclose(engine.product(a, b, 3), a @ b, rtol=1e-13, atol=1e-13)
        net = tools["flow_workload"].network(tools["flow_workload"].Case("jepa", 5, 2, 1.0))
        flow = network_flow(net.start, as_objective("jepa"), net.cov.Sxx, net.cov.Syx, None)
        state = start_state(net.start, as_objective("jepa"))
        np.testing.assert_array_equal(flow.velocity(state, 3), flow.velocity(state))

    def test_runs_as_a_program_with_one_thread(self, tmp_path: Path) -> None:
        program = [sys.executable, str(FOLDER / "bench_right_hand_side.py"), "--sizes", "4", "--rounds", "1"]
        subprocess.run([*program, "--slice", "1e-4", "--output", str(tmp_path)], check=True, capture_output=True)
        assert len(json.loads((tmp_path / "right_hand_side.json").read_text())["records"]) == 6
