"""Every experiment runs, judges itself and draws itself; what is broken is told and stops nothing else."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jepa_ode import experiments
from jepa_ode.cli import main
from jepa_ode.experiments import About, Result, Verdict
from jepa_ode.experiments import _catalogue as catalogue

NAMES = experiments.names()
FOLDER = Path(experiments.__file__).parent


@pytest.fixture(scope="session")
def fast_results() -> dict[str, Result]:
    return {}


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture
def result(name: str, fast_results: dict[str, Result]) -> Result:
    """The fast version, run once."""
    pytest.importorskip("matplotlib")
    experiment = experiments.find(name)
    if experiment.ABOUT.extra == "experiments":
        pytest.importorskip("torch")
    if name not in fast_results:
        told: list[float] = []
        fast_results[name] = experiment.run(fast=True, seed=0, progress=told.append)
        assert all(0 <= part <= 1 for part in told)
        assert told == sorted(told)
    return fast_results[name]


# --- the experiments ----------------------------------------------------------------------------------------------------


def test_the_claims_are_numbered_from_one_on():
    numbers = [experiments.find(name).ABOUT.number for name in NAMES]
    assert numbers == list(range(1, len(NAMES) + 1))


def test_it_says_what_it_is_about(name: str):
    experiment = experiments.find(name)
    about = experiment.ABOUT
    assert about.title
    assert about.claim.endswith(".")
    assert experiment.run.__doc__
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 160


def test_its_claim_holds(result: Result):
    verdicts = result.verdicts()
    assert verdicts
    assert all(isinstance(verdict, Verdict) and verdict.quantity for verdict in verdicts)
    assert result.holds, repr(result)


def test_its_data_are_frozen_and_complete(result: Result):
    arrays = result.arrays()
    assert arrays
    for name, array in arrays.items():
        assert array.dtype != object, name
    assert result.setting


def test_it_draws_itself(result: Result):
    figure = result.figure()
    rows, columns = result.layout
    axes = figure.axes[: rows * columns]
    assert len(axes) == rows * columns
    figure.canvas.draw()
    for ax in axes:
        assert ax.get_xlabel(), "an axis has no label"
        assert ax.get_ylabel() or ax.get_title(), "a panel has no label"
        assert ax.has_data()
    with pytest.raises(ValueError, match="axes"):
        result.plot([None] * (rows * columns + 1))


def test_the_same_seed_gives_the_same_data(name: str, result: Result):
    again = experiments.find(name).run(fast=True, seed=0)
    for key, array in result.arrays().items():
        np.testing.assert_array_equal(again.arrays()[key], array, err_msg=key)


def test_they_are_attributes_of_the_package(name: str):
    assert getattr(experiments, name) is experiments.find(name.replace("_", "-"))
    assert name in dir(experiments)
    with pytest.raises(AttributeError, match="no_claim"):
        experiments.no_claim  # noqa: B018


def test_importing_them_takes_numpy_alone():
    code = (
        "import sys; from jepa_ode import experiments; [experiments.find(n) for n in experiments.names()];"
        "print(*[m for m in ('matplotlib', 'torch', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- verdicts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "relation", "holds"),
    [
        (1.0, "<=", True),
        (2.0, "<=", True),
        (3.0, "<=", False),
        (1.0, ">=", False),
        (2.0, ">=", True),
        (3.0, ">=", True),
    ],
)
def test_a_verdict_compares(value: float, relation: str, holds: bool):
    verdict = Verdict("a quantity", value, relation, 2.0)
    assert verdict.holds is holds
    assert str(verdict).startswith("holds" if holds else "FAILS")


@pytest.mark.parametrize("relation", ["<=", ">="])
def test_what_was_not_measured_does_not_hold(relation: str):
    verdict = Verdict("a quantity", math.nan, relation, 2.0)
    assert not verdict.holds
    assert "not measured" in str(verdict)


# --- running them -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Toy(Result):
    values: np.ndarray

    def verdicts(self):
        return (Verdict("the largest <value>", float(self.values.max()), "<=", 1.0),)

    def _draw(self, axes):
        axes[0].plot(self.values)


def toy(largest: float):
    def run(*, fast=False, seed=0, progress=experiments.silent):
        progress(0.5)
        if not math.isfinite(largest):
            raise ZeroDivisionError("the toy\nbroke")
        return Toy({"fast": fast, "seed": seed, "rates": [0.5, 1.5], "of": About}, np.array([0.0, largest]))

    return SimpleNamespace(
        ABOUT=About(round(largest) if math.isfinite(largest) else 99, "A toy & more", "It is small."), run=run
    )


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pytest.importorskip("matplotlib")
    found = {"small": toy(1.0), "large": toy(2.0), "broken": toy(math.inf)}
    for module in (catalogue, experiments._reproduce):
        monkeypatch.setattr(module, "find", lambda name: found[name])
        monkeypatch.setattr(module, "names", lambda: list(found))
    for attribute in ("find", "names"):
        monkeypatch.setattr(experiments, attribute, getattr(catalogue, attribute))
    return list(found)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        for key, value in attrs:
            if key in ("src", "href"):
                self.targets.append(value)
            if key == "id":
                self.ids.append(value)


def test_everything_is_kept(toys: list[str], tmp_path: Path):
    told = []
    outcomes = experiments.reproduce(fast=True, seed=7, out=tmp_path, progress=lambda *what: told.append(what))
    assert [(o.name, o.verdict, o.holds) for o in outcomes] == [
        ("small", "holds", True),
        ("large", "does not hold", False),
        ("broken", "broke", False),
    ]
    assert outcomes[2].error == "ZeroDivisionError: the toy broke"
    assert told == [(name, part) for name in toys for part in (0.0, 0.5, 1.0)]
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{name}.{end}" for name in ("small", "large") for end in ("png", "npz", "json")),
        "broken.json",
        "gallery.html",
    }
    large = json.loads((tmp_path / "large.json").read_text())
    assert large["verdict"] == "does not hold"
    assert large["verdicts"] == [
        {"quantity": "the largest <value>", "value": 2.0, "relation": "<=", "threshold": 1.0, "holds": False}
    ]
    assert large["setting"]["seed"] == large["seed"] == 7
    assert large["setting"]["rates"] == [0.5, 1.5]
    np.testing.assert_array_equal(np.load(tmp_path / "large.npz")["values"], [0, 2])
    assert "broke" in json.loads((tmp_path / "broken.json").read_text())["error"]

    text = (tmp_path / "gallery.html").read_text()
    page = Links()
    page.feed(text)
    assert all(target.startswith(("data:", "#")) for target in page.targets)
    assert {target[1:] for target in page.targets if target.startswith("#")} == set(toys) <= set(page.ids)
    assert "1 of 3 claims hold" in text
    assert "A toy &amp; more" in text
    assert "the largest &lt;value&gt;" in text
    assert not re.search(r"\$\w", text)


def test_a_page_is_there_after_the_first(toys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(**options):
        raise KeyboardInterrupt

    catalogue.find("large").run = interrupted
    with pytest.raises(KeyboardInterrupt):
        experiments.reproduce(out=tmp_path)
    assert "1 of 1 claims hold" in (tmp_path / "gallery.html").read_text()


def test_nothing_is_written_unless_asked(toys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert [outcome.holds for outcome in experiments.reproduce(["small", "small"])] == [True]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["nothing", "_result", "fixed points", "../cli", ""])
def test_unknown_names(wrong: str):
    with pytest.raises(ValueError, match=f"no experiment is called {wrong!r}.*fixed_points"):
        experiments.find(wrong)
    with pytest.raises(ValueError, match="no experiment"):
        experiments.reproduce([wrong])


def test_a_missing_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch):
    needy = SimpleNamespace(ABOUT=About(1, "Needy", "It needs.", extra="experiments"))
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(
        ImportError, match=r'torch is missing, which Needy needs: pip install "jepa-ode\[experiments\]", or'
    ):
        catalogue.require_extras([needy])


# --- the command --------------------------------------------------------------------------------------------------------


def test_the_command_runs_and_tells(toys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", "--out", str(tmp_path), "--seed", "3", "small"]) == 0
    out, err = capsys.readouterr()
    assert "A toy & more: holds" in out
    assert "1 of 1 claims hold" in out
    assert "gallery.html" in out
    assert "small ..." in err
    assert main(["reproduce", "--out", str(tmp_path), "--quiet", "--fast"]) == 3
    assert capsys.readouterr() == ("", "")
    assert json.loads((tmp_path / "small.json").read_text())["fast"] is True


def test_the_command_lists(capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES)
    assert any(line.lstrip().startswith("7. fixed-points ") for line in lines)


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments in (["nothing"], ["--seed", "-1"], ["--seed", "x"]):
        with pytest.raises(SystemExit, match="2"):
            main(["reproduce", *arguments])
    (tmp_path / "file").touch()
    assert main(["reproduce", "fixed-points", "--out", str(tmp_path / "file")]) == 1
    assert "is a file" in capsys.readouterr().err
