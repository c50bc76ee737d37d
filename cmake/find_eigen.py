"""Where the Eigen headers of the build requirement are (cmake/Eigen.cmake runs this, build_backend.py imports it)."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def find_eigen() -> Path | None:
    """Return the folder that holds ``Eigen/Core`` and Eigen's licences, None without the requirement.

    The package is not imported: only its headers are wanted, and an import would need its own requirements.
    """
    spec = find_spec("eigency")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "eigen"
    return folder if (folder / "Eigen" / "Core").is_file() else None


if __name__ == "__main__":
    found = find_eigen()
    if found is None:
        sys.exit("the Python package that carries Eigen's headers is not installed")
    print(found.as_posix())
