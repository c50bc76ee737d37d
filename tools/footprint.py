"""What a wheel weighs and what importing it costs: `make dist` runs this in the environment that holds nothing else.

    python tools/footprint.py dist/*.whl

Prints the sizes of the wheel and of its largest files, and how long importing the package takes beside NumPy, which it needs.
Fails beyond the size that the wheel may have, which a new file or a compiler's option may double unseen. Time is no reason to.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

LARGEST_WHEEL = 4.0  # MB; three instruction sets weigh 2.4
RUNS = 15


def import_time(statement: str) -> float:
    """Return the seconds that a fresh interpreter takes for a statement, the median of some runs, files in the cache."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", statement], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    size = wheel.stat().st_size / 1e6
    with zipfile.ZipFile(wheel) as archive:
        files = archive.infolist()
    unpacked = sum(file.file_size for file in files) / 1e6
    print(f"{wheel.name}: {size:.2f} MB (at most {LARGEST_WHEEL:g}), unpacked {unpacked:.2f} MB")
    for file in sorted(files, key=lambda file: -file.file_size)[:5]:
        print(f"  {file.file_size / 1e6:6.2f} MB  {Path(file.filename).name}")
    bare, numpy, package = (1e3 * import_time(statement) for statement in ("pass", "import numpy", "import jepa_ode"))
    print(f"import jepa_ode: {package - bare:.0f} ms, of which NumPy {numpy - bare:.0f} ms (medians of {RUNS})")
    return 1 if size > LARGEST_WHEEL else 0


if __name__ == "__main__":
    sys.exit(main())
