"""Records fail beyond their mark, keep the worst, and become the table of the campaign."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from record import Records

TABLE = Path(__file__).resolve().parent.parent / "tools" / "campaign_table.py"


def test_beyond_the_mark_is_a_failure() -> None:
    record = Records()
    record(1, "error", [0.5, 1.0], at_most=1)
    record(2, "turns", 5, at_least=5)
    record(3, "of nothing", [], at_most=0)
    for beyond in ({"value": [0.5, 1.1], "at_most": 1}, {"value": float("nan"), "at_most": 1}):
        with pytest.raises(AssertionError, match=r"property 1, error: .* beyond the mark 1"):
            record(1, "error", **beyond)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="property 2, turns: 4 beyond the mark 5"):
        record(2, "turns", 4, at_least=5)
    with pytest.raises(AssertionError, match="one mark"):
        record(1, "error", 0.1, at_most=2)
    with pytest.raises(AssertionError):
        record(33, "error", 0.1, at_most=2)
    with pytest.raises(AssertionError):
        record(1, "no mark", 0.1)


def test_table_shows_the_worst_of_all_sessions_and_what_is_missing(tmp_path: Path) -> None:
    for k, value in enumerate((0.25, 0.75)):
        record = Records()
        record(1, "error", [value, 0.5], at_most=1)
        record(2, "turns", 5 + k, at_least=5, cases=1000)
        record.write(tmp_path / "records" / f"{k}.jsonl")
    lines = (tmp_path / "records" / "1.jsonl").read_text().splitlines()
    assert [json.loads(line)["cases"] for line in lines] == [2, 1000]
    done = subprocess.run(
        [sys.executable, TABLE, *sorted((tmp_path / "records").iterdir()), "--output", tmp_path / "table.md"],
        capture_output=True,
        text=True,
    )
    table = (tmp_path / "table.md").read_text()
    assert done.returncode == 1 and table == done.stdout
    assert "| 1 | Exact solver against 50 digits | error | 4 | 0.75 | at most 1 |" in table
    assert "| 2 | Runge-Kutta follows its tolerance | turns | 2,000 | 5 | at least 5 |" in table
    assert "| 3 | Order of each method | not measured |" in table
    assert done.stderr == f"without a record: {', '.join(map(str, range(3, 33)))}\n"
