"""Packages that only some of the work needs: the extras of pyproject.toml."""

from __future__ import annotations

from importlib import import_module

__all__ = ["require"]


def require(package: str, who: str, extra: str) -> None:
    """Raise ImportError, with the command that helps, where a package or module is missing: ``who`` is "figures need"."""
    try:
        import_module(package)
    except ImportError as error:
        raise ImportError(f'{who} {package.partition(".")[0]}: pip install "jepa-ode[{extra}]"') from error
