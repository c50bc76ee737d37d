"""How much the tests try: a little on every change, a lot in a campaign (`make campaign`).

A campaign runs what is marked ``campaign`` too, and every hypothesis test with ``JEPA_ODE_EXAMPLES`` examples.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from record import Records

CAMPAIGN_EXAMPLES = int(os.environ.get("JEPA_ODE_EXAMPLES", "0"))

settings.register_profile(
    "ci",
    max_examples=25,
    deadline=None,
    derandomize=True,  # a change fails for its own fault only
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "campaign",
    max_examples=CAMPAIGN_EXAMPLES or 1,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("campaign" if CAMPAIGN_EXAMPLES else "ci")


def case_count(ci: int, campaign: int) -> int:
    """Return how many cases a test with its own loop should draw: ``ci`` of them, or ``campaign`` in a campaign."""
    return campaign if CAMPAIGN_EXAMPLES else ci


collect_ignore = ["fuzz"]  # a program of its own: `make fuzz`

# A shell without job control starts what runs in the background with Ctrl-C ignored, and children inherit that: those of the
# tests are to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_RECORDS = Records()


@pytest.fixture(scope="session")
def record() -> Records:
    """Note what was measured of a property of RELIABILITY.md: `record.Records`."""
    return _RECORDS


def pytest_sessionfinish(exitstatus: int) -> None:
    path = os.environ.get("JEPA_ODE_RECORD")
    if path and exitstatus == pytest.ExitCode.OK:
        _RECORDS.write(Path(path))
