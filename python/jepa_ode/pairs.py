"""Pairs of views (x, y) read from files: .npz with x and y, or two .npy or .csv files."""

from __future__ import annotations

import csv
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

__all__ = ["DataError", "Pairs", "read_pairs"]

_MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "?"}
_DELIMITERS = (",", ";", "\t")


class DataError(ValueError):
    """A file that cannot be used; the message is one line that names the file and the place."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two views, one row per sample.

    Attributes
    ----------
    x, y : arrays of shape [samples, d]
        Real numbers, all finite, of the type they were stored in.
    image_shape : (height, width) or None
        Known when the files hold images, [samples, height, width].
    source : str
        The names of the files.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    image_shape: tuple[int, int] | None
    source: str


def read_pairs(*files: str | Path) -> Pairs:
    """Read pairs from one .npz file (arrays ``x`` and ``y``), or two .npy or .csv files, x first.

    Arrays are [samples, d], or [samples, height, width] for images; booleans count as 0 and 1. A .csv file holds one sample
    per line, separated by commas, semicolons or tabs; its first line may be a header, blank lines
    are skipped.

    Raises
    ------
    DataError
        For whatever is wrong with the files or with what they hold: missing files and arrays,
        pickled objects, wrong shapes, values that are missing, infinite or no numbers (row and
        column are named, counted from 1; for .csv the row is the line of the file), views of
        different size, fewer than two samples, and views without any variation.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from jepa_ode.pairs import read_pairs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "views.npz")
    ...     np.savez(file, x=np.eye(6, 4), y=np.eye(6, 4))
    ...     pairs = read_pairs(file)
    >>> pairs.x.shape, pairs.source
    ((6, 4), 'views.npz')
    """
    paths = [Path(file) for file in files]
    if len(paths) == 1:
        names = {"x": f"{paths[0]}: x", "y": f"{paths[0]}: y"}
        arrays = _read_npz(paths[0])
    elif len(paths) == 2:
        names = {"x": str(paths[0]), "y": str(paths[1])}
        arrays = {"x": _read_one(paths[0]), "y": _read_one(paths[1])}
    else:
        raise TypeError(f"read_pairs takes one .npz file or two others, got {len(paths)} files")
    flat = {key: _as_rows(names[key], array) for key, array in arrays.items()}
    x, y = flat["x"], flat["y"]
    if len(x) != len(y):
        raise DataError(
            f"{names['y']} has {len(y)} rows, {names['x']} has {len(x)}: each row of x needs its partner in y"
        )
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"{names['y']} has {y.shape[1]} columns, {names['x']} has {x.shape[1]}: "
            "the two views must have the same coordinates"
        )
    if len(x) < 2:
        raise DataError(f"{names['x']} has {len(x)} row{'s' * (len(x) != 1)}: covariances need at least 2")
    for key in ("x", "y"):
        if (flat[key] == flat[key][0]).all():
            raise DataError(f"{names[key]} is constant: all its rows are equal, there is nothing to learn")
    shapes = {array.shape[1:] for array in arrays.values() if array.ndim == 3}
    shape = shapes.pop() if len(shapes) == 1 else None
    return Pairs(
        x=x,
        y=y,
        image_shape=None if shape is None else (int(shape[0]), int(shape[1])),
        source=" and ".join(path.name for path in paths),
    )


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with _opened(path) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: a single file of pairs must be an .npz with the arrays x and y")
        missing = [key for key in ("x", "y") if key not in archive.files]
        if missing:
            there = ", ".join(sorted(archive.files)) or "nothing"
            raise DataError(f"{path}: no array {' and no array '.join(missing)} in it, it holds {there}")
        return {key: archive[key] for key in ("x", "y")}


def _read_one(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return _read_csv(path)
    with _opened(path) as array:
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: an .npz file holds both views; give it alone")
        return array


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield what NumPy finds in the file; whatever goes wrong, also while it is read, is a DataError."""
    try:
        with path.open("rb") as file:  # NumPy itself leaves damaged archives open
            yield np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What went wrong, in the terms of a user."""
    text = str(error)
    if "allow_pickle" in text or "Object arrays" in text:
        return "holds pickled objects or is no NumPy file; plain numbers are needed"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "is damaged or is no NumPy file"


def _read_csv(path: Path) -> npt.NDArray[np.float64]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            start = _first_line(path, file)
            delimiter = next((mark for mark in _DELIMITERS if mark in start[1]), ",")
            header = _is_header(start[1], delimiter)
            file.seek(0)
            try:
                # NumPy reads the good case; what it does not like is found and named line by line.
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # its word for a file without data
                    array = np.loadtxt(
                        file,
                        delimiter=delimiter,
                        skiprows=start[0] - (not header),
                        comments=None,
                        quotechar='"',
                        ndmin=2,
                    )
            except (ValueError, UserWarning):
                array = None
            if array is not None and np.isfinite(array).all():
                return array
            file.seek(0)
            raise DataError(_first_fault(path, file, delimiter, start[0] if header else None))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text file") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}".lower()) from error


def _first_line(path: Path, file: TextIO) -> tuple[int, str]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            return number, line
    raise DataError(f"{path}: is empty")


def _is_header(line: str, delimiter: str) -> bool:
    """Whether a line names columns: some field is a word, none is a number."""
    fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]
    words = [field for field in fields if field.lower() not in _MISSING]
    return bool(words) and all(_number(field) is None for field in words)


def _number(field: str) -> float | None:
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def _first_fault(path: Path, file: TextIO, delimiter: str, header: int | None) -> str:
    width = None
    reader = csv.reader(file, delimiter=delimiter)
    for fields in reader:
        row = reader.line_num
        if row == header or (len(fields) <= 1 and not "".join(fields).strip()):
            continue
        width = width or len(fields)
        for column, field in enumerate(fields, start=1):
            text = field.strip()
            number = _number(text)
            if text.lower() in _MISSING:
                return f"{path}: missing value in row {row}, column {column}"
            if number is None:
                return f"{path}: {text[:40]!r} in row {row}, column {column} is not a number"
            if not math.isfinite(number):
                return f"{path}: {text} in row {row}, column {column} is not finite"
        if len(fields) != width:
            return f"{path}: row {row} has {len(fields)} columns, the rows before have {width}"
    return f"{path}: holds no numbers" if width is None else f"{path}: cannot be read as a table of numbers"


def _as_rows(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name} must hold real numbers, it has dtype {array.dtype}")
    if array.ndim not in (2, 3):
        raise DataError(
            f"{name} must have the shape [samples, d] or [samples, height, width], it has {list(array.shape)}"
        )
    if array.size == 0:
        raise DataError(f"{name} is empty: its shape is {list(array.shape)}")
    rows = array.reshape(len(array), -1)
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = (int(k) for k in np.argwhere(~finite)[0])
        value = "missing value (nan)" if np.isnan(rows[row, column]) else f"infinite value ({rows[row, column]})"
        raise DataError(f"{name}: {value} in row {row + 1}, column {column + 1}")
    return rows
