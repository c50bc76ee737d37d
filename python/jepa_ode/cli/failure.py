"""How the command line says what went wrong: one line on standard error."""

from __future__ import annotations

import sys

__all__ = ["fail", "one_line"]


def fail(message: str) -> int:
    """Say why, and return the exit code."""
    print(f"jepa-ode: error: {message}", file=sys.stderr)
    return 1


def one_line(error: Exception) -> str:
    """Return the message of an error without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    return " ".join(str(error).split())
