"""The main job: what `analyze` finds and what `write_report` writes."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import jepa_ode as jo
from jepa_ode.report import Analysis, Settings, analyze, write_report
from jepa_ode.report.figures import draw_sections
from jepa_ode.report.findings import findings
from jepa_ode.report.limits import diagnostic_sentences, limits
from jepa_ode.report.network_check import feature_loss, project

MODEL = jo.StaticModel.from_spectrum(
    jo.Spectrum([1.0, 1.1, 1.2, 1.3, 0.05, 0.0], sigma2=[1.1, 1.5, 2.0, 3.0, 1.0, 1.0])
)
SECTIONS = [
    "summary",
    "features",
    "dynamics",
    "patterns",
    "times",
    "check",
    "losses",
    "table",
    "diagnostic",
    "limits",
    "settings",
]
VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """Collects what a page loads and the ids of its sections, and checks that its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, str]] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.add(tag)
        self.loads += [values[key] for key in ("src", "href", "data", "poster", "srcset") if key in values]
        assert not [key for key in values if key.startswith("on")]
        if tag == "section":
            self.sections.append(values["id"])
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    x, y = MODEL.sample(3000, rng=0)
    return analyze(x, y, Settings(source="<model & co>", depth=3, image_shape=(2, 3)))


@pytest.fixture(scope="module")
def folder(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "made" / "on demand"
    assert write_report(analysis, folder) == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == ["analysis.json", "features.csv", "report.html"]
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


class TestPage:
    def test_is_whole_and_loads_nothing(self, text: str) -> None:
        page = Page(text)
        assert page.sections == SECTIONS
        assert all(load.startswith("data:") for load in page.loads)
        assert not page.tags & {"script", "iframe", "object", "embed"}
        assert not re.search(r"url\(|@import", text)
        assert "$" not in re.sub(r"base64,[^\"]*", "", text)  # every placeholder is filled

    def test_figures_are_svg_with_a_name(self, text: str) -> None:
        images = Page(text).images
        assert len(images) == 14
        for image in images:
            assert image["alt"]
            kind, data = image["src"].split(",", 1)
            assert kind == "data:image/svg+xml;base64"
            drawing = ET.fromstring(base64.b64decode(data))
            assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
            references = [v for e in drawing.iter() for k, v in e.attrib.items() if k.endswith("href")]
            assert all(reference.startswith(("#", "data:")) for reference in references)

    def test_words_are_escaped_and_set(self, text: str) -> None:
        assert "What JEPA and MAE learn from &lt;model &amp; co&gt;" in text
        assert "&rho;" in text
        assert "JEPA&#x27;s loss rises from" in text
        assert "<sup>3</sup>" in text
        assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower()

    def test_is_the_same_twice(self, analysis: Analysis, text: str, tmp_path: Path) -> None:
        again = write_report(analysis, tmp_path).read_text(encoding="utf-8")
        assert again == text


class TestNumbers:
    def test_table_is_what_the_solver_says(self, folder: Path) -> None:
        with (folder / "features.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
        x, y = MODEL.sample(3000, rng=0)
        spec = jo.Covariances.from_pairs(x, y).spectrum()
        np.testing.assert_array_equal(table["lambda"], spec.lam)
        np.testing.assert_array_equal(table["rho"], spec.rho)
        np.testing.assert_array_equal(table["rho_stderr"], spec.diagnostic.rho_stderr)
        for name in ("jepa", "mae"):
            setting = {"depth": 3, "eps": 0.01}
            np.testing.assert_array_equal(table[f"{name}_fixed_point"], jo.fixed_point(spec, name, depth=3))
            times = table[f"{name}_critical_time"]
            learned = np.isfinite(times)
            np.testing.assert_array_equal(times[learned], jo.critical_time(spec, name, **setting)[learned])
            order = jo.learning_order(spec, name, **setting, min_growth=2.0)
            np.testing.assert_array_equal(np.argsort(np.where(learned, times, np.inf))[: order.size], order)
            np.testing.assert_array_equal(table[f"{name}_place"][order], np.arange(1, order.size + 1))
            near = table[f"{name}_critical_time_flow"][order] / times[order]
            assert 0.8 < np.median(near) < 1.25

    def test_json_is_strict_and_complete(self, analysis: Analysis, folder: Path) -> None:
        def refuse(value: str) -> None:
            raise AssertionError(value)

        result = json.loads((folder / "analysis.json").read_text(encoding="utf-8"), parse_constant=refuse)
        assert result["order_correlation"] == analysis.order_correlation
        assert result["settings"]["jepa"] == "JEPA(stop_gradient=True, ema=None, weight_decay=0.0)"
        assert result["data"] == {
            "pairs": 3000,
            "coordinates": 6,
            "features": 6,
            "features_reported": 6,
            "features_clear": int(analysis.resolved.sum()),
        }
        assert result["jepa"]["flow"]["loss"][-1] > result["jepa"]["flow"]["loss"][0]
        assert result["jepa"]["flow"]["largest_relative_error"] == analysis.jepa.check.comparison.max_error
        assert result["mae"]["flow"]["loss"][-1] < result["mae"]["flow"]["loss"][0]
        assert result["versions"]["jepa_ode"] == jo.__version__
        assert set(result["findings"]) == {finding.topic for finding in findings(analysis)}


class TestAnalysis:
    def test_opposite_trends_are_found(self, analysis: Analysis) -> None:
        # Claim 5 of THEORY.md 5, on the four strong features of the model.
        assert analysis.jepa.order[:2].tolist() == [0, 1]
        assert analysis.mae.order[0] == 3
        texts = {finding.topic: finding.text for finding in findings(analysis)}
        assert "in common" in texts["Early stopping"]
        assert "JEPA's loss rises" in texts["Loss"]
        assert re.search(r"JEPA: critical times off by .*% in the median and .*% at most over", texts["Check"])
        assert diagnostic_sentences(analysis)[0].startswith("6 features from 3000 samples")

    def test_without_flow(self, tmp_path: Path) -> None:
        x, y = MODEL.sample(3000, rng=0)
        bare = analyze(x, y, Settings(depth=2.5, flow=False))
        text = write_report(bare, tmp_path).read_text(encoding="utf-8")
        assert [name for name in SECTIONS if name not in ("check", "losses")] == Page(text).sections
        assert "The matrix flow was not asked for." in limits(bare)
        assert bare.jepa.check.flow is None
        assert findings(bare)[-1] == ("Check", "Not made. The matrix flow was not asked for.")
        assert not [stage for stage in bare.seconds if "flow" in stage]

    def test_real_depth_has_no_network(self) -> None:
        half = analyze(*MODEL.sample(300, rng=0), Settings(depth=1.5))
        assert "there is no matrix flow of depth 1.5" in half.mae.check.note
        assert findings(half)[-1].text.startswith("Not made. A network has a whole number of layers")

    def test_nothing_to_learn(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).normal(size=(500, 3))
        nothing = analyze(x, -x)
        assert nothing.jepa.order.size == nothing.mae.order.size == 0
        assert findings(nothing)[0].text == (
            "Neither JEPA nor MAE learns anything: every feature has a negative covariance lambda. Has y the wrong sign?"
        )
        assert math.isnan(nothing.order_correlation)
        Page(write_report(nothing, tmp_path).read_text(encoding="utf-8"))

    def test_one_feature(self, tmp_path: Path) -> None:
        x = np.random.default_rng(0).normal(size=(500, 1))
        Page(write_report(analyze(x, 0.8 * x), tmp_path).read_text(encoding="utf-8"))

    def test_features_and_flow_are_capped_by_what_is_learned_first(self) -> None:
        few = analyze(*MODEL.sample(3000, rng=0), Settings(max_features=3, flow_features=2))
        assert len(few.spectrum) == 3
        assert few.n_total == 6
        assert few.mae.check.features.size == len(few.mae.check.flow.features) == 2
        assert "leaves out 3 of 6" in limits(few)[0]
        assert "projected onto the 2 features" in " ".join(limits(few))

    def test_budget_cuts_the_horizon(self) -> None:
        short = analyze(*MODEL.sample(500, rng=0), Settings(depth=4, eps=1e-3, flow_budget=1e-6))
        assert "To stay within its budget of work the flow ends at" in short.jepa.check.note
        assert short.jepa.check.flow.t[-1] < short.jepa.critical_time[short.jepa.order].max()
        assert "JEPA: nothing to compare, the budget of work ended the flow at t = " in findings(short)[-1].text
        longer = analyze(*MODEL.sample(500, rng=0), Settings(depth=4, eps=1e-2, flow_budget=1e-6))
        assert re.search(
            r"of 4 features, .* \(the budget of work ended the flow at t = 1,\d+\)", findings(longer)[-1].text
        )

    def test_options_act_on_the_flow(self, tmp_path: Path) -> None:
        settings = Settings(depth=1, jepa=jo.JEPA(stop_gradient=False), mae=jo.MAE(weight_decay=1e-3))
        changed = analyze(*MODEL.sample(3000, rng=0), settings)
        assert changed.jepa.check.comparison.compared == 0  # collapse
        first, second, *_, check = findings(changed)
        assert first.topic == "Options"
        assert first.text.startswith(
            "With JEPA(stop_gradient=False, ema=None, weight_decay=0.0) the network learns 0 of 6 features, measured against "
            "the fixed points of the plain objective: its representation collapses, the highest response falls from"
        )
        assert second.text.startswith("For the plain objectives: Of 6 features")
        assert "JEPA: none of" in check.text
        assert "MAE: critical times off" in check.text
        assert "stop_gradient=False" in limits(changed)[-1]
        Page(write_report(changed, tmp_path).read_text(encoding="utf-8"))

    def test_options_without_a_network_are_said(self) -> None:
        changed = analyze(*MODEL.sample(300, rng=0), Settings(depth=1.5, jepa=jo.JEPA(ema=1.0)))
        assert findings(changed)[0].text.startswith("No network was trained with JEPA(stop_gradient=True, ema=1.0")

    def test_start_above_every_fixed_point(self) -> None:
        high = analyze(*MODEL.sample(3000, rng=0), Settings(eps=2.0))
        assert re.search(
            r"the start of 2 lies above every fixed point, of which the highest is 0\.9", findings(high)[0].text
        )

    def test_few_samples_come_first_and_give_no_order(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(3, 10))
        few = analyze(x, x + 0.1 * rng.normal(size=x.shape))
        first, *others = findings(few)
        assert first.topic == "Samples"
        assert first.text == (
            "Only 3 pairs for 2 features, 1.5 for each: these features and everything said of them may be chance. "
            "Ten pairs for each feature are a fair start."
        )
        assert "Order" not in [finding.topic for finding in others]
        assert "rank correlation" not in others[-1].text
        page = write_report(few, tmp_path).read_text(encoding="utf-8")
        assert "Rank correlation" not in page
        result = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
        assert result["order_correlation"] is result["mae"]["flow"]["order_correlation"] is None

    def test_rows_that_are_no_pairs_come_first(self) -> None:
        rng = np.random.default_rng(0)
        d = 40  # of which chance alone lets several stand more than two standard errors above zero
        signal = rng.normal(size=(3000, d))
        x, y = signal + 0.3 * rng.normal(size=(2, 3000, d))
        settings = Settings(flow=False)
        assert findings(analyze(x, y, settings))[0].topic == "Learned"
        assert findings(analyze(x, -y, settings))[0].topic == "Learned"
        first = findings(analyze(x, rng.permutation(y), settings))[0]
        assert first.topic == "Pairs"
        assert "What x and y share does not stand clear of the sampling noise" in first.text
        assert "Are the rows of x and y pairs" in first.text

    def test_theory_that_fails_comes_first(self) -> None:
        # lambda falls while rho rises: from a small start the network's order is not the predicted one.
        rho = np.linspace(0.5, 0.87, 6)
        lam = np.linspace(2.0, 1.2, 6)
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6))).Q
        joint = np.random.default_rng(1).normal(size=(500, 12)) @ np.eye(12)
        z = np.linalg.qr(joint - joint.mean(axis=0)).Q * np.sqrt(500)
        sigma = np.sqrt(lam / rho)
        x = z[:, :6] * sigma @ basis.T
        y = (z[:, :6] * rho + z[:, 6:] * np.sqrt(1 - rho**2)) * sigma @ basis.T
        failing = analyze(x, y, Settings(eps=1e-4, exchangeable=True))
        first = findings(failing)[0]
        assert first.topic == "Theory"
        assert first.text.startswith(
            "The theory does not describe these data at this start of 0.0001: against the trained network JEPA's critical "
            "times are off by "
        )
        assert "at a small start the aligned solution is unstable" in first.text
        assert diagnostic_sentences(failing)[-1].endswith("it has the last word.")
        holding = analyze(x, y, Settings(eps=1e-1, exchangeable=True))
        assert findings(holding)[0].topic == "Learned"

    def test_the_order_of_near_ties_is_no_failure(self) -> None:
        rng = np.random.default_rng(5)
        signal = rng.normal(size=(3000, 6))
        x, y = signal + 0.5 * rng.normal(size=(2, 3000, 6))  # features alike but for chance
        alike = analyze(x, y, Settings(eps=1e-3))
        comparison = alike.learnings["jepa"].check.comparison
        assert comparison is not None
        assert comparison.ranks
        assert comparison.order_correlation < 0.5
        assert comparison.median_error < 0.1
        assert "Theory" not in [finding.topic for finding in findings(alike) if finding.text]

    def test_rho_above_one_is_explained(self) -> None:
        x = np.random.default_rng(0).normal(size=(500, 2))
        steep = analyze(x, 2 * x, Settings(flow=False))
        assert limits(steep)[0].startswith("2 features have a rho above 1. rho is the slope of a regression")
        assert "Noise" not in [finding.topic for finding in findings(steep)]

    def test_no_power_of_one(self) -> None:
        texts = dict(findings(analyze(*MODEL.sample(3000, rng=0), Settings(depth=1, flow=False))))
        assert texts["Noise"].endswith("JEPA suppresses what it cannot predict.")

    def test_settings_are_checked(self) -> None:
        for options, message in (
            ({"depth": 0.5}, "depth must be"),
            ({"eps": 0.0}, "eps must be positive"),
            ({"fraction": 1.0}, "fraction must lie between 0 and 1, got 1.0"),
            ({"max_features": 0}, "max_features must be at least 1"),
            ({"flow_budget": -1.0}, "flow_budget must be positive"),
            ({"min_growth": 0.0}, "min_growth must be"),
        ):
            with pytest.raises(ValueError, match=message):
                Settings(**options)

    def test_progress_is_told(self) -> None:
        told: list[tuple[str, float]] = []
        analyze(*MODEL.sample(300, rng=0), progress=lambda stage, done: told.append((stage, done)))
        stages = list(dict.fromkeys(stage for stage, _ in told))
        assert stages == ["spectrum", "predictions", "jepa matrix flow", "mae matrix flow"]
        assert all(0 <= done <= 1 for _, done in told)


def test_projection_keeps_the_dynamics() -> None:
    # Three coordinates of five vary together with others: rank 3, so that projecting loses nothing.
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(3, 5))
    z = rng.normal(size=(400, 3))
    x, y = ((z + 0.5 * rng.normal(size=z.shape)) @ spread for _ in range(2))
    cov = jo.Covariances.from_pairs(x, y, exchangeable=True)
    spec = cov.spectrum()
    small, kept = project(cov, spec)
    assert small.Sxx.shape == (3, 3)
    np.testing.assert_allclose(kept.duals.T @ kept.duals, spec.duals.T @ spec.duals, atol=1e-12)
    np.testing.assert_allclose(kept.directions.T @ small.Sxx @ kept.directions, np.eye(3), atol=1e-9)
    t = np.geomspace(0.1, 100.0, 20)
    for objective in ("jepa", "mae"):
        flows = [
            jo.gradient_flow(jo.LinearNetwork.balanced(d, depth=2, eps=0.05), c, objective, t=t, features=s)
            for d, c, s in ((5, cov, spec), (3, small, kept))
        ]
        np.testing.assert_allclose(flows[0].response, flows[1].response, rtol=1e-4)


@pytest.mark.parametrize("objective", [jo.JEPA(), jo.MAE()])
def test_predicted_loss_is_that_of_the_aligned_network(objective: jo.JEPA | jo.MAE) -> None:
    cov = jo.Covariances(np.diag([1.0, 0.8]), np.diag([0.9, 0.3]), np.diag([1.2, 0.7]))
    net = jo.LinearNetwork.balanced(2, depth=3, eps=0.05)
    flow = jo.gradient_flow(net, cov, objective, t=np.linspace(0.0, 300.0, 30), rtol=1e-10, atol=1e-13)
    loss = feature_loss(flow.features, objective, flow.response, 3, float(np.trace(cov.Syy)))
    np.testing.assert_allclose(loss, flow.loss, rtol=1e-6)


def test_captions_follow_the_data() -> None:
    # The strong features are the noisy ones: shallow JEPA takes them first, deep JEPA last.
    model = jo.StaticModel.from_spectrum(jo.Spectrum(np.linspace(2.0, 1.5, 6), rho=np.linspace(0.5, 0.9, 6)))
    pairs = model.sample(20000, rng=0)
    captions = {}
    for depth in (1, 6):
        analysis = analyze(*pairs, Settings(depth=depth, flow=False))
        captions[depth] = {figure.title: figure.caption for each in draw_sections(analysis) for figure in each.figures}
    title = "JEPA: response of the encoder"
    assert captions[1][title].endswith("Here the less predictable (light) come first, because they are stronger.")
    assert captions[6][title].endswith("The predictable (dark) come first.")
    assert "climb as rho falls" not in captions[1]["Exact and leading order"]
    assert "climb as rho falls" in captions[6]["Exact and leading order"]
    assert "Features rise in the order of lambda." in captions[1]["MAE: response of the encoder"]


def test_settings_in_words(text: str) -> None:
    assert '<tr><th scope="row">depth</th><td>3</td></tr>' in text
    assert '<tr><th scope="row">threads</th><td>all CPUs</td></tr>' in text
    assert '<tr><th scope="row">shrinkage</th><td>none</td></tr>' in text
    assert '<tr><th scope="row">image shape</th><td>2x3</td></tr>' in text
