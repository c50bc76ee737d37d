"""Change the engine's arithmetic at one place at a time and see whether the tests notice.

    python tools/mutate.py --count 120 --seed 1 --isa avx2

A mutant is one change: a constant by 1e-6 of itself or by 1, ``<`` for ``<=``, ``==`` for ``!=``, ``+`` for ``-``, ``*``
for ``/``, a sign dropped, ``min`` for ``max``, ``&&`` for ``||`` and the reverse of each. Every file gets its share by
length. A mutant that the compiler refuses is none, and another one is drawn, unless it was a ``static_assert`` that
noticed. Those that compile run the engine's tests, then the Python tests of the solvers, up to the first that fails.

Everything happens in copies of the tree in ``--folder``, whose ``results.jsonl`` gets a line for each mutant: a run that
was stopped goes on with the next. The score is the share that is killed of those that some input could tell from the
engine: what ``tests/mutants.md`` lists under "Equivalent" does not count. Fails below 95%, and where a mutant survives that
the page does not explain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("CMakeLists.txt", "pyproject.toml", "cmake", "cpp", "python", "tests")
EXPLAINED = ROOT / "tests" / "mutants.md"

# Of the Python tests those that look at numbers of the engine; a mutant that all of them let pass survives.
PYTHON_TESTS = [
    f"tests/test_{name}.py"
    for name in (
        *("exact", "relations", "solve", "runge_kutta", "sensitivity", "layers", "network", "training", "flow"),
        *("flow_events", "flow_ensembles", "theory", "independence", "output", "coupled", "aligned", "schedule"),
        "work",
    )
]
NOT_ASKED = "not ctrl_c"  # a test of seconds, not of numbers, which fails where mutants compile beside it
EQUIVALENT = "## Equivalent"  # the heading of those that no input can tell from the engine but for roundings
LEAST_KILLED = 0.95  # of the mutants that compile and are not equivalent
LEAST_PATIENCE = 60.0  # seconds; a test that takes six times as long as without a mutant hangs
MEMORY = 8 << 30  # bytes of address space; a mutant may ask for any number


@dataclass(frozen=True)
class Mutant:
    """One change: of ``file``, at an offset, ``before`` becomes ``after``."""

    file: str
    offset: int
    before: str
    after: str


Key = tuple[str, str, int, str, str]


@dataclass
class Result:
    """What became of a mutant."""

    file: str
    line: int
    source: str
    before: str
    after: str
    column: int
    verdict: str  # killed, survived or invalid
    by: str  # the test that noticed
    seconds: float

    @property
    def key(self) -> Key:
        """What stays the same when lines are added above."""
        return self.file, self.source, self.column, self.before, self.after

    @property
    def sentence(self) -> str:
        """How ``tests/mutants.md`` names it."""
        return f"`{self.file}`: `{self.source}`, `{self.before}` at {self.column} becomes `{self.after}`"


# --- where a file can be changed --------------------------------------------------------------------------------------


def _blank(text: str, start: int, end: int, blank: str = " ") -> str:
    return text[:start] + re.sub(r"[^\n]", blank, text[start:end]) + text[end:]


def _end_of_bracket(text: str, start: int, pair: str) -> int:
    """Return where the bracket that opens at ``start`` is closed, or ``start`` where it is none (a comparison)."""
    depth = 0
    for k in range(start, len(text)):
        depth += (text[k] == pair[0]) - (text[k] == pair[1] and text[k - 1 : k + 1] != "->")
        if depth == 0:
            return k + 1
        if text[k] in ";{" and pair == "<>":
            return start
    return start


def code_alone(text: str) -> str:
    """Return the text with blanks for comments, literals of characters, directives, assertions, template arguments, extents."""
    for pattern in (r"//[^\n]*|/\*.*?\*/", r'"(?:\\.|[^"\\\n])*"', r"^[ \t]*#(?:\\\n|[^\n])*", r"\balignas\(\w+\)"):
        text = re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL | re.MULTILINE)
    for opening, pair in ((r"\bstatic_assert(?=\()", "()"), (r"\btemplate(?: (?=<))|\w(?=<[^<=])", "<>")):
        at = 0
        while found := re.compile(opening).search(text, at):
            blank = " " if pair == "()" else "_"  # `vector<double>& x` must not become `vector & x`
            text = _blank(text, found.end(), _end_of_bracket(text, found.end(), pair), blank)
            at = found.end()
    return re.sub(
        r"\b(?!return\b)\w+ \w+((?:\[\w+\])+)(?=;|,| =| \{)",
        lambda m: _blank(m[0], m.start(1) - m.start(), len(m[0])),
        text,
    )


NUMBER = re.compile(
    r"(?<![\w.'])(0x[\da-f'.]+(?:p[+-]?\d+)?|\d[\d']*(?:\.\d*)?(?:e[+-]?\d+)?)([ul]*)(?![\w.])", re.IGNORECASE
)
SWAPS = {
    r"\s([-+*/])(?=\s)": {"+": "-", "-": "+", "*": "/", "/": "*"},
    r"\s([-+*/]=)(?=\s)": {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="},
    r"\s([<>]=?|[=!]=)(?=\s)": {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    r"\s(&&?|\|\|?)(?=\s)": {"&&": "||", "||": "&&", "&": "|", "|": "&"},
    r"\b(min|max)(?=\()": {"min": "max", "max": "min"},
    r"(?:[(\[{]|[-+*/<>=?:,&|] |\breturn )(-)(?=[\w(.])": {"-": ""},
}


def mutants(file: str, text: str, active: set[int]) -> Iterator[Mutant]:
    """Yield every change of a file's arithmetic on its active lines."""
    code = code_alone(text)
    changes: list[tuple[int, str, list[str]]] = []
    for found in NUMBER.finditer(code):
        digits = found[1].lower()
        is_real = "." in digits or ("p" in digits if digits.startswith("0x") else "e" in digits)
        by_one = f"({found[0]} + 1)"
        scaled = by_one if re.fullmatch(r"0*\.0*", digits) else f"({found[0]} * (1 + 1e-6))"
        changes.append((found.start(), found[0], [by_one, scaled] if is_real else [by_one]))
    for pattern, swap in SWAPS.items():
        changes += [(m.start(1), m[1], [swap[m[1]]]) for m in re.finditer(pattern, code)]
    for offset, before, afters in changes:
        if text.count("\n", 0, offset) + 1 in active:
            yield from (Mutant(file, offset, before, after) for after in dict.fromkeys(afters))


def draw(sources: dict[str, str], active: dict[str, set[int]], seed: int) -> Iterator[Mutant]:
    """Yield mutants without end of the list: in each pass one of every hundred lines of each file, in random order."""
    left = {}
    for file in sorted(sources):
        left[file] = sorted(mutants(file, sources[file], active.get(file, set())), key=lambda m: (m.offset, m.after))
        random.Random(f"{seed} {file}").shuffle(left[file])
    order = random.Random(seed)
    while any(left.values()):
        turns = [file for file in sorted(left) for _ in range(1 + sources[file].count("\n") // 100)]
        order.shuffle(turns)
        yield from (left[file].pop() for file in turns if left[file])


# --- the copies in which they run -------------------------------------------------------------------------------------


Kills = Counter[tuple[str, str]]  # by file and test


def kills(results: Iterable[Result]) -> Kills:
    """Return how often each test noticed a mutant of each file."""
    return Counter((r.file, re.split(r"::| ", r.by)[0]) for r in results if r.verdict == "killed")


def _merit(known: Kills, file: str, test: str) -> tuple[int, int, int]:
    """Return the place of a test in the queue: who noticed mutants of the file before, or has its name, is asked first."""
    words = set(Path(file).stem.split("_")) & set(Path(test).stem.split("_"))
    return -known[file, test], -len(words), -sum(n for (_, other), n in known.items() if other == test)


class Workshop:
    """A copy of the tree, built, with what it needs to try a mutant."""

    def __init__(self, folder: Path, isa: str) -> None:
        self.tree, self.isa = folder / "tree", isa
        self.build, self.pristine, self.package = folder / "build", folder / "pristine", folder / "package"
        self.patience: dict[str, float] = {}

    def prepare(self) -> None:
        """Copy the tree, build it as it is, and time every test, all of which have to pass; only time them once."""
        digest = hashlib.sha256()
        for source in sorted(p for name in COPIED for p in [ROOT / name, *(ROOT / name).rglob("*")] if p.is_file()):
            if "__pycache__" in source.parts or source.suffix == ".md":
                continue
            target = self.tree / source.relative_to(ROOT)
            digest.update(f"{target} ".encode() + source.read_bytes())
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        if self.pristine.exists():
            self._restore()
            last = json.loads((self.pristine / "mutate.json").read_text())
            if last["digest"] == digest.hexdigest():
                self.patience = last["patience"]
                return
        where = [sys.executable, "-m", "pybind11", "--cmakedir"]
        pybind11 = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
        definitions = {
            "CMAKE_BUILD_TYPE": "Debug",
            "CMAKE_CXX_FLAGS_DEBUG": "-O1 -w -D_GLIBCXX_ASSERTIONS",
            "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
            "JEPA_ODE_ISAS": self.isa,
            "JEPA_ODE_PYTHON": "ON",
            "JEPA_ODE_TESTS": "ON",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11,
        }
        cmake = ["cmake", "-G", "Ninja", "-S", str(self.tree), "-B", str(self.build)]
        cmake += [f"-D{name}={value}" for name, value in definitions.items()]
        subprocess.run(cmake, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["ninja", "-C", str(self.build), "-j1"], check=True)
        for test in [*self._programs(), "python"]:
            start = time.monotonic()
            output = self._run(test, 3600.0, PYTHON_TESTS)
            if output is not None:
                raise SystemExit(f"mutate: {test} fails without a mutant:\n{output}")
            self.patience[test] = max(LEAST_PATIENCE, 6 * (time.monotonic() - start))
        shutil.rmtree(self.pristine, ignore_errors=True)
        shutil.copytree(self.build, self.pristine, symlinks=True)
        (self.pristine / "mutate.json").write_text(
            json.dumps({"digest": digest.hexdigest(), "patience": self.patience})
        )

    def active_lines(self) -> dict[str, set[int]]:
        """Return the lines of each source that this instruction set compiles, as the preprocessor leaves them."""
        lines: dict[str, set[int]] = {}
        for command in json.loads((self.build / "compile_commands.json").read_text()):
            arguments = [a for a in shlex.split(command["command"]) if a not in ("-c", "-o", command["output"])]
            if f"engine_{self.isa}" not in command["output"] and "test_" not in command["output"]:
                continue
            done = subprocess.run(
                [*arguments, "-E"], cwd=command["directory"], check=True, capture_output=True, text=True
            )
            file, line = "", 0
            for text in done.stdout.splitlines():
                if marker := re.match(r'# (\d+) "([^"]*)"', text):
                    file, line = marker[2], int(marker[1])
                    continue
                if text.strip() and file.startswith(str(self.tree / "cpp")):
                    lines.setdefault(str(Path(file).relative_to(self.tree)), set()).add(line)
                line += 1
        return lines

    def sources(self) -> dict[str, str]:
        """Return the text of each source of the engine."""
        paths = [*self.tree.glob("cpp/include/jepa_ode/*.hpp"), *self.tree.glob("cpp/src/*.cpp")]
        return {str(path.relative_to(self.tree)): path.read_text() for path in sorted(paths)}

    def attempt(self, mutant: Mutant, source: str, known: Kills) -> tuple[str, str]:
        """Return the verdict on a mutant and the test that noticed; those that noticed others are asked first."""
        path = self.tree / mutant.file
        stat = path.stat()
        end = mutant.offset + len(mutant.before)
        path.write_text(source[: mutant.offset] + mutant.after + source[end:])
        try:
            for test in [*sorted(self._programs(), key=lambda t: _merit(known, mutant.file, t)), "python"]:
                target = [test] if test != "python" else []
                built = subprocess.run(["ninja", "-C", str(self.build), "-j1", *target], capture_output=True, text=True)
                if built.returncode:
                    noticed = "static assertion failed" in built.stdout
                    return ("killed", "static_assert") if noticed else ("invalid", "compiler")
                files = sorted(PYTHON_TESTS, key=lambda t: _merit(known, mutant.file, t))
                output = self._run(test, self.patience[test], files)
                if output is None:
                    continue
                failed = re.search(r"^(?:FAILED|ERROR) (\S+?\.py\S*)", output, re.MULTILINE)
                return "killed", (failed[1] if failed else test) + (" (hangs)" if output == "hangs" else "")
            return "survived", ""
        finally:
            path.write_text(source)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            self._restore()

    def _programs(self) -> list[str]:
        return [p.stem for p in sorted((self.tree / "tests" / "cpp").glob("test_*.cpp"))]

    def _restore(self) -> None:
        shutil.rmtree(self.build, ignore_errors=True)
        shutil.copytree(self.pristine, self.build, symlinks=True)

    def _run(self, test: str, patience: float, files: Sequence[str]) -> str | None:
        """Run a test; None where it passes, else its output."""
        environment = dict(os.environ, PYTHONPATH=str(self.package), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        command = [str(self.build / "tests" / "cpp" / test)]
        if test == "python":
            shutil.rmtree(self.package, ignore_errors=True)
            shutil.copytree(self.tree / "python", self.package)
            install = ["cmake", "--install", str(self.build), "--prefix", str(self.package)]
            subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
            hangs = ["--timeout", "100", "--timeout-method", "thread"]  # ends the session where a test does not end
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-x",
                "-q",
                "-k",
                NOT_ASKED,
                "-p",
                "no:cacheprovider",
                *hangs,
                *files,
            ]
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # noqa: E731
        with subprocess.Popen(
            command,
            cwd=self.tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=limit,
        ) as process:
            try:
                output, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return "hangs"
            return None if process.returncode == 0 else output


# --- the run ----------------------------------------------------------------------------------------------------------


class Run:
    """Mutants drawn one after another, each for the next workshop that is free."""

    def __init__(
        self, shops: Sequence[Workshop], path: Path, known: Mapping[Key, Result], options: argparse.Namespace
    ) -> None:
        self._shops, self._path, self._known, self._options = shops, path, known, options
        self._sources = shops[0].sources()
        self._drawn = draw(self._sources, shops[0].active_lines(), options.seed)
        self._kills = kills(known.values())
        self._tried: list[Result] = []
        self._lock = threading.Lock()

    def results(self) -> list[Result]:
        """Return what became of the first mutants, as many valid ones as asked for."""
        with ThreadPoolExecutor(len(self._shops)) as pool:
            list(pool.map(self._work, self._shops))
        return self._tried

    def _work(self, shop: Workshop) -> None:
        while (task := self._next()) is not None:
            mutant, result, known = task
            start = time.monotonic()
            result.verdict, result.by = shop.attempt(mutant, self._sources[mutant.file], known)
            result.seconds = round(time.monotonic() - start, 1)
            with self._lock, self._path.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
                print(f"{result.verdict} in {result.seconds} s: {result.sentence} {result.by}", flush=True)
                self._kills += kills([result])

    def _next(self) -> tuple[Mutant, Result, Kills] | None:
        """Return the next mutant to try, without verdict, and what was killed so far; those that are known are taken over."""
        with self._lock:
            while sum(r.verdict != "invalid" for r in self._tried) < self._options.count:
                mutant = next(self._drawn, None)
                if mutant is None:
                    break
                result = self._found(mutant)
                last = self._known.get(result.key)
                again = self._options.again and last is not None and last.verdict == "survived"
                if last is None or (again and last.sentence not in explained()):
                    self._tried.append(result)
                    return mutant, result, self._kills.copy()
                self._tried.append(last)
            return None

    def _found(self, mutant: Mutant) -> Result:
        text = self._sources[mutant.file]
        begin = text.rfind("\n", 0, mutant.offset) + 1
        source = text[begin : text.find("\n", mutant.offset)]
        column = mutant.offset - begin - (len(source) - len(source.lstrip()))
        number = text.count("\n", 0, mutant.offset) + 1
        return Result(mutant.file, number, source.strip(), mutant.before, mutant.after, column, "", "", 0.0)


def explained() -> str:
    """Return the page of mutants that may live."""
    return EXPLAINED.read_text() if EXPLAINED.exists() else ""


def report(results: Sequence[Result]) -> int:
    """Print the table and what survived; return the exit status."""
    page = explained()
    equivalents = page.partition(EQUIVALENT)[2].partition("\n## ")[0]
    valid = [r for r in results if r.verdict != "invalid"]
    for r in valid:
        if r.verdict == "survived" and r.sentence in equivalents:
            r.verdict = "equivalent"
    print(f"{'':10} {'file':34} {'line':>4}  change")
    for r in sorted(valid, key=lambda r: (r.file, r.line, r.column)):
        print(f"{r.verdict:10} {r.file:34} {r.line:>4}  {r.before} -> {r.after or 'nothing'}  {r.by}")
    count = Counter(r.verdict for r in valid)
    unexplained = [r for r in valid if r.verdict == "survived" and r.sentence not in page]
    told_apart = len(valid) - count["equivalent"]
    print(
        f"{len(valid)} mutants: {count['killed']} killed, {count['equivalent']} equivalent, {count['survived']} survive,"
        f" {len(unexplained)} of them unexplained; score: {count['killed'] / max(told_apart, 1):.1%}"
    )
    for r in unexplained:
        print(f"- {r.sentence}")
    return 1 if unexplained or count["killed"] < LEAST_KILLED * told_apart else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120, help="mutants to try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--isa", default="baseline", help="instruction set to compile for")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, each in a copy of its own")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--again", action="store_true", help="try those that survived unexplained once more")
    parser.add_argument("--report", action="store_true", help="try none, only report on those that were tried")
    options = parser.parse_args()
    path = options.folder / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {result.key: result for result in (Result(**json.loads(line)) for line in lines)}
    if options.report:
        return report(list(known.values()))

    folders = [options.folder.resolve() / str(k) for k in range(options.jobs)]
    shops = [Workshop(folder, options.isa) for folder in folders]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(Workshop.prepare, shops))
    return report(Run(shops, path, known, options).results())


if __name__ == "__main__":
    sys.exit(main())
