"""Draw the pictures of README.md and the pages of docs from real runs: ``python docs/make_images.py``.

Needs scikit-learn, matplotlib and what sweeps need (``pip install jepa-ode[analyze,sweep]``).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import jepa_ode as jo
from jepa_ode import cli, plot

FOLDER = Path(__file__).parent / "images"


def digits() -> jo.Spectrum:
    """Return the features of scikit-learn's digits under two random maskings, as `jepa-ode analyze` finds them."""
    from sklearn.datasets import load_digits

    images = load_digits().images
    deviation = images.std(axis=0)
    images = (images - images.mean(axis=0)) / np.where(deviation > 0.1 * deviation.max(), deviation, np.inf)
    x, y = jo.views.RandomMask(keep=0.5)(images, rng=0)
    return jo.Covariances.from_pairs(x, y, exchangeable=True).spectrum()


def opposite_trends() -> jo.Spectrum:
    """Return eight features whose covariance rises while their predictability falls."""
    return jo.Spectrum(np.linspace(1.0, 1.2, 8), rho=np.linspace(0.95, 0.5, 8))


def draw_overview() -> Figure:
    """Draw features of images, and what JEPA and MAE make of predictable and of strong features."""
    figure = Figure(figsize=(12.5, 4.6), layout="constrained")
    images, jepa, mae = figure.subplots(1, 3, width_ratios=[1.35, 1.2, 1.3])
    spec = digits()
    order = jo.learning_order(spec, "jepa", depth=2, eps=0.01, min_growth=2.0)
    plot.plot_features(spec.duals, order, spec.rho, images, image_shape=(8, 8), columns=3, count=9)
    images.set_title("Features of digits, in JEPA's order", fontsize=11)
    spec = opposite_trends()
    for ax, name in ((jepa, "jepa"), (mae, "mae")):
        times = jo.critical_time(spec, name, depth=4, eps=0.01)
        t = np.linspace(times.min() / 2, times.max() * 1.3, 600)
        plot.plot_responses(t, jo.solve(spec, name, depth=4, eps=0.01, t=t).w, spec.rho, ax, colorbar=ax is mae)
        ax.set_xscale("linear")
        ax.set_title(
            f"{plot.OBJECTIVE_LABEL[name]}: {'predictable' if ax is jepa else 'strong'} features first", fontsize=11
        )
    return figure


def main() -> None:
    """Draw every picture."""
    FOLDER.mkdir(exist_ok=True)
    draw_overview().savefig(FOLDER / "overview.png", dpi=90)
    with TemporaryDirectory() as stores:
        for study in ("inversion", "targets"):
            cli.main(["sweep", study, "--store", f"{stores}/{study}.zarr", "--figure", str(FOLDER / f"{study}.png")])


if __name__ == "__main__":
    main()
