"""The file that describes a sweep: what its parts stand for, what is wrong with them, and the ready studies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jepa_ode as jo
from jepa_ode.sweeps import tasks
from jepa_ode.sweeps._config import find_config, read_config, studies
from jepa_ode.sweeps._grid import Grid

pytest.importorskip("xarray")
pytest.importorskip("threadpoolctl")

LEAST = 'task = "solve"\n[grid]\ndepth = [1]\n'


def write(folder: Path, text: str, name: str = "study.toml") -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_text(text)
    return path


def test_every_part(tmp_path: Path) -> None:
    config = read_config(
        write(
            tmp_path,
            """
            title = "A title"
            task = "order_correlation"
            store = "here.zarr"
            rng = 7
            [grid]
            depth = [1, 2, 3]
            eps = { geomspace = [1e-6, 1e-1, 6] }
            "lam, rho" = [[0.5, 0.9], [1.0, 0.3]]
            shift = { linspace = [0, 1, 5] }
            seed = { arange = [2, 8, 3] }
            t = { values = [[1.0, 2.0], [3.0, 4.0]], labels = ["early", "late"] }
            [constants]
            fraction = 0.5
            times = { arange = [0, 3] }
            [figure]
            variable = "order_correlation"
            x = "depth"
            y = "eps"
            select = { seed = 2 }
            labels = { depth = "layers" }
            """,
        )
    )
    assert (config.title, config.task, config.store, config.rng) == (
        "A title",
        "order_correlation",
        Path("here.zarr"),
        7,
    )
    grid = Grid(config.grid)
    assert grid.dims == ("depth", "eps", "lam_rho", "shift", "seed", "t")
    assert grid.shape == (3, 6, 2, 5, 2, 2)
    np.testing.assert_array_equal(grid.coordinates["eps"][1], np.geomspace(1e-6, 1e-1, 6))
    np.testing.assert_array_equal(grid.coordinates["shift"][1], np.linspace(0, 1, 5))
    assert grid.coordinates["seed"][1].tolist() == [2, 5]
    assert grid.coordinates["seed"][1].dtype.kind == "i"
    assert grid.coordinates["t"][1].tolist() == ["early", "late"]
    assert [value for (value,) in grid.axes[-1].values] == [[1.0, 2.0], [3.0, 4.0]]
    assert grid.axes[2].values == ((0.5, 0.9), (1.0, 0.3))
    assert config.constants["fraction"] == 0.5
    assert config.constants["times"].tolist() == [0, 1, 2]
    assert config.figure["select"] == {"seed": 2}


def test_what_may_be_left_out(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, LEAST, "my study.toml"))
    assert (config.title, config.store, config.rng) == ("", Path("my study.zarr"), 0)
    assert config.constants == {} == config.figure


def test_a_task_of_a_module_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path, "def double(*, a):\n    return 2 * a\nnumber = 3\n", "beside_the_file.py")
    task = read_config(write(tmp_path, 'task = "beside_the_file:double"\n[grid]\na = [1]\n')).task
    assert callable(task)
    assert jo.sweep({"a": [1, 2]}, task)["value"].values.tolist() == [2.0, 4.0]
    read_config(tmp_path / "study.toml")
    assert sys.path.count(str(tmp_path.resolve())) == 1
    for name, message in {
        "beside_the_file:triple": "task 'beside_the_file:triple': beside_the_file has no function 'triple'",
        "beside_the_file:number": "task 'beside_the_file:number': beside_the_file has no function 'number'",
        "not_there:f": "task 'not_there:f': No module named 'not_there'",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_config(write(tmp_path, f'task = "{name}"\n[grid]\na = [1]\n'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "is no TOML: Invalid value (at end of document)"),
        ("[grid]\ndepth = [1]", f": task is missing: one of {', '.join(tasks.__all__)}, or module:function"),
        ('task = "sovle"', f": task must be one of {', '.join(tasks.__all__)}, or module:function, got 'sovle'"),
        ("task = 3", ": task must be a text, got 3"),
        ('task = "solve"', ": grid is missing: name at least one parameter and its values"),
        ('task = "solve"\ngrid = 3', ": grid must be a table, [grid], got 3"),
        (
            LEAST + "[gird]",
            ": gird is no key; there are title, task, store, rng, grid, constants, figure",
        ),
        ("rng = -1\n" + LEAST, ": rng must be at least 0, got -1"),
        ("rng = 1.5\n" + LEAST, ": rng must be a whole number, got 1.5"),
        ("store = 1\n" + LEAST, ": store must be a text, got 1"),
        ("title = 1\n" + LEAST, ": title must be a text, got 1"),
        (LEAST + "eps = 0.1", ": grid: the values of eps must be a sequence, got 0.1; a constant goes to constants="),
        (LEAST + "eps = []", ": grid: eps has no values"),
        (LEAST + "eps = [1, 1]", ": grid: eps has a value twice"),
        (LEAST + "eps = {}", ", got the keys none"),
        (
            LEAST + "eps = { logspace = [1, 2, 3] }",
            "{ linspace = [...] }, { arange = [...] }, { values = [...], labels = [...] }, got the keys logspace",
        ),
        (LEAST + "eps = { linspace = [0, 1, 2], geomspace = [1, 2, 3] }", ", got the keys linspace, geomspace"),
        (
            LEAST + "eps = { geomspace = [1, 2] }",
            ": grid: eps: geomspace must be [first, last, number], got [1, 2]",
        ),
        (
            LEAST + "eps = { geomspace = [0, 1, 5] }",
            ": grid: eps: geomspace: first and last must be positive, got [0, 1, 5]",
        ),
        (LEAST + "eps = { linspace = [0, 1, 2.5] }", ": grid: eps: linspace: number must be a whole number, got 2.5"),
        (LEAST + "eps = { linspace = [0, 1, 0] }", ": grid: eps: linspace: number must be at least 1, got 0"),
        (LEAST + "eps = { linspace = [0, inf, 3] }", ": grid: eps: linspace must be finite, got [0, inf, 3]"),
        (LEAST + 'eps = { linspace = [0, "1", 3] }', ": grid: eps: linspace must be a real number, got '1'"),
        (LEAST + "eps = { linspace = 3 }", ": grid: eps: linspace must be [first, last, number], got 3"),
        (LEAST + "eps = { arange = [3] }", ": grid: eps: arange must be [first, end] or [first, end, step], got [3]"),
        (LEAST + "eps = { arange = [0, 3, 0] }", ": grid: eps: arange: the step must not be 0, got [0, 3, 0]"),
        (LEAST + "eps = { arange = [3, 0] }", ": grid: eps has no values"),
        (
            LEAST + 'eps = { values = [1, 2], labels = ["a"] }',
            ": grid: eps: values and labels must be lists of the same length, got [1, 2] and ['a']",
        ),
        (LEAST + 'eps = { values = [1, 2], labels = ["a", "a"] }', ": grid: eps: labels must differ, got ['a', 'a']"),
        (LEAST + "eps = { values = [1], labels = [[1]] }", ": grid: eps: labels must be texts or numbers, got [[1]]"),
        (LEAST + '"a, b" = [[1]]', ": values of ('a', 'b') must be tuples of 2, got [1]"),
        (LEAST + '"a, b" = { values = [], labels = [] }', ": grid: a, b: a table must be one of { geomspace"),
        (LEAST + '"a, depth" = [[1, 2]]', ": grid has 'depth' twice"),
        (LEAST + "[constants]\ndepth = 3", ": depth is in grid and in constants: drop one"),
        (LEAST + "[constants]\na = { b = 3 }", ": constants: a: a table must be one of { geomspace = [...] }"),
        (
            LEAST + "[figure]\nz = 3",
            ": figure: z is no key; there are variable, x, y, hue, over, title, select, labels",
        ),
        (LEAST + "[figure]\nx = 3", ": figure: x must be a text, got 3"),
        (LEAST + '[figure]\ny = "depth"\nhue = "eps"', ": figure: y makes a map, hue makes lines: drop one"),
        (LEAST + "[figure.select]\nseed = [3]", ": figure: select: seed must be a number or a text, got [3]"),
        (LEAST + "[figure.labels]\nseed = 3", ": figure: labels: seed must be a text, got 3"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)


def test_a_file_comes_before_a_study_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("inversion") == studies()["inversion"]
    (tmp_path / "targets").mkdir()
    assert find_config("targets") == studies()["targets"]
    assert find_config(str(write(tmp_path, LEAST, "inversion"))) == Path("inversion").resolve()
    with pytest.raises(ValueError, match=r"^nothing is no file and no ready study; these are inversion, targets$"):
        find_config("nothing")


def study(name: str, **values: list[float]) -> Any:
    """Run a ready study at some values of its parameters."""
    config = read_config(studies()[name])
    assert config.title
    assert set(values) == set(config.grid)
    for parameter, some in values.items():
        whole = np.asarray(config.grid[parameter])
        assert whole.min() <= min(some) and max(some) <= whole.max()
    return jo.sweep(values, config.task, constants=config.constants, rng=config.rng)


def test_inversion_shows_what_its_file_says() -> None:
    found = study("inversion", depth=[1.0, 4.0, 8.0], eps=[1e-12, 1e-5, 1e-3]).order_correlation
    assert (found.sel(depth=1) > 0.99).all()
    assert (found.sel(eps=1e-12) > 0.99).all()
    assert found.sel(depth=8, eps=1e-5) < -0.5 < 0.9 < found.sel(depth=4, eps=1e-5)  # more layers for a smaller start
    assert found.sel(depth=4, eps=1e-3) < found.sel(depth=4, eps=1e-5)


def test_targets_shows_what_its_file_says() -> None:
    config = read_config(studies()["targets"])
    strongest = jo.Spectrum([1.0], rho=[config.constants["rho"][1]])
    wall = jo.weight_decay_threshold(strongest, "jepa", depth=config.constants["depth"], eps=config.constants["eps"])[0]
    assert round(wall, 4) == 0.0042
    found = study("targets", weight_decay=[1e-4, 2e-3, 0.9 * wall, 1.01 * wall], ema=[1.0, 30.0, 100.0, 1000.0])
    assert (found.status == jo.CellStatus.OK).all()
    weakest = found.weakest
    assert weakest.values[0].round(2).tolist() == [0.32, 0.33, 0.37, 0.71]
    assert (weakest.diff("ema") >= 0).values[:2].all()
    assert (weakest.sel(ema=1).diff("weight_decay") > 0).values[:2].all()
    assert np.isnan(weakest.values[3]).all()
    assert found.learned.values[3].tolist() == [0.0] * 4
