"""The main job: from pairs of views to a report (`analyze`, then `write_report`)."""

from pathlib import Path

from .study import Analysis, Learning, Progress, Settings, analyze

__all__ = ["Analysis", "Learning", "Settings", "analyze", "write_report"]


def write_report(analysis: Analysis, folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Write ``report.html``, ``features.csv`` and ``analysis.json`` into ``folder`` and return the path of the first.

    The folder is made if it does not exist; files of these names in it are replaced.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    ImportError
        Without matplotlib (``pip install "jepa-ode[plot]"``).

    Examples
    --------
    >>> import tempfile
    >>> import jepa_ode as jo
    >>> from jepa_ode.report import analyze, write_report
    >>> model = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.9], rho=[0.5, 0.75]))
    >>> analysis = analyze(*model.sample(1000, rng=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(analysis, folder).name
    'report.html'
    """
    from .page import write_report as write  # needs matplotlib, which computing does not

    return write(analysis, folder, progress=progress)
