"""Ctrl-C in a process of its own (RELIABILITY.md 25)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time


def assert_ctrl_c_ends(code: str, wait: float = 0.3) -> None:
    """Run code that prints "running", works without end, and then "interrupted" with the time and "next True"."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "running\n"
            time.sleep(wait)
            pressed = time.time()
            process.send_signal(signal.SIGINT)
            lines = process.communicate(timeout=20)[0].splitlines()
        finally:
            process.kill()
    assert lines[0].startswith("interrupted")
    assert float(lines[0].split()[1]) - pressed < 0.3
    assert lines[1] == "next True"
