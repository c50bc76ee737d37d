"""The numbers of an analysis for other programs: a table of features (CSV) and everything else (JSON)."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import build_info
from .findings import findings
from .limits import diagnostic_sentences, limits

if TYPE_CHECKING:
    from .study import Analysis, Learning, Settings

__all__ = ["feature_table", "plain", "settings_as_dict", "summary", "versions", "write_csv", "write_json"]


def feature_table(analysis: Analysis) -> dict[str, np.ndarray[Any, Any]]:
    """Return the columns of the table, one row per feature in descending order of rho.

    Times are inf for features that are never learned, places are 0. What is not known is NaN:
    standard errors without samples, and flow times of features without a flow; a flow time is inf
    when the flow ends before the feature is learned.
    """
    spec, n = analysis.spectrum, len(analysis.spectrum)
    unknown = np.full(n, math.nan)
    stderr = {name: getattr(spec.diagnostic, f"{name}_stderr", None) for name in ("lam", "rho")}
    coupling = unknown if spec.diagnostic is None else spec.diagnostic.feature_coupling
    columns: dict[str, np.ndarray[Any, Any]] = {
        "feature": np.arange(1, n + 1),
        "lambda": spec.lam,
        "lambda_stderr": unknown if stderr["lam"] is None else stderr["lam"],
        "rho": spec.rho,
        "rho_stderr": unknown if stderr["rho"] is None else stderr["rho"],
        "sigma2": spec.sigma2,
        "coupling": coupling,
    }
    for name, learning in analysis.learnings.items():
        flow_time = unknown.copy()
        if learning.check.comparison is not None:
            flow_time[learning.check.features] = learning.check.comparison.integrated_time
        columns |= {
            f"{name}_place": learning.place,
            f"{name}_fixed_point": learning.fixed_point,
            f"{name}_critical_time": learning.critical_time,
            f"{name}_critical_time_leading": learning.leading_time,
            f"{name}_critical_time_flow": flow_time,
        }
    return columns


def write_csv(analysis: Analysis, path: Path) -> None:
    """Write the table of features; numbers round-trip."""
    columns = feature_table(analysis)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def write_json(analysis: Analysis, path: Path) -> None:
    """Write settings, summary, diagnostic, sentences, versions and run times; what is not finite becomes null."""
    path.write_text(json.dumps(plain(summary(analysis)), indent=2) + "\n", encoding="utf-8")


def summary(analysis: Analysis) -> dict[str, Any]:
    """Return everything but the table of features."""
    shared = analysis.overlap
    diagnostic = analysis.spectrum.diagnostic
    return {
        "settings": settings_as_dict(analysis.settings),
        "data": {
            "pairs": analysis.covariances.n_samples,
            "coordinates": len(analysis.covariances.Sxx),
            "features": analysis.n_total,
            "features_reported": len(analysis.spectrum),
            "features_clear": int(np.count_nonzero(analysis.resolved)),
        },
        "order_correlation": analysis.order_correlation if analysis.ranks else None,
        **{name: _learning(learning) for name, learning in analysis.learnings.items()},
        "overlap": {each.name: getattr(shared, each.name) for each in dataclasses.fields(shared)},
        "diagnostic": {}
        if diagnostic is None
        else {
            each.name: getattr(diagnostic, each.name)
            for each in dataclasses.fields(diagnostic)
            if not isinstance(getattr(diagnostic, each.name), np.ndarray)
        },
        "findings": {finding.topic: finding.text for finding in findings(analysis)},
        "diagnostic_in_words": diagnostic_sentences(analysis),
        "limits": limits(analysis),
        "versions": versions(),
        "seconds": analysis.seconds,
    }


def _learning(learning: Learning) -> dict[str, Any]:
    check = learning.check
    result: dict[str, Any] = {
        "objective": repr(learning.objective),
        "learned": learning.order.size,
        "order": learning.order + 1,
        "flow": None,
        "flow_note": check.note,
    }
    if check.flow is not None and check.comparison is not None:
        result["flow"] = {
            "status": check.flow.status.name,
            "method": check.flow.method,
            "evaluations": check.flow.nfev,
            "features": check.features.size,
            "t_end": check.flow.t[-1],
            "t": check.flow.t,
            "loss": check.flow.loss,
            "loss_predicted": check.loss,
            "features_compared": check.comparison.compared,
            "order_correlation": check.comparison.order_correlation if check.comparison.ranks else None,
            "median_relative_error": check.comparison.median_error,
            "largest_relative_error": check.comparison.max_error,
            "largest_final_error": check.comparison.final_error,
            "coupling": check.comparison.assumptions.total_coupling,
            "imbalance_of_the_start": check.comparison.assumptions.imbalance,
            "misalignment_of_the_start": check.comparison.assumptions.misalignment.max(),
            "departures_from_the_theory": check.comparison.assumptions.departures,
            "features_learned_unexpectedly": check.features[check.comparison.unexpected] + 1,
            "ended_by_budget": check.cut,
        }
    return result


def settings_as_dict(settings: Settings) -> dict[str, Any]:
    """Return the settings by name, objectives as they would be typed."""
    return {
        each.name: repr(value) if each.name in ("jepa", "mae") else value
        for each in dataclasses.fields(settings)
        for value in (getattr(settings, each.name),)
    }


def versions() -> dict[str, str]:
    """Return what ran: package, engine, Python, NumPy."""
    info = build_info()
    return {
        "jepa_ode": str(info["version"]),
        "instruction set": str(info["isa"]),
        "compiler": str(info["compiler"]),
        "Eigen": str(info["eigen"]),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    }


def plain(value: Any) -> Any:
    """Return ``value`` as JSON knows it."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
