"""The main job: from pairs of views to a report (`analyze`, then `write_report`)."""

from pathlib import Path

from .study import Analysis, Learning, Progress, Settings, analyze

__all__ = ["Analysis", "Learning", "Settings", "analyze", "write_report"]


def write_report(analysis: Analysis, folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Write the report of an analysis; see `jepa_ode.report.page.write_report`."""
    from .page import write_report as write  # needs matplotlib, which computing does not

    return write(analysis, folder, progress=progress)
