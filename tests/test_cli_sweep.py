"""``jepa-ode sweep`` and ``jepa-ode plot``: what they write and say, and with which exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import jepa_ode as jo
from jepa_ode.cli import main, sweep
from jepa_ode.plot import plot_sweep_map
from jepa_ode.sweeps import CellStatus

pytest.importorskip("zarr")
pytest.importorskip("xarray")

TASKS = """
import os, time
from jepa_ode.sweeps import Trouble

def value(*, depth, eps, seed=0):
    if depth == 2 and eps > 0.05 and not os.path.exists("mended"):
        raise ValueError(f"eps {eps} is\\ntoo large")
    return Trouble({"v": depth + seed}, "hard") if depth == 3 and eps < 0.005 else {"v": depth + seed}

def bad(*, depth):
    raise RuntimeError(f"depth {depth}")

def dies(*, depth):
    os._exit(1)

def slow(*, depth):
    if depth > 1:
        time.sleep(60)
    return 1.0
"""
FAILED = "jepa-ode: warning: 1 failed: ValueError: eps 0.1 is too large"
TROUBLE = "jepa-ode: warning: 1 in numerical trouble: hard"
LEFT = "v has more dimensions than a figure, left over:"
CONFIG = """
title = "Three depths"
task = "cli_sweep_tasks:value"
[grid]
depth = [1, 2, 3]
eps = { geomspace = [1e-3, 1e-1, 3] }
[figure]
variable = "v"
x = "eps"
y = "depth"
labels = { depth = "layers" }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that has tasks and a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "cli_sweep_tasks.py").write_text(TASKS)
    (tmp_path / "three.toml").write_text(CONFIG)
    yield tmp_path
    sys.modules.pop("cli_sweep_tasks", None)


def run(*arguments: str | Path) -> int:
    """Return the exit code of the command line, argparse's included."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def write(task: str, grid: str = "depth = [1, 2, 3]", more: str = "") -> str:
    """Write another file, other.toml."""
    Path("other.toml").write_text(f'task = "{task}"\n{more}\n[grid]\n{grid}\n')
    return "other.toml"


class TestSweep:
    def test_what_it_says_and_keeps(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("sweep", "three.toml", "--figure", "figure.svg") == 3
        out, err = capsys.readouterr()
        assert out.splitlines() == [
            "9 cells: 7 ok, 1 in numerical trouble, 1 failed",
            "Store: three.zarr",
            "To draw it: jepa-ode plot three.zarr",
            "Figure: figure.svg",
        ]
        assert err.splitlines() == [
            "sweep ...",
            FAILED,
            TROUBLE,
        ]
        data = jo.open_sweep("three.zarr")
        assert data.v.sel(depth=3).values.tolist() == [3.0, 3.0, 3.0]
        assert data.attrs["title"] == "Three depths"
        assert json.loads(data.attrs["figure"])["labels"] == {"depth": "layers"}
        figure = Path("figure.svg").read_text()
        for text in ("Three depths", "layers", "failed (1 cell)"):
            assert f"<!-- {text} -->" in figure

    def test_going_on_trying_again_and_another_figure(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("sweep", "three.toml", "-q", "--store", "a store.zarr", "--chunk", "1") == 3
        assert capsys.readouterr() == (
            "",
            f"{FAILED}\n{TROUBLE}\n",
        )
        Path("mended").touch()
        Path("three.toml").write_text(CONFIG.replace('"layers"', '"depth"'))
        assert run("sweep", "three.toml", "--store", "a store.zarr") == 3  # failures are results too
        assert json.loads(jo.open_sweep("a store.zarr").attrs["figure"])["labels"] == {"depth": "depth"}
        assert capsys.readouterr().out.endswith("To draw it: jepa-ode plot 'a store.zarr'\n")
        assert run("sweep", "three.toml", "--store", "a store.zarr", "--retry-failed") == 0
        assert (jo.open_sweep("a store.zarr").status != CellStatus.FAILED).all()
        assert not Path("three.zarr").exists()

    def test_blocks_are_as_large_as_asked(self) -> None:
        import zarr

        run("sweep", "three.toml", "-q", "--chunk", "2")
        assert zarr.open_group("three.zarr", mode="r")["status"].chunks == (1, 2)

    def test_processes_give_the_same(self) -> None:
        run("sweep", "three.toml", "-q")
        run("sweep", "three.toml", "-q", "-w", "2", "--store", "two.zarr")
        np.testing.assert_array_equal(jo.open_sweep("three.zarr").v, jo.open_sweep("two.zarr").v)
        np.testing.assert_array_equal(jo.open_sweep("three.zarr").message, jo.open_sweep("two.zarr").message)

    def test_dask(self) -> None:
        distributed = pytest.importorskip("distributed")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster:
            assert run("sweep", "three.toml", "-q", "--dask", cluster.scheduler_address) == 3
        assert (jo.open_sweep("three.zarr").status != CellStatus.NOT_RUN).all()

    def test_mpi(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []

        class Pool(ThreadPoolExecutor):
            def __init__(self, path: list[str]) -> None:
                seen.append(path)
                super().__init__(1)

        futures = types.ModuleType("mpi4py.futures")
        futures.MPIPoolExecutor = Pool  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "mpi4py", types.ModuleType("mpi4py"))
        monkeypatch.setitem(sys.modules, "mpi4py.futures", futures)
        assert run("sweep", "three.toml", "-q", "--mpi") == 3
        assert seen == [[str(folder.resolve())]]
        assert (jo.open_sweep("three.zarr").status != CellStatus.NOT_RUN).all()

    @pytest.mark.parametrize(("option", "module"), [("--mpi", "mpi4py"), ("--dask=tcp://x:1", "distributed")])
    def test_missing_packages_are_named(
        self, option: str, module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.futures", None)
        assert run("sweep", "three.toml", option) == 1
        name = option.split("=")[0]
        assert capsys.readouterr() == ("", f"jepa-ode: error: {name} needs {module}: pip install {module}\n")

    def test_a_bar_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("tqdm")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with sweep._progress(False) as progress:
            assert progress is True
        with sweep._progress(True) as progress:
            assert progress is False

    def test_ready_studies(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert run("sweep", "--list") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[::2]] == ["inversion", "targets"]
        assert [Path(line.strip()).name for line in lines[1::2]] == ["inversion.toml", "targets.toml"]
        asked: dict[str, Any] = {}

        def few(grid: Any, task: Any, **options: Any) -> Any:
            asked.update(options, grid=grid, task=task)
            return jo.sweep({name: values[::28] for name, values in grid.items()}, task, **options)

        monkeypatch.setattr(sweep, "sweep", few)
        assert run("sweep", "inversion", "-q") == 0
        assert (asked["task"], asked["store"]) == ("order_correlation", Path("inversion.zarr"))
        assert run("plot", "inversion.zarr") == 0
        assert imread("inversion.png").shape[2] == 4

    def test_many_messages_are_counted(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("sweep", write("cli_sweep_tasks:bad", "depth = { arange = [0, 7] }"), "--figure", "f.png") == 3
        out, err = capsys.readouterr()
        assert out == "7 cells: 0 ok, 0 in numerical trouble, 7 failed\n"
        assert err.splitlines()[1:] == [
            *(f"jepa-ode: warning: 1 failed: RuntimeError: depth {k}" for k in range(5)),
            "jepa-ode: warning: and 2 other messages of cells failed",
            "jepa-ode: warning: no cell has a result, and no store was made",
        ]

    def test_a_changed_task_is_warned_of(self, capsys: pytest.CaptureFixture[str]) -> None:
        run("sweep", "three.toml", "-q")
        Path("cli_sweep_tasks.py").write_text(TASKS.replace("depth + seed}, ", "depth + 2 * seed}, "))
        sys.modules.pop("cli_sweep_tasks")
        shutil.rmtree("__pycache__", ignore_errors=True)
        capsys.readouterr()
        assert run("sweep", "three.toml", "-q") == 3
        assert capsys.readouterr().err.startswith(
            "jepa-ode: warning: cli_sweep_tasks.value is not the function it was when three.zarr was begun;"
        )

    def test_killed_workers_are_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("sweep", write("cli_sweep_tasks:dies"), "-q", "-w", "1") == 1
        out, err = capsys.readouterr()
        assert out == ""
        *warned, error = err.splitlines()
        why = "the executor failed, perhaps a worker was killed (BrokenProcessPool"
        assert error.startswith(f"jepa-ode: error: {why}")
        assert error.endswith("none of 3 cells are done")
        assert warned
        assert all(line.startswith(f"jepa-ode: warning: {why}") and line.endswith("started again") for line in warned)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("three", "three is no file and no ready study; these are inversion, targets"),
            ("wrong.toml", "wrong.toml: task is missing: one of "),
            ("three.toml --store no/where.zarr", "store no/where.zarr cannot be made: "),
            ("three.toml --figure f.doc", "figure f.doc must end in one of ."),
            ("three.toml --figure no/f.png", "figure no/f.png: no is no folder"),
            ("three.toml --store taken.zarr", "taken.zarr is not the store of a sweep"),
        ],
    )
    def test_errors_are_one_line(self, arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        Path("wrong.toml").write_text("[grid]\na = [1]\n")
        Path("taken.zarr").mkdir()
        assert run("sweep", *arguments.split()) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[-1].startswith(f"jepa-ode: error: {message}")
        assert not Path("three.zarr").exists()

    def test_the_store_of_another_sweep(self, capsys: pytest.CaptureFixture[str]) -> None:
        run("sweep", "three.toml", "-q")
        capsys.readouterr()
        Path("three.toml").write_text(CONFIG.replace("[1, 2, 3]", "[1, 2]"))
        assert run("sweep", "three.toml", "-q") == 1
        assert capsys.readouterr().err.startswith(
            "jepa-ode: error: store three.zarr is of another sweep: grid: depth: 3 values"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("", "CONFIG is missing: a TOML file, or the name of a ready study (--list)"),
            ("three.toml -w 0", "must be a whole number of at least 1, got '0'"),
            ("three.toml --chunk 0", "argument --chunk: must be a whole number of at least 1, got '0'"),
            ("three.toml -w 2 --mpi", "not allowed with argument"),
        ],
    )
    def test_usage(self, arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("sweep", *arguments.split()) == 2
        assert message in capsys.readouterr().err

    @pytest.mark.skipif(os.name == "nt", reason="signals are different there")
    def test_ctrl_c_says_how_to_go_on(self) -> None:
        command = [sys.executable, "-m", "jepa_ode", "sweep", write("cli_sweep_tasks:slow"), "--chunk", "1"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            for _ in range(300):
                if Path("other.zarr/status/c/0").exists():
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 130
        assert out == ""
        assert err.splitlines() == [
            "sweep ...",
            "jepa-ode: sweep interrupted: 1 of 3 cells are done; they are in other.zarr, and the same call goes on from there",
        ]


def drawn(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Figure:
    """Return the figure that a command writes."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *places: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *places, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    assert run("plot", *arguments) == 0
    (figure,) = figures
    return figure


@pytest.fixture
def seeds(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the store of a sweep with seeds and no figure."""
    grid = "depth = [1, 2, 3]\neps = { geomspace = [1e-3, 1e-2, 5] }\nseed = { arange = [0, 4] }"
    assert run("sweep", write("cli_sweep_tasks:value", grid, 'store = "seeds.zarr"'), "-q") == 0
    capsys.readouterr()
    return "seeds.zarr"


class TestPlot:
    def test_as_the_file_says(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        run("sweep", "three.toml", "-q")
        capsys.readouterr()
        ax = drawn(monkeypatch, "three.zarr").axes[0]
        assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (
            "Three depths",
            r"start $\epsilon = w(0)$",
            "layers",
        )
        assert capsys.readouterr() == ("Figure: three.png\n", "")
        assert Path("three.png").is_file()

    def test_lines_as_the_file_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        figure = CONFIG[CONFIG.index("[figure]") :]
        lines = '[figure]\nvariable = "v"\nx = "eps"\nhue = "depth"\n'
        Path("lines.toml").write_text(CONFIG.replace(figure, lines))
        run("sweep", "lines.toml", "-q", "--store", "lines.zarr")
        for more in ([], ["--title", "Another"]):
            ax = drawn(monkeypatch, "lines.zarr", *more).axes[0]
            assert len({line.get_linestyle() for line in ax.lines} - {"None"}) == 3
            assert ax.get_xlabel() == r"start $\epsilon = w(0)$"

    def test_a_dimension_of_one_value_needs_no_choice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("one.toml").write_text(CONFIG.replace("depth = [1, 2, 3]", "depth = [1, 2, 3]\nseed = [7]"))
        run("sweep", "one.toml", "-q", "--store", "one.zarr")
        assert drawn(monkeypatch, "one.zarr").axes[0].get_ylabel() == "layers"

    def test_select_names_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        run("sweep", "three.toml", "-q")
        assert run("plot", "three.zarr", "--select", "eps=0.002") == 1
        assert "choose one of 0.001, 0.01, 0.1 (the nearest is 0.001)" in capsys.readouterr().err

    def test_options_take_the_place_of_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run("sweep", "three.toml", "-q")
        ax = drawn(monkeypatch, "three.zarr", "--x", "depth", "--y", "eps", "--title", "Another", "-o", "a.pdf").axes[0]
        assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("Another", "layers", r"start $\epsilon = w(0)$")
        assert Path("a.pdf").is_file()

    @pytest.mark.parametrize(
        ("options", "x", "lines"),
        [
            ("--hue depth", r"start $\epsilon = w(0)$", 3),
            ("--hue eps --x depth", "layers", 3),
            ("--x depth --hue eps", "layers", 3),
            ("--select eps=0.01", "layers", 1),
            ("--select depth=1", r"start $\epsilon = w(0)$", 1),
        ],
    )
    def test_lines_in_the_place_of_a_map(
        self, options: str, x: str, lines: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run("sweep", "three.toml", "-q")
        ax = drawn(monkeypatch, "three.zarr", *options.split()).axes[0]
        assert ax.get_xlabel() == x
        assert len([line for line in ax.lines if line.get_linestyle() != "None"]) == lines
        chosen = options.split()[1].replace("=", " = ") if "--select" in options else ""
        assert ax.get_title() == "\n".join(text for text in ("Three depths", chosen) if text)

    def test_what_fits_where_nothing_is_said(self, seeds: str, monkeypatch: pytest.MonkeyPatch) -> None:
        ax = drawn(monkeypatch, seeds, "--over", "seed").axes[0]
        expected = plot_sweep_map(jo.open_sweep(seeds), "v", Figure().add_subplot(), over="seed")
        np.testing.assert_array_equal(ax.collections[0].get_array(), expected.collections[0].get_array())
        assert ax.get_title() == ""

    def test_a_line_with_its_band(self, seeds: str, monkeypatch: pytest.MonkeyPatch) -> None:
        figure = drawn(monkeypatch, seeds, "--over", "seed", "--select", "depth=2", "--variable", "v")
        (ax,) = figure.axes
        assert ax.lines[0].get_ydata().tolist() == [3.5] * 5
        ends = ax.collections[0].get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([ends.min(), ends.max()], [2.3, 4.7])
        assert ax.get_title() == "depth = 2"

    def test_categories_have_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        grid = 'objective = ["jepa", "mae"]\neps = { geomspace = [1e-3, 1e-2, 5] }'
        constants = (
            "[constants]\ndepth = 2\nt_end = 100.0\ntrend = 'same'\nfeatures = 4\nlam = [0.5, 1.0]\nrho = [0.2, 0.9]"
        )
        run("sweep", write("selection", grid + "\n" + constants), "-q")
        ax = drawn(monkeypatch, "other.zarr").axes[0]
        assert ax.get_ylabel() == "share of the features that is learned"
        assert [line.get_label() for line in ax.lines[::2]] == ["JEPA", "MAE"]

    def test_an_unfinished_store(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        run("sweep", "three.toml", "-q", "--chunk", "1")
        shutil.rmtree("three.zarr/status/c/0")
        capsys.readouterr()
        ax = drawn(monkeypatch, "three.zarr", "-o", "part.png").axes[0]
        legend = ax.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()][:2] == ["failed (1 cell)", "not run (3 cells)"]
        assert capsys.readouterr() == ("Figure: part.png\n", "jepa-ode: warning: 3 of 9 cells are not run yet\n")
        assert run("plot", "three.zarr", "--list") == 0
        assert capsys.readouterr().out.splitlines() == [
            "three.zarr: Three depths",
            "task: cli_sweep_tasks.value",
            "cells: 9; 4 ok, 1 trouble, 1 failed, 3 not run",
            "dimension depth: 3 values",
            "    depth: 1, 2, 3",
            "dimension eps: 3 values",
            "    eps: 0.001, 0.01, 0.1",
            "variable v [depth, eps]",
        ]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("", f"{LEFT} depth (3 values), eps (5 values), seed (4 values); choose by --select NAME=VALUE, summarise"),
            (
                "--x eps --y depth",
                f"{LEFT} seed (4 values); choose by --select NAME=VALUE, summarise one by --over NAME",
            ),
            ("--x eps --hue depth", f"{LEFT} seed (4 values); "),
            ("--y depth", f"{LEFT} eps (5 values), seed (4 values); "),
            ("--variable w", "variable must be one of v, got 'w'"),
            ("--over seeds", "over must be one of depth, eps, seed, got 'seeds'"),
            ("--over seeds --select eps=0.01", "over must be one of depth, seed, got 'seeds'"),
            ("--select eps=0.01 --y depths", "y must be one of depth, seed, got 'depths'"),
            ("--select depths=1", "--select: depths must be one of depth, eps, seed"),
            ("--select depth=5", "--select: depth=5 is no value of depth, choose one of 1, 2, 3"),
            ("--select depth=one", "--select: depth=one is no value of depth, choose one of 1, 2, 3"),
            ("-o figure", "figure figure must end in one of ."),
        ],
    )
    def test_errors_are_one_line(
        self, options: str, message: str, seeds: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("plot", seeds, *options.split()) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"jepa-ode: error: {message}")
        assert err.count("\n") == 1

    def test_what_is_no_store(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("empty").mkdir()
        for name, message in {
            "nothing": "there is no store nothing",
            "empty": "empty is not the store of a sweep",
        }.items():
            assert run("plot", name) == 1
            assert capsys.readouterr() == ("", f"jepa-ode: error: {message}\n")

    def test_labels_of_nothing_are_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("three.toml").write_text(CONFIG.replace("labels = { depth", "labels = { depths"))
        assert run("sweep", "three.toml", "-q", "--figure", "f.png") == 1
        assert "labels: depths must be one of depth, eps, v" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("", "the following arguments are required: STORE"),
            ("s --y a --hue b", "--y makes a map, --hue makes lines: drop one"),
            ("s --select depth", "argument --select: must be NAME=VALUE, like depth=2, got 'depth'"),
        ],
    )
    def test_usage(self, options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("plot", *options.split()) == 2
        assert message in capsys.readouterr().err
