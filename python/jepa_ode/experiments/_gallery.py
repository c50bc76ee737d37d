"""The gallery: one HTML file with figures, settings, verdicts and run times, and nothing from outside."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.markup import as_text, items, resource, table_of
from ..report.numbers import versions

if TYPE_CHECKING:
    from ._reproduce import Outcome

__all__ = ["write_gallery"]


def write_gallery(
    outcomes: Sequence[Outcome], sources: Mapping[str, str], path: Path, *, fast: bool, seed: int
) -> None:
    """Write the page of these outcomes, whose figures are ``sources`` by name."""
    template = resources.files(__package__).joinpath("gallery.html").read_text(encoding="utf-8")
    held = sum(outcome.holds for outcome in outcomes)
    facts = (
        f"{held} of {len(outcomes)} claims hold. {'Fast versions' if fast else 'Full versions'}, seed {seed}, "
        f"{_duration(sum(outcome.seconds for outcome in outcomes))} together."
    )
    page = Template(template).substitute(
        style=resource("style.css"),
        facts=facts,
        overview="\n".join(_row(outcome) for outcome in outcomes),
        sections="\n".join(_section(outcome, sources.get(outcome.name)) for outcome in outcomes),
        versions=table_of("What ran", versions()),
    )
    path.write_text(page, encoding="utf-8")


def _verdict(outcome: Outcome) -> str:
    return f'<span class="verdict {"yes" if outcome.holds else "no"}">{outcome.verdict}</span>'


def _row(outcome: Outcome) -> str:
    about = outcome.about
    title = f'<a href="#{outcome.name}">{about.number}. {as_text(about.title)}</a>'
    cells = (title, as_text(about.claim), _verdict(outcome), _duration(outcome.seconds))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _section(outcome: Outcome, source: str | None) -> str:
    about, result = outcome.about, outcome.result
    parts = [
        f'<section id="{outcome.name}">',
        f"<h2>{about.number}. {as_text(about.title)} {_verdict(outcome)}</h2>",
        f'<p class="claim">{as_text(about.claim)}</p>',
    ]
    if source is not None:
        width = 100 * result.size[0] if result is not None else 1100  # wider would only blow it up
        image = f'<img alt="{html.escape(about.title)}" src="{source}">'
        parts.append(f'<figure style="max-width: {width:.0f}px">{image}</figure>')
    if result is None:
        parts.append(f"<p>The experiment broke: <code>{html.escape(outcome.error)}</code></p>")
    else:
        parts.append(f"<ul>\n{items(str(each) for each in result.verdicts())}\n</ul>")
        setting = {name: _value(value) for name, value in result.setting.items()}
        parts.append(
            f'<details><summary>Setting</summary><div class="columns">'
            f"{table_of(f'{outcome.name}, {_duration(outcome.seconds)}', setting)}</div></details>"
        )
    return "\n".join([*parts, "</section>"])


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return ", ".join(_value(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
