"""The command line: what it writes, what it says of bad files, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jepa_ode as jo
from jepa_ode.cli import main, parser
from jepa_ode.cli.analyze import load
from jepa_ode.pairs import DataError, read_pairs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4))
Y = X + 0.5 * RNG.normal(size=X.shape)


def run(*arguments: str | Path) -> int:
    """Return the exit code of the command line, argparse's included."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def save(path: Path, array: Any) -> Path:
    """Write an array as .npy or .csv with a header, and return the path."""
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        header = ",".join(f"pixel {k}" for k in range(array.shape[1]))
        np.savetxt(path, array, delimiter=",", header=header, comments="", fmt="%.17g")
    return path


class TestAnalyze:
    def test_digits_by_default(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("analyze", "--out", tmp_path, "--features", 8, "--flow-features", 8, "--depth", 3) == 0
        out, err = capsys.readouterr()
        assert out.startswith("Learned: Of 8 features,")
        assert out.endswith(f"Report: {tmp_path / 'report.html'}\n")
        assert err.splitlines() == [
            f"{stage} ..."
            for stage in ("data", "spectrum", "predictions", "jepa matrix flow", "mae matrix flow", "figures")
        ]
        settings = json.loads((tmp_path / "analysis.json").read_text())["settings"]
        assert settings["image_shape"] == [8, 8]
        assert settings["views"] == "RandomMask(keep=0.5, fill='mean') of pixels scaled to unit variance"
        assert settings["depth"] == 3
        words = json.loads((tmp_path / "analysis.json").read_text())["diagnostic_in_words"][0]
        assert words.endswith("Of the pixels, 3 are constant in the data and 9 hardly vary and were set aside.")

    @pytest.mark.parametrize("kind", ["npz", "npy", "csv"])
    def test_pairs_from_files(self, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        if kind == "npz":
            np.savez(tmp_path / "pairs.npz", x=X.astype(np.float32), y=Y.astype(np.float32))
            files = [tmp_path / "pairs.npz"]
        else:
            files = [save(tmp_path / f"{name}.{kind}", array) for name, array in (("x", X), ("y", Y))]
        out = tmp_path / "out"
        assert run("analyze", "--pairs", *files, "-o", out, "--quiet", "--image-shape", "2x2", "--no-flow") == 0
        assert capsys.readouterr() == ("", "")
        rho = np.genfromtxt(out / "features.csv", delimiter=",", names=True)["rho"]
        expected = jo.Covariances.from_pairs(X, Y).spectrum().rho
        np.testing.assert_allclose(rho, expected, rtol=1e-5 if kind == "npz" else 1e-15)

    def test_options_reach_the_analysis(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "p.npz", x=X.reshape(40, 2, 2), y=Y.reshape(40, 2, 2))
        options = "--ema 0.5 --weight-decay 0.01 --shrinkage 0.1 --exchangeable --eps 0.02 --threads 1 --seed 7 -q"
        assert run("analyze", "--pairs", tmp_path / "p.npz", "-o", tmp_path, *options.split()) == 0
        result = json.loads((tmp_path / "analysis.json").read_text())
        settings = result["settings"]
        assert settings["jepa"] == "JEPA(stop_gradient=True, ema=0.5, weight_decay=0.01)"
        assert settings["mae"] == "MAE(weight_decay=0.01)"
        assert settings["exchangeable"] is True
        assert (settings["eps"], settings["threads"], settings["seed"]) == (0.02, 1, 7)
        assert settings["image_shape"] == [2, 2]
        assert result["diagnostic"]["shrinkage"] == 0.1

    @pytest.mark.parametrize(
        "views",
        [
            "random-mask --keep 0.7",
            "patch-mask --patch 4 --keep 0.5 --target image",
            "noise --noise-std 0.3 --raw-pixels",
            "halves --mirror",
        ],
    )
    def test_views(self, views: str) -> None:
        # Figures are left out: they are drawn, and looked at, elsewhere.
        options = parser().parse_args(["analyze", "--views", *views.split()])
        data = load(options, parser())
        height, width = data.image_shape or (0, 0)
        assert data.x.shape == data.y.shape == (1797, height * width)

    def test_digits_couple_little_once_scaled(self) -> None:
        coupling = {}
        for raw in ([], ["--raw-pixels"]):
            data = load(parser().parse_args(["analyze", *raw]), parser())
            cov = jo.Covariances.from_pairs(data.x, data.y, exchangeable=data.exchangeable)
            coupling[bool(raw)] = cov.spectrum().diagnostic.coupling
        assert coupling[False] < 0.2 < 0.5 < coupling[True]


def bad_files(folder: Path) -> dict[str, tuple[list[Path], str]]:
    """Return file names and the error that each case must give, after the program's name."""
    csv = save(folder / "good.csv", X)
    npy = save(folder / "good.npy", X)
    lines = csv.read_text().splitlines()

    def edited(name: str, line: int, column: int, field: str | None) -> Path:
        fields = lines[line - 1].split(",")
        fields[column - 1 : column] = [] if field is None else [field]
        path = folder / name
        path.write_text("\n".join([*lines[: line - 1], ",".join(fields), *lines[line:]]) + "\n")
        return path

    def npz(name: str, **arrays: Any) -> Path:
        np.savez(folder / name, **arrays)
        return folder / name

    def raw(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    nan, infinite = X.copy(), X.copy()
    nan[7, 2], infinite[0, 0] = np.nan, -np.inf
    np.save(folder / "objects.npy", np.array([[{}, 1], [2, 3]], dtype=object), allow_pickle=True)
    cases = {
        "missing value": ([edited("gap.csv", 17, 3, ""), csv], "{0}: missing value in row 17, column 3"),
        "missing word": ([csv, edited("na.csv", 2, 4, "NA")], "{1}: missing value in row 2, column 4"),
        "word": ([edited("word.csv", 9, 1, "oops"), csv], "{0}: 'oops' in row 9, column 1 is not a number"),
        "infinite csv": ([edited("inf.csv", 9, 1, "-inf"), csv], "{0}: -inf in row 9, column 1 is not finite"),
        "short row": ([edited("short.csv", 5, 4, None), csv], "{0}: row 5 has 3 columns, the rows before have 4"),
        "empty csv": ([raw("empty.csv", b""), csv], "{0}: is empty"),
        "header only": ([raw("header.csv", b"a,b\n"), csv], "{0}: holds no numbers"),
        "binary csv": ([raw("binary.csv", bytes(range(128, 256))), csv], "{0}: is no text file"),
        "nan": ([save(folder / "nan.npy", nan), npy], "{0}: missing value (nan) in row 8, column 3"),
        "infinite": ([npz("inf.npz", x=X, y=infinite)], "{0}: y: infinite value (-inf) in row 1, column 1"),
        "keys": ([npz("keys.npz", a=X, y=Y)], "{0}: no array x in it, it holds a, y"),
        "objects": (
            [folder / "objects.npy", npy],
            "{0}: holds pickled objects or is no NumPy file; plain numbers are needed",
        ),
        "complex": ([save(folder / "complex.npy", X + 0j), npy], "{0} must hold real numbers, it has dtype complex128"),
        "rows": (
            [npy, save(folder / "rows.npy", X[:9])],
            "{1} has 9 rows, {0} has 40: each row of x needs its partner in y",
        ),
        "columns": (
            [npy, save(folder / "columns.npy", X[:, :3])],
            "{1} has 3 columns, {0} has 4: the two views must have the same coordinates",
        ),
        "one row": ([npz("one.npz", x=X[:1], y=Y[:1])], "{0}: x has 1 row: covariances need at least 2"),
        "no row": ([npz("none.npz", x=X[:0], y=Y[:0])], "{0}: x is empty: its shape is [0, 4]"),
        "vector": (
            [save(folder / "vector.npy", X[:, 0]), npy],
            "{0} must have the shape [samples, d] or [samples, height, width], it has [40]",
        ),
        "constant": (
            [npz("constant.npz", x=X, y=np.ones_like(Y))],
            "{0}: y is constant: all its rows are equal, there is nothing to learn",
        ),
        "damaged": ([raw("damaged.npz", b"PK\x03\x04 no archive")], "{0}: is damaged or is no NumPy file"),
        "absent": ([folder / "absent.npz"], "{0}: no such file"),
        "absent csv": ([csv, folder / "absent.csv"], "{1}: no such file"),
        "folder": ([folder], "{0}: is a directory"),
        "two archives": ([npz("two.npz", x=X, y=Y), npy], "{0}: an .npz file holds both views; give it alone"),
    }
    return {name: (files, message.format(*files)) for name, (files, message) in cases.items()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Path], str]]:
    return bad_files(tmp_path_factory.mktemp("bad"))


def test_bad_files_give_one_line(
    cases: dict[str, tuple[list[Path], str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (files, message) in cases.items():
        assert run("analyze", "--quiet", "-o", tmp_path, "--pairs", *files) == 1, name
        assert capsys.readouterr() == ("", f"jepa-ode: error: {message}\n"), name
    assert list(tmp_path.iterdir()) == []


def test_csv_dialects(tmp_path: Path) -> None:
    plain = save(tmp_path / "plain.csv", X)
    text = plain.read_text()
    for name, changed in (
        ("semicolons.csv", text.replace(",", ";")),
        ("tabs.tsv", text.replace(",", "\t")),
        ("no_header.csv", "\n".join(text.splitlines()[1:])),
        ("blank_lines.csv", "\n" + text.replace("\n", "\n\n")),
        ("byte_order_mark.csv", "\ufeff" + text),
        ("windows.csv", text.replace("\n", "\r\n")),
        ("quoted.csv", "\n".join(",".join(f'"{f}"' for f in line.split(",")) for line in text.splitlines())),
    ):
        path = tmp_path / name
        path.write_text(changed, encoding="utf-8", newline="")
        np.testing.assert_array_equal(read_pairs(path, plain).x, X, err_msg=name)


def test_rows_of_a_csv_are_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gap.csv"
    path.write_text("1,2\n\n3,4\n5,\n")
    with pytest.raises(DataError, match=r"missing value in row 4, column 2$"):
        read_pairs(path, path)


def test_images_know_their_shape(tmp_path: Path) -> None:
    pairs = read_pairs(save(tmp_path / "x.npy", X.reshape(40, 1, 4)), save(tmp_path / "y.npy", Y))
    assert pairs.image_shape == (1, 4)
    assert pairs.x.shape == (40, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("analyze --depth 0.5", "argument --depth: must be a number of at least 1, got '0.5'"),
        ("analyze --depth inf", "argument --depth: must be a number of at least 1, got 'inf'"),
        ("analyze --keep 2", "jepa-ode analyze: error: --keep must"),
        ("analyze --eps 0", "argument --eps: must be a positive number, got '0'"),
        ("analyze --fraction 2", "argument --fraction: must be a number between 0 and 1, got '2'"),
        ("analyze --threads 0", "argument --threads: must be a whole number of at least 1, got '0'"),
        ("analyze --features 0", "argument --features: must be a whole number of at least 1, got '0'"),
        ("analyze --shrinkage 2", "must be none, ledoit-wolf or a number from 0 to 1, got '2'"),
        ("analyze --image-shape 8", "must be HEIGHTxWIDTH, like 8x8, got '8'"),
        ("analyze --image-shape 8x8", "go with --pairs"),
        ("analyze --views halves --keep 0.5", "--keep is no option of --views halves"),
        ("analyze --views noise --noise-std -1", "--noise-std must be non-negative, got -1.0"),
        ("analyze --pairs a.npz --views noise", "--views makes views of images, --pairs are views already"),
        ("analyze --pairs x.npy", "--pairs x.npy: the second view is missing"),
        ("analyze --pairs a b c", "one .npz file or two .npy or .csv files, got 3"),
        ("analyze --ema 1 --no-flow", "act on the matrix flow: drop --no-flow"),
        ("analyze --ema 1 --no-stop-gradient", "--ema and --no-stop-gradient exclude each other"),
        ("analyze --nonsense", "unrecognized arguments: --nonsense"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("", "the following arguments are required: COMMAND"),
    ],
)
def test_usage_errors(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments.split()) == 2
    assert message in capsys.readouterr().err


def test_booleans_are_zeros_and_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=X > 0, y=Y > 0)
    pairs = read_pairs(tmp_path / "p.npz")
    np.testing.assert_array_equal(pairs.x, np.where(X > 0, 1, 0))
    spec = jo.Covariances.from_pairs(pairs.x, pairs.y).spectrum()
    expected = jo.Covariances.from_pairs(np.where(X > 0, 1.0, 0.0), np.where(Y > 0, 1.0, 0.0)).spectrum()
    np.testing.assert_allclose(spec.rho, expected.rho)


def test_few_samples_are_warned_of_even_when_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "p.npz", x=X[:6], y=Y[:6])
    assert run("analyze", "-q", "--no-flow", "--pairs", tmp_path / "p.npz", "-o", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jepa-ode: warning: Only 6 pairs for 4 features, 1.5 for each:")


def test_help_tells_each_default_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyze", "--help") == 0
    out = capsys.readouterr().out
    assert "None" not in out
    assert not re.search(r"\(default:[^)]*\)\s+\(default:", out)
    assert "(default: 0.01)" in out


def test_stages_that_do_not_run_are_not_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "p.npz", x=X, y=Y)
    for options, reason in (
        (["--no-flow"], "The matrix flow was not asked for."),
        (["--depth", "2.5"], "A network has a whole number of layers: there is no matrix flow of depth 2.5."),
    ):
        assert run("analyze", *options, "--pairs", tmp_path / "p.npz", "-o", tmp_path / "out") == 0
        out, err = capsys.readouterr()
        assert "flow" not in err
        assert f"Check: Not made. {reason}\n" in out


def test_image_shape_must_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "p.npz", x=X, y=Y)
    assert run("analyze", "-q", "--pairs", tmp_path / "p.npz", "--image-shape", "3x3") == 1
    assert (
        capsys.readouterr().err == "jepa-ode: error: --image-shape 3x3 is that of 9 columns, the views have 4 (p.npz)\n"
    )


def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "p.npz", x=X, y=Y)
    (tmp_path / "file").touch()
    arguments = ["analyze", "-q", "--no-flow", "--pairs", tmp_path / "p.npz", "-o", tmp_path / "file"]
    assert run(*arguments) == 1
    assert capsys.readouterr().err == f"jepa-ode: error: {tmp_path / 'file'} is a file, not a folder\n"


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert run("analyze", "-q") == 1
    assert capsys.readouterr().err == (
        'jepa-ode: error: the digits come with scikit-learn: pip install "jepa-ode[analyze]", or give your own --pairs\n'
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("analyze", "-q") == 1
    assert 'the report needs matplotlib: pip install "jepa-ode[analyze]"' in capsys.readouterr().err


def test_info_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    out = capsys.readouterr().out
    assert str(jo.build_info()["isa"]) in out
    assert "numpy" in out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"jepa-ode {jo.__version__}\n"


def test_runs_as_a_module_and_help_lists_the_commands() -> None:
    result = subprocess.run([sys.executable, "-m", "jepa_ode", "--help"], capture_output=True, text=True, check=True)
    assert "analyze" in result.stdout
    assert "info" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_ctrl_c_ends_without_a_traceback(tmp_path: Path) -> None:
    arguments = ["analyze", "--eps", "1e-6", "--flow-budget", "1e6", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "jepa_ode", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("jepa matrix flow"):
                break
        time.sleep(0.3)  # well into the integration
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "jepa-ode: interrupted\n"


def test_import_is_light() -> None:
    code = (
        "import sys; before = set(sys.modules); import jepa_ode; "
        "print([m for m in ('argparse', 'json', 'csv', 'matplotlib', 'sklearn', 'jepa_ode.plot', 'jepa_ode.cli', "
        "'jepa_ode.report') if m in sys.modules.keys() - before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
