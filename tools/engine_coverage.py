"""Which branches of the engine's sources the tests took: a table of files, from the counters below a folder.

    python tools/engine_coverage.py build/coverage --at-least 95

A branch is an outcome of a condition on a line; it counts once, taken if it was in any build and any instance of a template.
What the compiler adds for exceptions is none of the source: neither the edge on which a call throws nor its other one. That
gcov says which these are in its JSON, for code that never ran too, is why its text is not read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COUNTED = (ROOT / "cpp" / "include", ROOT / "cpp" / "src")

Line = tuple[Path, int]


def outcomes(branches: list[dict[str, Any]]) -> list[bool]:
    """Return for each outcome of a line's conditions whether it was taken."""
    kept: list[dict[str, Any]] = []
    for branch in branches:
        if not branch["throw"]:
            kept.append(branch)
        elif kept and kept[-1]["fallthrough"]:
            kept.pop()
    return [branch["count"] > 0 for branch in kept] if len(kept) > 1 else []


def instances(number: int, functions: list[dict[str, Any]]) -> int:
    """Return how many functions share the innermost body around a line: the instances of a lambda, which share one list too."""
    around = [(f["start_line"], f["start_column"]) for f in functions if f["start_line"] <= number <= f["end_line"]]
    return around.count(max(around)) if around else 1


def merged(lists: list[list[bool]]) -> list[bool]:
    """Return the outcomes of a line, each taken if it was in a copy."""
    return [any(each[k] for each in lists if k < len(each)) for k in range(max(map(len, lists)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="searched for what the compiler and the programs left")
    parser.add_argument("--at-least", type=float, default=95.0, help="percentage, below which this fails")
    options = parser.parse_args()
    copies: dict[Line, list[list[bool]]] = defaultdict(list)
    for counters in sorted(options.folder.resolve().rglob("*.gcda")):
        command = ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(counters)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=counters.parent)
        for entry in json.loads(done.stdout)["files"]:
            path = Path(entry["file"]).resolve()
            if not any(path.is_relative_to(folder) for folder in COUNTED):
                continue
            for line in entry["lines"]:
                found, number = outcomes(line["branches"]), line["line_number"]
                if found:
                    count = 1 if line.get("function_name") else instances(number, entry["functions"])
                    period = len(found) if len(found) % count else len(found) // count
                    copies[path, number] += [found[k : k + period] for k in range(0, len(found), period)]

    files: dict[Path, dict[int, list[bool]]] = defaultdict(dict)
    for (path, number), lists in sorted(copies.items()):
        files[path][number] = merged(lists)
    total = reached = 0
    print(f"{'file':42} {'branches':>8} {'taken':>6}        lines with others")
    for path, lines in files.items():
        count = sum(map(len, lines.values()))
        hits = sum(sum(known) for known in lines.values())
        total, reached = total + count, reached + hits
        missed = ", ".join(str(number) for number, known in lines.items() if not all(known))
        if count:
            print(f"{path.relative_to(ROOT)!s:42} {count:8} {hits:6} {100 * hits / count:5.1f}%  {missed}")
    share = 100 * reached / total if total else 0.0
    print(f"{'all':42} {total:8} {reached:6} {share:5.1f}%")
    return 0 if share >= options.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
