"""What does the first call in a fresh process cost beyond the import?

100 features at 200 times. Each round is a process of its own; the answer is checked after the clock has stopped.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import measure
from workload import W1

Record = dict[str, Any]
SCRIPT = """
import json, sys, time
begin = time.perf_counter()
import numpy as np
numpy_imported = time.perf_counter()
import jepa_ode as jo
imported = time.perf_counter()
n, objective, depth, eps, method, horizon = json.loads(sys.argv[1])
rho = np.linspace(0.3, 0.95, n)
spec = jo.Spectrum(np.geomspace(0.2, 2, n), rho=rho)
t = np.linspace(0, horizon, 200)
start = time.perf_counter()
first = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method=method)
done = time.perf_counter()
second = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method=method)
again = time.perf_counter()
other = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method="exact" if method != "exact" else "dop853")
assert np.array_equal(first.w, second.w) and np.abs(other.w / first.w - 1).max() < 1e-3
print(json.dumps([numpy_imported - begin, imported - numpy_imported, done - start, again - done]))
"""
HORIZON = 100.0


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, features=100)
    options = parser.parse_args()
    records: list[Record] = []
    for case in W1:
        for method in ("exact", "dop853"):
            given = json.dumps([options.features, case.objective, case.depth, case.eps, method, HORIZON])
            runs = []
            for _ in range(options.rounds + 1):
                done = subprocess.run(
                    [sys.executable, "-c", SCRIPT, given], stdout=subprocess.PIPE, text=True, check=True
                )
                runs.append(json.loads(done.stdout))
            numpy, ours, first, second = (1e3 * statistics.median(column) for column in zip(*runs[1:], strict=True))
            records.append(
                {
                    "case": str(case),
                    "features": options.features,
                    "method": method,
                    "import numpy, ms": numpy,
                    "import jepa_ode, ms": ours,
                    "first call, ms": first,
                    "second call, ms": second,
                    "rounds": options.rounds,
                }
            )
    columns = ("case", "method", "import numpy, ms", "import jepa_ode, ms", "first call, ms", "second call, ms")
    table = measure.markdown(columns, [[record[column] for column in columns] for record in records])
    measure.write(options.output, "first_call", records, table)


if __name__ == "__main__":
    main()
