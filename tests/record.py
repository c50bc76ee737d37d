"""What tests measured of the properties of RELIABILITY.md: the worst value beside its pass mark, and on how many cases.

A test that bears a property out says so through the fixture `record`, which also fails it beyond the mark:

    record(1, "exact solver: E / eps_m", error / EPS, at_most=16)

With ``JEPA_ODE_RECORD`` set to a path, a session in which every test passed writes its records there, a line of JSON each;
``make campaign`` collects them, `tools/campaign_table.py` makes the table of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Records"]


class Records:
    """The records of a session, one for each property and quantity."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str], dict[str, Any]] = {}

    def __call__(
        self,
        number: int,
        quantity: str,
        value: Any,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        cases: int | None = None,
    ) -> None:
        """Note values (one case each, unless said otherwise) of a property's quantity and assert that the mark holds.

        Just one of ``at_most`` and ``at_least`` is the mark, the same at every call. NaN is beyond every mark.
        """
        assert 1 <= number <= 32 and (at_most is None) != (at_least is None)
        values = np.atleast_1d(np.asarray(value, dtype=float))
        count = values.size if cases is None else cases
        if not values.size:
            return
        worst = float(values.max() if at_least is None else values.min())  # NaN, where there is one
        mark = {"at_most": at_most} if at_least is None else {"at_least": at_least}
        row = self._rows.setdefault((number, quantity), {"worst": worst, **mark, "cases": 0})
        assert row.keys() >= mark.keys() and all(row[key] == mark[key] for key in mark), "a quantity has one mark"
        row["worst"] = max(worst, row["worst"]) if at_least is None else min(worst, row["worst"])
        row["cases"] += count
        holds = worst <= at_most if at_most is not None else at_least is not None and worst >= at_least
        assert holds, (
            f"property {number}, {quantity}: {worst:.6g} beyond the mark {at_most if at_least is None else at_least:g}"
        )

    def write(self, path: Path) -> None:
        """Write all records, a line each."""
        lines = [
            json.dumps({"property": number, "quantity": quantity, **row})
            for (number, quantity), row in self._rows.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
