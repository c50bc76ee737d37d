"""The code base tests itself: one version, a fresh stub, a light import, a typed package (DESIGN.md 3)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jepa_ode
from jepa_ode import _core

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_version_has_one_value() -> None:
    version = PYPROJECT["project"]["version"]
    assert importlib.metadata.version("jepa-ode") == version
    assert jepa_ode.__version__ == version
    assert jepa_ode.build_info()["version"] == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == version


def test_citation_names_the_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert "2407.03475" in citation
    for author in ("Littwin", "Saremi", "Advani", "Thilak", "Nakkiran", "Huang", "Susskind"):
        assert author in citation


def test_stub_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("make_stub", ROOT / "tools" / "make_stub.py")
    assert spec is not None
    assert spec.loader is not None
    make_stub = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_stub)
    assert make_stub.is_fresh(_core.engine), "run `make stub`"


def test_package_is_typed() -> None:
    folder = Path(jepa_ode.__file__).parent
    assert (folder / "py.typed").is_file()
    assert (folder / "_core" / "engine.pyi").is_file()


def test_only_numpy_is_needed_to_run() -> None:
    required = importlib.metadata.requires("jepa-ode") or []
    assert [line for line in required if "extra ==" not in line] == PYPROJECT["project"]["dependencies"]
    assert len(PYPROJECT["project"]["dependencies"]) == 1


def test_licences_are_installed() -> None:
    installed = {str(path) for path in importlib.metadata.files("jepa-ode") or []}
    for licence in ("LICENSE", "licenses/eigen/COPYING.MPL2", "licenses/pybind11/LICENSE"):
        assert any(path.endswith(f".dist-info/licenses/{licence}") for path in installed), licence


def imported_modules(statement: str) -> set[str]:
    """Return the names of the modules that a statement loads in a fresh interpreter."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
        timeout=60,
    )
    return set(done.stdout.split())


def test_import_loads_numpy_and_the_standard_library_only() -> None:
    extra = imported_modules("import jepa_ode") - imported_modules("import numpy")
    packages = {name.split(".")[0] for name in extra}
    packages = {name for name in packages if not re.match("_?cython_", name)}  # numpy.random registers these
    assert packages - set(sys.stdlib_module_names) <= {"jepa_ode", "numpy"}
    slow = {
        "argparse",
        "asyncio",
        "concurrent",
        "importlib.metadata",
        "json",
        "logging",
        "multiprocessing",
        "unittest",
    }
    assert not slow & extra


def test_every_public_name_is_listed_and_documented() -> None:
    assert len(set(jepa_ode.__all__)) == len(jepa_ode.__all__)
    for name in jepa_ode.__all__:
        value = getattr(jepa_ode, name)
        if callable(value):
            assert (value.__doc__ or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize("extra", ["plot", "xarray", "progress", "sweep", "analyze", "experiments", "bench"])
def test_all_holds_every_extra(extra: str) -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert extra in extras
    assert extra in extras["all"][0]
