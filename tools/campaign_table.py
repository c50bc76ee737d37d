"""Make the campaign's table of the records of its stages: every property of RELIABILITY.md, worst value beside pass mark.

    python tools/campaign_table.py build/campaign/*.jsonl --output docs/tables/campaign.md

Fails where a property has no record.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from jepa_ode import build_info

PROPERTIES = {
    1: "Exact solver against 50 digits",
    2: "Runge-Kutta follows its tolerance",
    3: "Order of each method",
    4: "Three routes, one answer",
    5: "Round trip of time and response",
    6: "Extremes of all inputs",
    7: "Scaling of lambda, sigma2 and time",
    8: "Scaling of rho and eps",
    9: "MAE of growing depth approaches JEPA of depth 1",
    10: "Monotone, never past the fixed point, no crossing",
    11: "Semigroup",
    12: "Denser output moves nothing",
    13: "Loss of the MAE flow never rises",
    14: "A feature's result is its own",
    15: "Instruction sets agree",
    16: "Conserved quantities of the matrix flow",
    17: "Matrix flow reduces to the scalar equations",
    18: "Equivariance under rotations",
    19: "Collapse without stop-gradient, none with it",
    20: "Gradients",
    21: "Arrays of every kind",
    22: "Bad input",
    23: "Pickle and copy",
    24: "Results outlive inputs, nothing leaks",
    25: "Ctrl-C",
    26: "Other threads run",
    27: "Fork, forkserver, spawn",
    28: "Memory",
    29: "Floating-point environment",
    30: "Sanitizers",
    31: "What the modules hold and export",
    32: "Killed workers of a sweep",
}


def merged(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one record for each property and quantity, in order, the worst value and all cases of those given."""
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault((record["property"], record["quantity"]), record)
        if row is not record:
            worst = min if "at_least" in row else max
            row["worst"] = worst(row["worst"], record["worst"])
            row["cases"] += record["cases"]
    return [rows[key] for key in sorted(rows)]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, and what it was measured on."""
    info = build_info()
    lines = ["| | property | quantity | cases | worst | pass mark |", "|--:|---|---|--:|--:|--:|"]
    for number, name in PROPERTIES.items():
        label, title = str(number), name
        for row in (row for row in rows if row["property"] == number):
            mark = f"at most {row['at_most']:g}" if "at_most" in row else f"at least {row['at_least']:g}"
            lines.append(f"| {label} | {title} | {row['quantity']} | {row['cases']:,} | {row['worst']:.3g} | {mark} |")
            label = title = ""
        if label:
            lines.append(f"| {label} | {title} | not measured | | | |")
    lines += ["", f"jepa_ode {info['version']}, {info['isa']}, {info['compiler']}, {date.today()}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+", help="files with a record per line")
    parser.add_argument("--output", type=Path, help="write the table there too")
    options = parser.parse_args()
    rows = merged(json.loads(line) for path in options.records for line in path.read_text().splitlines())
    text = table(rows)
    print(text, end="")
    if options.output:
        options.output.write_text(text)
    missing = sorted(PROPERTIES.keys() - {row["property"] for row in rows})
    if missing:
        print(f"without a record: {', '.join(map(str, missing))}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
