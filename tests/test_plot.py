"""Figures take ``ax``, return it and leave everything else alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import jepa_ode as jo
from jepa_ode import plot
from jepa_ode.plot import style

LAM = np.array([1.0, 0.7, 0.5, 0.2, 0.0, -0.1])
SPEC = jo.Spectrum(LAM, sigma2=[1.1, 1.0, 1.0, 1.0, 1.0, 1.0], sigma2_y=1.0, duals=np.eye(6), directions=np.eye(6))
COV = jo.Covariances(np.diag(SPEC.sigma2), np.diag(LAM), np.eye(6))
SETTING = {"depth": 2, "eps": 0.05}
TIMES = {name: jo.critical_time(SPEC, name, **SETTING) for name in ("jepa", "mae")}
SOLUTION = jo.solve(SPEC, "jepa", **SETTING, t=np.geomspace(1.0, 1e4, 50))
FLOW = jo.gradient_flow(
    jo.LinearNetwork.balanced(6, **SETTING), COV, "mae", t=np.concatenate([[0.0], np.geomspace(0.1, 1e3, 50)])
)
CHECK = jo.compare_with_flow(FLOW)

FIGURES: dict[str, Callable[[Axes | None], Axes]] = {
    "spectrum": lambda ax: plot.plot_spectrum(SPEC, ax),
    "spectrum with errors": lambda ax: plot.plot_spectrum(_with_errors(), ax),
    "responses": lambda ax: plot.plot_responses(SOLUTION.t, SOLUTION.w, SPEC.rho, ax),
    "responses by lambda": lambda ax: plot.plot_responses(
        SOLUTION.t, SOLUTION.w, LAM, ax, by="lambda", xscale="linear"
    ),
    "solution": lambda ax: SOLUTION.plot(ax),
    "flow": lambda ax: FLOW.plot(ax),
    "order": lambda ax: plot.plot_order(TIMES["jepa"], TIMES["mae"], SPEC.rho, ax),
    "critical times": lambda ax: plot.plot_critical_times(
        {name: (times, 2 * times) for name, times in TIMES.items()}, SPEC.rho, ax
    ),
    "response map": lambda ax: plot.plot_response_map([0, 1, 5], FLOW.response[:, :3], ax),
    "response map, one step": lambda ax: plot.plot_response_map([4], FLOW.response[:, :1], ax, relative=True),
    "losses": lambda ax: plot.plot_losses(FLOW.t, FLOW.loss, "mae", ax, predicted=FLOW.loss),
    "overlap": lambda ax: plot.plot_overlap(jo.overlap(SPEC, **SETTING), ax),
    "overlap of pairs": lambda ax: plot.plot_overlap_pairs([0.5, 1.0], np.array([[0.0, 0.5], [0.5, 1.0]]), ax),
    "check": lambda ax: plot.plot_check({"mae": CHECK}, ax),
    "check responses": lambda ax: plot.plot_check_responses(CHECK, SPEC.rho, ax),
    "check final": lambda ax: plot.plot_check_final({"mae": CHECK}, ax),
    "delays": lambda ax: plot.plot_delays([0.1, 10.0], np.ones((2, 6)), {"theory": np.full(6, 2.0)}, SPEC.rho, ax),
    "rows": lambda ax: plot.plot_features(np.eye(6), [2, 0, 1], SPEC.rho, ax),
}


def _with_errors() -> jo.Spectrum:
    model = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.5], rho=[0.5, 0.9]))
    return jo.Covariances.from_pairs(*model.sample(200, rng=0)).spectrum()


@pytest.mark.parametrize("name", FIGURES)
def test_draws_on_the_axes_it_is_given(name: str) -> None:
    before = dict(mpl.rcParams)
    figure = Figure()
    ax = figure.add_subplot()
    assert FIGURES[name](ax) is ax
    assert ax.has_data()
    assert ax.get_xlabel()
    assert ax.get_ylabel() or name == "rows"
    figure.savefig("/dev/null", format="svg")  # drawing raises what building does not
    assert dict(mpl.rcParams) == before


def test_makes_its_own_axes_without_any() -> None:
    mpl.use("agg")
    from matplotlib import pyplot

    open_before = pyplot.get_fignums()
    ax = plot.plot_spectrum(SPEC)
    assert len(pyplot.get_fignums()) == len(open_before) + 1
    pyplot.close(ax.figure)


def test_images_in_the_order_given() -> None:
    ax = Figure().add_subplot()
    plot.plot_features(-np.eye(6), [4, 1], SPEC.rho, ax, image_shape=(2, 3))
    shown = [np.asarray(image.get_array()) for image in ax.images]
    assert [int(image.argmax()) for image in shown] == [4, 1]  # the largest entry is positive
    assert shown[0].shape == (2, 3)
    assert [text.get_text() for text in ax.texts][::2] == ["1.  #5", "2.  #2"]


def test_nothing_learned_is_said() -> None:
    ax = Figure().add_subplot()
    plot.plot_features(np.eye(6), [], SPEC.rho, ax)
    assert ax.texts[0].get_text() == "no feature is learned"
    never = np.full(6, np.inf)
    for draw in (
        lambda ax: plot.plot_order(never, never, SPEC.rho, ax),
        lambda ax: plot.plot_check({}, ax),
        lambda ax: plot.plot_overlap(jo.overlap(jo.Spectrum([0.0], sigma2=1.0), **SETTING), ax),
    ):
        figure = Figure()
        draw(figure.add_subplot())
        figure.savefig("/dev/null", format="svg")


@pytest.mark.parametrize(("palette", "values"), [(plot.rho_palette, SPEC.rho), (plot.lambda_palette, LAM)])
def test_palettes_are_ordered_and_grey_below_zero(palette: Callable[..., Any], values: Any) -> None:
    colormap, norm = palette(values)
    lightness = [sum(colormap(norm(value))[:3]) for value in (0.2, 0.5, 0.9)]
    assert lightness == sorted(lightness, reverse=True)
    red, green, blue, _ = colormap(norm(-0.1))
    assert red == green == blue


def test_missing_matplotlib_names_the_extra() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; import jepa_ode.plot"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip().endswith('ImportError: jepa_ode.plot needs matplotlib: pip install "jepa-ode[plot]"')


def test_many_curves_are_thin_and_see_through() -> None:
    widths = {}
    for n in (5, 80):
        ax = Figure().add_subplot()
        plot.plot_responses([1.0, 2.0], np.ones((n, 2)), np.linspace(0.1, 0.9, n), ax)
        (lines,) = ax.collections
        assert isinstance(lines, LineCollection)
        widths[n] = lines.get_linewidths()[0]
    assert widths[80] < widths[5]


def test_never_is_written_at_its_column() -> None:
    ax = Figure().add_subplot()
    plot.plot_order([1.0, 2.0, np.inf], [1.0, 2.0, 3.0], [0.9, 0.8, 0.1], ax)
    label = next(text for text in ax.texts if text.get_text() == "never by JEPA")
    column = float(np.asarray(ax.collections[0].get_offsets())[:, 0].max())
    assert label.get_position()[0] == column


def test_nothing_hides_hollow_markers() -> None:
    ax = plot.plot_check_final({"jepa": CHECK, "mae": CHECK}, Figure().add_subplot())
    jepa, mae = ax.lines[:2]
    assert jepa.get_markerfacecolor() == "none"
    assert jepa.get_zorder() > mae.get_zorder()
    ax = plot.plot_critical_times({"mae": (TIMES["mae"], TIMES["mae"])}, SPEC.rho, Figure().add_subplot())
    exact, leading = ax.lines
    assert leading.get_markerfacecolor() == "none"
    assert leading.get_zorder() > exact.get_zorder()


@pytest.mark.parametrize(("by", "palette"), [("rho", plot.rho_palette), ("lambda", plot.lambda_palette)])
def test_responses_have_the_colour_of_their_feature_and_the_dark_ones_are_on_top(
    by: Literal["rho", "lambda"], palette: Callable[..., Any]
) -> None:
    values = np.array([0.9, 0.2, 0.5])
    w = np.arange(6.0).reshape(3, 2) + 1
    ax = plot.plot_responses([0.0, 1.0], w, values, Figure().add_subplot(), by=by, xscale="linear")
    (lines,) = ax.collections
    assert isinstance(lines, LineCollection)
    colormap, norm = palette(values)
    for path, color, i in zip(lines.get_segments(), lines.get_colors(), np.argsort(values), strict=True):
        np.testing.assert_array_equal(path[:, 1], w[i])  # with t = 0, as the scale is linear
        np.testing.assert_allclose(color, colormap(norm(values[i])))


def test_a_logarithmic_time_leaves_out_zero_and_shows_all_else() -> None:
    ax = plot.plot_responses([0.0, 1.0, 100.0], [[9.0, 1.0, 2.0]], [0.5], Figure().add_subplot())
    (lines,) = ax.collections
    assert isinstance(lines, LineCollection)
    np.testing.assert_array_equal(lines.get_segments()[0], [[1.0, 1.0], [100.0, 2.0]])
    assert ax.get_xscale() == "log"
    low, high = ax.get_xlim()
    assert low <= 1.0 < 100.0 <= high
    assert ax.get_ylim()[1] >= 2.0


def test_objectives_differ_without_colour_and_jepa_shows_around_mae() -> None:
    looks = [plot.style.objective_look(name, hollow=hollow) for hollow in (False, True) for name in ("jepa", "mae")]
    assert len({(look["marker"], look["markerfacecolor"]) for look in looks}) == 4
    assert looks[0]["markersize"] > looks[1]["markersize"]
    (points,) = Figure().subplots().plot([1.0], [2.0], **looks[2], label="JEPA")
    assert points.get_markerfacecolor() == "none" and points.get_linestyle() == "None"


def test_response_map_scales_marks_and_clips() -> None:
    response = np.array([[0.1, 0.4, 0.8], [0.1, 0.1, 0.2], [0.0, 0.0, 0.0]])
    shown = {}
    for name, options in {"plain": {}, "relative": {"relative": True}, "clipped": {"largest": 0.5}}.items():
        figure = Figure()
        ax = plot.plot_response_map([0, 10, 20], response, figure.add_subplot(), learned=[5.0, 15.0, np.inf], **options)
        (image,) = ax.collections
        shown[name] = np.asarray(image.get_array()).reshape(3, 3).T, image.norm.vmax, figure.axes[1].get_ylabel()
        assert ax.lines[0].get_xdata().tolist() == [1, 2, 3]
        assert ax.get_ylim()[0] > ax.get_ylim()[1]
    np.testing.assert_array_equal(shown["plain"][0], response)
    np.testing.assert_allclose(shown["relative"][0].max(axis=1), [1.0, 1.0, 0.0])
    assert [vmax for _, vmax, _ in shown.values()] == [0.8, 1.0, 0.5]
    assert [label for _, _, label in shown.values()] == [
        "encoder response",
        "encoder response / its largest",
        "encoder response, clipped",
    ]


def test_strips_put_cases_beside_each_other() -> None:
    cases = [(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "k", marker, marker) for marker in "^v"]
    ax = style.draw_strips(Figure().add_subplot(), ["a", "b"], cases, "value")
    assert ax.get_ylabel() == "value"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]
    for line in ax.lines:
        assert line.get_ydata().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        assert np.round(line.get_xdata()).tolist() == [0, 0, 0, 1, 1, 1]
    assert max(ax.lines[0].get_xdata()[:3]) < min(ax.lines[1].get_xdata()[:3])
