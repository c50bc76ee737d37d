"""``python -m jepa_ode`` is ``jepa-ode``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
