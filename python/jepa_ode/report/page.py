"""The page: one HTML file that needs nothing else, no script and no network."""

from __future__ import annotations

import html
import math
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from .figures import ReportFigure, Section, draw_sections
from .findings import findings
from .limits import diagnostic_sentences, limits
from .markup import as_text, items, resource, table_of
from .numbers import feature_table, settings_as_dict, versions, write_csv, write_json
from .words import number

if TYPE_CHECKING:
    from .study import Analysis, Progress

__all__ = ["render", "write_report"]


def write_report(analysis: Analysis, folder: str | Path, *, progress: Progress | None = None) -> Path:
    """Write the files of the report; see `jepa_ode.report.write_report`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(analysis, folder / "features.csv")
    write_json(analysis, folder / "analysis.json")
    path = folder / "report.html"
    path.write_text(render(analysis, progress=progress), encoding="utf-8")
    return path


def render(analysis: Analysis, *, progress: Progress | None = None) -> str:
    """Return the page."""
    sections = []
    for section in draw_sections(analysis):
        sections.append(_section(section))
        if progress is not None:
            progress("figures", len(sections) / 6)
    settings = analysis.settings
    shown = len(analysis.spectrum)
    facts = (
        f"{analysis.covariances.n_samples:,} pairs of {len(analysis.covariances.Sxx)} coordinates from {settings.source}; "
        f"views: {settings.views}; encoder of depth {settings.depth:g}, started at a response of {settings.eps:g}."
    )
    page = Template(resource("template.html")).substitute(
        title=html.escape(f"What JEPA and MAE learn from {settings.source}"),
        style=resource("style.css"),
        facts=as_text(facts),
        findings="\n".join(f"<li><b>{each.topic}.</b> {as_text(each.text)}</li>" for each in findings(analysis)),
        sections="\n".join(sections),
        table_text=as_text(
            f"All {shown} features, in descending order of rho; t* exact, by the leading order, and in the network's flow. "
            f"A dash: never learned. An empty cell: the flow ended before, or did not hold the feature."
        ),
        table=_times_table(analysis),
        diagnostic=items(diagnostic_sentences(analysis)),
        limits=items(limits(analysis) or ["Nothing: no feature is vague, cut off or left out."]),
        settings=_settings(analysis),
    )
    if progress is not None:
        progress("figures", 1.0)
    return page


def _section(section: Section) -> str:
    few = " few" if len(section.figures) == 1 else ""
    figures = "\n".join(_figure(figure) for figure in section.figures)
    return (
        f'<section id="{section.name}">\n<h2>{as_text(section.title)}</h2>\n<p>{as_text(section.text)}</p>\n'
        f'<div class="figures{few}">\n{figures}\n</div>\n</section>'
    )


def _figure(figure: ReportFigure) -> str:
    return (
        f'<figure>\n<h3>{as_text(figure.title)}</h3>\n<img alt="{html.escape(figure.title)}" src="{figure.source}">\n'
        f"<figcaption>{as_text(figure.caption)}</figcaption>\n</figure>"
    )


def _times_table(analysis: Analysis) -> str:
    columns = feature_table(analysis)
    flow = {name: learning.check.comparison is not None for name, learning in analysis.learnings.items()}
    heads = ["#", "&lambda;", "&rho;"]
    for name, label in (("jepa", "JEPA"), ("mae", "MAE")):
        heads += [f"{label} place", f"{label} <i>t</i>*", "leading"] + ["flow"] * flow[name]
    rows = []
    for i in range(len(analysis.spectrum)):
        cells = [str(columns["feature"][i]), number(columns["lambda"][i]), number(columns["rho"][i])]
        for name in ("jepa", "mae"):
            place = columns[f"{name}_place"][i]
            learned = place > 0
            cells.append(str(place) if learned else "&ndash;")
            cells.append(_time(columns[f"{name}_critical_time"][i], "&ndash;"))
            cells.append(_time(columns[f"{name}_critical_time_leading"][i], "&ndash;") if learned else "&ndash;")
            if flow[name]:
                cells.append(_time(columns[f"{name}_critical_time_flow"][i], "") if learned else "&ndash;")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>"


def _time(value: float, never: str) -> str:
    return number(value) if math.isfinite(value) else never


def _setting(name: str, value: Any) -> str:
    """Return a setting as one would say it."""
    if value is None:
        return {"threads": "all CPUs", "image_shape": "not images"}.get(name, "none")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(str(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(analysis: Analysis) -> str:
    seconds = {name: f"{value:.2f} s" for name, value in analysis.seconds.items()}
    seconds["together"] = f"{sum(analysis.seconds.values()):.2f} s"
    groups: dict[str, dict[str, Any]] = {
        "Settings": {
            name.replace("_", " "): _setting(name, value)
            for name, value in settings_as_dict(analysis.settings).items()
            if value != ""
        },
        "Versions": versions(),
        "Run time": seconds,
    }
    return "\n".join(table_of(group, values) for group, values in groups.items())
