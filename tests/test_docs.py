"""What the pages show runs, what they point to exists, and the reference leaves nothing out; without building them."""

from __future__ import annotations

import contextlib
import io
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import jepa_ode as jo

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md"]
# README.md and what docs includes from elsewhere are pages of the repository; these are the pages of the build.
SOURCES = sorted({*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")} - {*(DOCS / "tables").iterdir()})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("default")  # those of dask, when it starts and ends a cluster
@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=name_of)
def test_python_runs(page: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    blocks = code_of(page)
    names: dict[str, object] = {"__name__": "__main__"}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            for block in blocks:  # a page reads from top to bottom
                exec(compile(block, name_of(page), "exec"), names)
    finally:
        pyplot.close("all")
    for expected in re.findall(r"# (\[[\d ]+\]):", blocks[0]):
        assert expected in printed.getvalue()


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors_of(there), target


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {DOCS / "index.md"}
    for page in SOURCES:
        for block in re.findall(
            r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            listed |= {page.parent / line for line in block.split("\n") if line and not line.startswith(":")}
        for block in re.findall(r"^\.\. toctree::\n((?: .*\n|\n)*)", page.read_text(encoding="utf-8"), re.MULTILINE):
            listed |= {page.parent / line.strip() for line in block.split("\n") if line.strip() and ":" not in line}
    assert {path.with_suffix("") for path in SOURCES} == {path.with_suffix("") for path in listed}


def documented() -> set[str]:
    """Return the full names of all that a page of the reference describes."""
    found = set()
    for page in DOCS.glob("api/*.rst"):
        module = ""
        for directive, name in re.findall(r"^\.\. ([a-z]+):: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            elif directive == "automodule" or name.startswith("jepa_ode"):
                found.add(name)
            elif directive.startswith("auto") or directive == "data":
                found.add(f"{module}.{name}")
    return found


def public() -> list[tuple[str, str]]:
    """Return every public name with the module that offers it."""
    modules = [
        jo,
        *(module for name in jo.__all__ if isinstance(module := getattr(jo, name), ModuleType)),
        jo.sweeps.tasks,
    ]
    return [(module.__name__, name) for module in modules for name in module.__all__]


def test_reference_describes_every_public_name() -> None:
    pages = documented()
    # What the package itself offers is described there, not again in the module from where it comes.
    missing = [f"{module}.{name}" for module, name in public() if not {f"{module}.{name}", f"jepa_ode.{name}"} & pages]
    assert not missing


def test_reference_describes_nothing_else() -> None:
    for name in documented() - {"jepa_ode"}:
        module, _, last = name.rpartition(".")
        assert last in dir(import_module(module)), name


def test_theory_has_every_section_that_the_code_cites() -> None:
    theory = (DOCS / "theory.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (\d+)\. ", theory, re.MULTILINE))
    claims = set(re.findall(r"^(\d+)\. ", theory, re.MULTILINE))
    sources = [path for folder in ("python", "cpp", "tests", "bench") for path in (ROOT / folder).rglob("*")]
    cited = set()
    for path in sources:
        if path.suffix in {".py", ".hpp", ".cpp"}:
            text = path.read_text(encoding="utf-8")
            for several, claim in re.findall(r"THEORY\.md (\d(?:(?:, | and )\d)*)(?:, claim (\d+))?", text):
                numbers = set(re.findall(r"\d", several))
                assert numbers <= sections, f"{path}: THEORY.md {several}"
                assert not claim or claim in claims, f"{path}: claim {claim}"
                cited |= numbers
    assert cited == sections
    assert {str(jo.experiments.find(name).ABOUT.number) for name in jo.experiments.names()} == claims


def test_the_campaign_table_names_every_property() -> None:
    rows = re.findall(r"^\| (\d+) \|", (DOCS / "tables" / "campaign.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [str(number) for number in range(1, 33)]
