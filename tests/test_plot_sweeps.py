"""Figures of sweeps: every cell at its place, what has no value said, scales that fit the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyQuadMesh, QuadMesh
from matplotlib.colors import LogNorm, SymLogNorm
from matplotlib.figure import Figure

import jepa_ode as jo
from jepa_ode import plot
from jepa_ode.plot.sweep_axis import as_sweep_axis
from jepa_ode.sweeps import CellStatus, Trouble

xarray = pytest.importorskip("xarray")
pytest.importorskip("threadpoolctl")

DEPTHS, STARTS = [1, 2, 3], np.geomspace(1e-4, 1e-1, 4)


def result(*, depth: int, eps: float) -> Any:
    """Fail in one cell, be in trouble in another, have nothing in a third."""
    if depth == 2 and eps > 0.05:
        raise ValueError("too large")
    value = {"v": np.nan if depth == 1 and eps > 0.05 else depth + eps}
    return Trouble(value, "hard") if depth == 3 and eps < 2e-4 else value


FOUND = jo.sweep({"depth": DEPTHS, "eps": STARTS}, result)


def unfinished() -> Any:
    """Return the sweep as if it had been killed before the status of its first cell was written."""
    data = FOUND.copy(deep=True)
    data.status[0, 0] = CellStatus.NOT_RUN
    return data


def made(values: Any, dims: dict[str, Any], status: Any = None, name: str = "v") -> Any:
    """Return a dataset as a sweep does."""
    values = np.asarray(values, dtype=float)
    shape = values.shape if status is None else np.shape(status)
    state = np.zeros(shape, dtype=np.int8) if status is None else np.asarray(status, dtype=np.int8)
    names = list(dims)
    coordinates = {dim: labels for dim, labels in dims.items() if labels is not None}
    return xarray.Dataset(
        {
            name: (names, values),
            "status": (names[: state.ndim], state),
            "message": (names[: state.ndim], state.astype(str)),
        },
        coords=coordinates,
    )


def axes() -> Axes:
    """Return the axes of a new figure."""
    return Figure().add_subplot()


def finish(ax: Axes) -> Axes:
    """Draw the figure: this raises what building does not."""
    ax.figure.savefig("/dev/null", format="svg")
    return ax


def key_of(ax: Axes) -> list[str]:
    """Return the texts below or beside the axes."""
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def mesh_of(ax: Axes) -> QuadMesh:
    """Return the cells with values."""
    return next(each for each in ax.collections if isinstance(each, QuadMesh))


def hatched(ax: Axes) -> dict[str, int]:
    """Return the number of cells with each hatch."""
    return {str(each.get_hatch()): len(each.get_paths()) for each in ax.collections if isinstance(each, PolyQuadMesh)}


class TestMap:
    def test_cells_are_where_their_parameters_are(self) -> None:
        ax = axes()
        assert plot.plot_sweep_map(FOUND, "v", ax) is ax
        shown = mesh_of(finish(ax))
        np.testing.assert_array_equal(np.ma.filled(shown.get_array(), np.nan), FOUND.v.values)
        edges = shown.get_coordinates()
        np.testing.assert_allclose(edges[0, :, 0], np.geomspace(1e-4, 1e-1, 4)[0] * 10.0 ** np.arange(-0.5, 4))
        np.testing.assert_allclose(edges[:, 0, 1], [0.5, 1.5, 2.5, 3.5])
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
        assert (ax.get_xlabel(), ax.get_ylabel()) == (r"start $\epsilon = w(0)$", "depth $L$")
        assert ax.get_yticks().tolist() == DEPTHS
        assert [each.get_ylabel() for each in ax.figure.axes[1:]] == ["v"]
        np.testing.assert_allclose(ax.get_xlim(), edges[0, [0, -1], 0])

    def test_axes_can_be_chosen_and_values_need_not_ascend(self) -> None:
        data = made([[1, 2], [3, 4], [5, 6]], {"a": [3.0, 1.0, 2.0], "b": [20.0, 10.0]})
        shown = mesh_of(plot.plot_sweep_map(data, "v", axes(), x="a", y="b", colorbar=False))
        np.testing.assert_array_equal(shown.get_array(), [[4, 6, 2], [3, 5, 1]])
        assert len(shown.axes.figure.axes) == 1
        np.testing.assert_array_equal(
            mesh_of(plot.plot_sweep_map(data, "v", axes(), y="b")).get_array(), shown.get_array()
        )

    def test_what_has_no_value_is_hatched_by_its_reason(self) -> None:
        ax = finish(plot.plot_sweep_map(unfinished(), "v", axes()))
        assert key_of(ax) == [
            "failed (1 cell)",
            "not run (1 cell)",
            "without a finite value (1 cell)",
            "numerical trouble (1 cell)",
        ]
        assert hatched(ax) == {"xxx": 1, "...": 1, "///": 1}
        (cross,) = ax.lines
        assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (1e-4, 3)
        below = ax.get_legend()
        assert below is not None
        assert below.get_window_extent().y1 < ax.get_window_extent().y0  # not on the data

    def test_nothing_is_hatched_where_all_is_well(self) -> None:
        ax = plot.plot_sweep_map(FOUND.isel(eps=slice(1, 3)), "v", axes())
        assert hatched(ax) == {} and key_of(ax) == []

    def test_nothing_at_all(self) -> None:
        ax = finish(plot.plot_sweep_map(made(np.full((2, 2), np.nan), {"a": [1, 2], "b": [1, 2]}), "v", axes()))
        assert hatched(ax) == {"///": 4}

    def test_correlations_are_centred_at_zero_and_read_in_grey(self) -> None:
        data = made([[0.9, 0.2, -0.4], [0.5, -0.2, -0.8]], {"a": [1, 2], "b": [1, 2, 3]})
        ax = finish(plot.plot_sweep_map(data, "v", axes()))
        shown = mesh_of(ax)
        assert shown.get_clim() == (-1.0, 1.0)
        lightness = shown.get_cmap()(np.linspace(0, 1, 9))[:, :3] @ [0.299, 0.587, 0.114]
        assert (np.diff(lightness) > 0).all()
        assert key_of(ax) == ["zero"]
        (zero,) = [each for each in ax.collections if not isinstance(each, QuadMesh)]
        place = zero.get_paths()[0].vertices
        np.testing.assert_allclose(place[np.isclose(place[:, 1], 1), 0], 2 + 0.2 / 0.6)

    @pytest.mark.parametrize("values", [[[1, 2], [3, 4]], [[-5, 2], [3, 4]], [[-0.001, 0.2], [0.3, 0.4]]])
    def test_other_values_are_dark_where_large(self, values: Any) -> None:
        shown = mesh_of(finish(plot.plot_sweep_map(made(values, {"a": [1, 2], "b": [1, 2]}), "v", axes())))
        assert shown.get_clim() == (np.min(values), np.max(values))
        lightness = shown.get_cmap()(np.linspace(0, 1, 9))[:, :3] @ [0.299, 0.587, 0.114]
        assert (np.diff(lightness) < 0).all()

    def test_values_over_decades_have_a_logarithmic_scale(self) -> None:
        ax = finish(plot.plot_sweep_map(made([[1, 10], [100, 1e4]], {"a": [1, 2], "b": [1, 2]}), "v", axes()))
        assert isinstance(mesh_of(ax).norm, LogNorm)
        ax = finish(plot.plot_sweep_map(made([[0, 10], [100, 1e5]], {"a": [1, 2], "b": [1, 2]}), "v", axes()))
        norm = mesh_of(ax).norm
        assert isinstance(norm, SymLogNorm)
        assert (norm.vmin, norm.linthresh, norm.vmax) == (0.0, 10.0, 1e5)

    def test_median_over_a_dimension(self) -> None:
        values = np.array([[[1.0, 2.0, 9.0], [np.nan, 3.0, 5.0]], [[np.nan] * 3, [np.inf, np.inf, 1.0]]])
        status = np.zeros((2, 2, 3))
        status[0, 1, 0], status[1, 0] = CellStatus.FAILED, [0, CellStatus.NOT_RUN, CellStatus.FAILED]
        data = made(values, {"a": [1, 2], "b": [1, 2], "seed": [0, 1, 2]}, status)
        ax = finish(plot.plot_sweep_map(data, "v", axes(), over="seed"))
        np.testing.assert_array_equal(np.ma.filled(mesh_of(ax).get_array(), -1), [[2, 4], [-1, -1]])
        assert key_of(ax) == [
            "failed (1 cell)",
            "without a finite value (1 cell)",
            "1 cell without some of the values over seed",
        ]
        assert ax.figure.axes[1].get_ylabel() == "v\nmedian over seed"

    def test_one_value_everywhere(self) -> None:
        for value, limits in ((0.0, (0.0, 1.0)), (2.0, (0.0, 2.0)), (-3.0, (-3.0, 1.0))):
            ax = finish(plot.plot_sweep_map(made(np.full((2, 2), value), {"a": [1, 2], "b": [1, 2]}), "v", axes()))
            norm = mesh_of(ax).norm
            assert (norm.vmin, norm.vmax) == limits

    def test_medians_of_fewer_values_are_said(self) -> None:
        status = np.zeros((2, 2, 3))
        status[0, 0, :2] = CellStatus.NOT_RUN
        data = made(np.ones((2, 2, 3)), {"a": [1, 2], "b": [1, 2], "seed": [0, 1, 2]}, status)
        ax = finish(plot.plot_sweep_map(data, "v", axes(), over="seed"))
        assert key_of(ax) == ["1 cell without some of the values over seed"]

    def test_labels_of_ready_tasks_are_theirs(self) -> None:
        data = made([[1.0, 2], [3, 4]], {"depth": [1, 2], "b": [1, 2]}).rename(v="learned")
        ready = "share of the features that is learned"
        for task, label in (("mine.count", "learned"), ("jepa_ode.sweeps.tasks.selection", ready)):
            ax = finish(plot.plot_sweep_map(data.assign_attrs(task=task), "learned", axes()))
            assert ax.figure.axes[1].get_ylabel() == label
            assert ax.get_ylabel() == "depth $L$"

    def test_categories(self) -> None:
        names = ["linear", "a long name of something", "another long name of something"]
        data = made(np.arange(6).reshape(2, 3), {"objective": ["jepa", "mae"], "kind": names})
        ax = finish(plot.plot_sweep_map(data, "v", axes()))
        assert [text.get_text() for text in ax.get_xticklabels()] == names
        assert [text.get_text() for text in ax.get_yticklabels()] == ["jepa", "mae"]
        assert {text.get_rotation() for text in ax.get_xticklabels()} == {30.0}
        np.testing.assert_allclose(ax.get_xlim(), [-0.5, 2.5])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"x": "c"}, "x must be one of a, b, seed, got 'c'"),
            (
                {"x": "a", "y": "b"},
                "v depends on seed too (3 values): choose one, data.sel(seed=...) or isel, or summarise",
            ),
            ({"x": "a", "y": "a", "over": "seed"}, "x, y, hue and over must be different dimensions, got a, a, seed"),
            ({"over": "c"}, "over must be one of a, b, seed, got 'c'"),
        ],
    )
    def test_what_is_wrong(self, options: dict[str, Any], message: str) -> None:
        data = made(np.zeros((2, 2, 3)), {"a": [1, 2], "b": [1, 2], "seed": [0, 1, 2]})
        with pytest.raises(ValueError) as caught:
            plot.plot_sweep_map(data, "v", axes(), **options)
        assert message in str(caught.value)


@pytest.mark.parametrize("draw", [plot.plot_sweep_map, plot.plot_sweep_lines])
def test_what_both_refuse(draw: Callable[..., Axes]) -> None:
    with pytest.raises(ValueError, match=r"^variable must be one of v, got 'message'$"):
        draw(FOUND, "message", axes())
    with pytest.raises(ValueError, match=r"^(a map needs two dimensions|lines need a dimension), v has none$"):
        draw(FOUND.isel(depth=0, eps=0), "v", axes())
    other = FOUND.assign(w=("feature", np.zeros(3)))
    with pytest.raises(ValueError, match=r"^w does not depend on depth; it does on feature$"):
        draw(other, "w", axes(), x="depth", y="feature") if draw is plot.plot_sweep_map else draw(
            other, "w", axes(), x="depth", hue="feature"
        )


class TestLines:
    def test_a_line_for_each_value(self) -> None:
        ax = axes()
        assert plot.plot_sweep_lines(FOUND, "v", ax, x="eps") is ax
        finish(ax)
        lines = [line for line in ax.lines if line.get_linestyle() != "None"]
        for line, expected in zip(lines, FOUND.v.values, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), STARTS)
            np.testing.assert_array_equal(line.get_ydata(), expected)
        looks = [(line.get_linestyle(), line.get_marker()) for line in lines]
        assert len(set(looks)) == 3  # told apart without colours
        assert ax.get_xscale() == "log"
        assert ax.get_ylabel() == "v"
        assert key_of(ax) == ["1 cell failed", "numerical trouble"]
        hollow = [line for line in ax.lines if line.get_linestyle() == "None" and line.get_xdata().size]
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in hollow] == [(1e-4, 3 + 1e-4)]
        assert {line.get_markerfacecolor() for line in hollow} == {"white"}

    def test_legends_are_beside_and_below(self) -> None:
        ax = finish(plot.plot_sweep_lines(unfinished(), "v", axes(), x="eps"))
        below = ax.get_legend()
        beside = next(each for each in ax.get_children() if type(each).__name__ == "Legend" and each is not below)
        assert below is not None
        box = ax.get_window_extent()
        assert beside.get_window_extent().x0 > box.x1
        assert below.get_window_extent().y1 < box.y0
        assert not beside.get_clip_on()
        assert [text.get_text() for text in beside.get_texts()] == ["1", "2", "3"]
        assert beside.get_title().get_text() == "depth $L$"
        assert key_of(ax) == ["1 cell failed", "1 cell not run", "numerical trouble"]

    def test_the_axis_shows_all_of_the_sweep(self) -> None:
        ax = finish(plot.plot_sweep_lines(FOUND.sel(depth=2), "v", axes()))
        low, high = ax.get_xlim()
        assert low < 1e-4
        assert high > 0.1

    def test_median_and_band(self) -> None:
        values = np.random.default_rng(0).normal(size=(3, 11))
        values[1] = np.nan
        values[2, :4] = np.nan
        data = made(values, {"a": [1, 2, 3], "seed": np.arange(11)})
        ax = finish(plot.plot_sweep_lines(data, "v", axes(), over="seed"))
        middle = ax.lines[0].get_ydata()
        np.testing.assert_allclose(middle, [np.median(values[0]), np.nan, np.median(values[2, 4:])])
        (band,) = ax.collections
        ends = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([ends.min(), ends.max()], np.quantile(values[0], [0.1, 0.9]))
        assert key_of(ax) == ["10th to 90th percentile over seed, of up to 11 values"]
        assert ax.get_ylabel() == "v\nmedian over seed"

    def test_categories_stand_beside_each_other(self) -> None:
        data = made(
            [[[1, 2], [1, 3]], [[4, 5], [4, 6]]], {"kind": ["a", "b"], "objective": ["jepa", "mae"], "seed": [0, 1]}
        )
        ax = finish(plot.plot_sweep_lines(data, "v", axes(), over="seed"))
        jepa, mae = ax.lines[0], ax.lines[2]
        assert (jepa.get_label(), mae.get_label()) == ("JEPA", "MAE")
        assert jepa.get_color() == plot.style.OBJECTIVE_COLOR["jepa"]
        assert jepa.get_linestyle() == mae.get_linestyle() == "None"
        np.testing.assert_allclose([jepa.get_xdata(), mae.get_xdata()], [[-0.2, 0.8], [0.2, 1.2]])
        bars = ax.collections[0].get_segments()
        np.testing.assert_allclose(bars[0], [[-0.2, 1.1], [-0.2, 1.9]])
        assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b"]

    def test_many_values_have_a_bar_of_colours(self) -> None:
        data = made(np.ones((3, 20)), {"x": [1, 2, 3], "eps": np.geomspace(1e-3, 1, 20)})
        ax = finish(plot.plot_sweep_lines(data, "v", axes(), x="x"))
        assert ax.get_legend() is None
        assert ax.figure.axes[1].get_ylabel() == r"start $\epsilon = w(0)$"
        assert ax.figure.axes[1].get_yscale() == "log"
        lightness = [sum(line.get_color()[:3]) for line in ax.lines[::2]]
        assert (np.diff(lightness) < 0).all()

    def test_one_line(self) -> None:
        ax = finish(plot.plot_sweep_lines(made([1.0, 10, 100, 1e4], {"time": [1, 10, 100, 1000]}), "v", axes()))
        assert ax.get_legend() is None
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        ax = finish(plot.plot_sweep_lines(made([1e4, 10, 0, 1.0], {"time": [1, 10, 100, 1000]}), "v", axes()))
        assert ax.get_yscale() == "symlog"
        assert ax.get_ylim()[0] == 0.0
        assert ax.get_ylim()[1] >= 1e4

    def test_what_is_left_over_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"^v depends on seed too \(3 values\)"):
            plot.plot_sweep_lines(made(np.zeros((2, 2, 3)), {"a": [1, 2], "b": [1, 2], "seed": [0, 1, 2]}), "v", axes())


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.geomspace(1e-6, 1, 20), "log"),
        ([1, 2, 4, 8], "log"),
        ([1, 3, 10, 30], "log"),
        ([0, 0.01, 0.1, 1], "symlog"),
        (np.linspace(0, 10, 5), "linear"),
        (np.linspace(1, 10, 10), "linear"),
        ([1, 2, 4], "linear"),
        ([1, 4, 9, 16, 25], "linear"),
        ([1, 3, 7, 13, 21], "log"),
        ([0.1, 1], "linear"),
        ([-1, 10, 100, 1000], "linear"),
        ([0.3, np.nan], "category"),
        ([True, False], "category"),
        (["a", "b"], "category"),
    ],
)
def test_scales(values: Any, scale: str) -> None:
    data = made(np.zeros(len(values)), {"a": values})
    assert as_sweep_axis("x", data, "a").scale == scale


def test_zero_before_factors_has_a_cell_of_the_size_of_the_others() -> None:
    data = made(np.zeros((2, 4)), {"b": [1, 2], "ema": [0, 1, 10, 100]})
    ax = finish(plot.plot_sweep_map(data, "v", axes()))
    edges = mesh_of(ax).get_coordinates()[0, :, 0]
    places = ax.xaxis.get_transform().transform(edges)
    np.testing.assert_allclose(np.diff(places), np.diff(places)[0])
    assert edges[0] < 0 < edges[1] < 1 < edges[2]
    assert ax.get_xticks()[:2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1, 2, 4, 8], ["1", "2", "4", "8"]),
        (np.geomspace(1, 20, 30), ["1", "2", "5", "10", "20"]),
        ([0.25, 0.5, 1, 2], ["0.25", "0.5", "1", "2"]),
    ],
)
def test_short_logarithmic_axes_have_numbers(values: Any, ticks: list[str]) -> None:
    ax = finish(plot.plot_sweep_lines(made(np.zeros(len(values)), {"a": values}), "v", axes()))
    low, high = ax.get_xlim()
    shown = [
        text.get_text() for place, text in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True) if low < place < high
    ]
    assert shown == ticks


def strength(*, lam: float, rho: float, depth: int) -> float:
    """Return a number that does not depend on rho."""
    return lam * depth


def test_parameters_that_change_together_are_one_axis() -> None:
    found = jo.sweep({("lam", "rho"): [(1.0, 0.5), (0.5, 0.9)], "depth": [1, 2]}, strength)
    together = as_sweep_axis("x", found, "lam_rho")
    assert (together.scale, together.names) == ("category", ["1, 0.5", "0.5, 0.9"])
    assert together.label == r"covariance $\lambda$, regression coefficient $\rho$"
    shown = mesh_of(plot.plot_sweep_map(found, "value", axes(), x="rho"))
    np.testing.assert_array_equal(shown.get_array(), [[1, 0.5], [2, 1]])
    np.testing.assert_array_equal(  # lam falls as rho rises
        mesh_of(plot.plot_sweep_map(found, "value", axes(), x="lam")).get_array(), [[0.5, 1], [1, 2]]
    )


def test_labels_are_the_data_s_own_if_it_has_some() -> None:
    data = made([[1, 2], [3, 4]], {"a": [1, 2], "weight_decay": [1, 2]})
    data.a.attrs.update(long_name="angle", units="rad")
    ax = plot.plot_sweep_map(data, "v", axes())
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("angle (rad)", r"weight decay $\eta$ (1 / flow time)")


def test_dimensions_of_a_result_are_numbered() -> None:
    data = made(np.arange(6).reshape(2, 3), {"eps": [1, 2], "feature": None}, status=[0, CellStatus.TROUBLE])
    axis = as_sweep_axis("x", data, "feature")
    assert (axis.values.tolist(), axis.scale) == ([0, 1, 2], "linear")
    ax = finish(plot.plot_sweep_map(data, "v", axes()))
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2]  # the trouble of a cell is that of all it returned
