"""The compiled engine: one module per instruction set, of which the best that runs here is chosen at import.

``engine`` is that module. The environment variable ``JEPA_ODE_ISA`` (``baseline``, ``avx2`` or ``avx512``) forces one; a
module that was not compiled or cannot run here is an ImportError, never a silent fallback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict

from . import _build_config as _config
from ._cpu_probe import features as _cpu_features

if TYPE_CHECKING:
    from . import engine as engine

__all__ = ["BuildInfo", "__version__", "build_info", "engine"]

__version__ = _config.VERSION

# Everything the compiler may use under the flags of cmake/InstructionSets.cmake, best set last. ``os_*``: the operating
# system saves these registers on a context switch.
_X86_64_V3 = (
    *("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b", "lahf"),
    *("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "osxsave", "os_ymm"),
)
_NEEDS: dict[str, tuple[str, ...]] = {
    "baseline": (),
    "avx2": _X86_64_V3,
    "avx512": (*_X86_64_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "os_zmm"),
}


def _missing(isa: str, features: Mapping[str, bool]) -> list[str]:
    return [name for name in _NEEDS[isa] if not features.get(name, False)]


def _supported(features: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(isa for isa in _NEEDS if not _missing(isa, features))


def _choose(forced: str | None, features: Mapping[str, bool], compiled: Mapping[str, str]) -> str:
    """Return the instruction set to run, or raise ImportError with the reason why the forced one cannot."""
    if not forced:
        usable = [isa for isa in _supported(features) if isa in compiled]
        if not usable:
            raise ImportError(
                f"this installation was compiled for {', '.join(compiled)} only, which this machine cannot run"
            )
        return usable[-1]
    if forced not in _NEEDS:
        raise ImportError(f"JEPA_ODE_ISA must be one of {', '.join(_NEEDS)} (or unset), got {forced!r}")
    if forced not in compiled:
        raise ImportError(f"JEPA_ODE_ISA={forced}, but this installation was compiled for {', '.join(compiled)} only")
    if missing := _missing(forced, features):
        raise ImportError(f"JEPA_ODE_ISA={forced}, but this machine lacks {', '.join(missing)}")
    return forced


def _load(isa: str) -> ModuleType:
    # Whatever was chosen goes by one name, which pickles and signatures then carry: what one instruction set wrote,
    # another reads. The name also decides the init symbol, so that a module cannot be imported past this choice.
    name = f"{__name__}.engine"
    found = find_spec(f"._{isa}", __name__)  # finds, does not load
    if found is None or found.origin is None:
        raise ImportError(f"this installation is damaged: {__name__}._{isa} is missing; reinstall jepa-ode")
    spec = spec_from_file_location(name, found.origin)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_isa = _choose(os.environ.get("JEPA_ODE_ISA"), _cpu_features(), _config.FLAGS)
if not TYPE_CHECKING:
    engine = _load(_isa)


class BuildInfo(TypedDict):
    """What :func:`build_info` returns."""

    version: str
    isa: str
    isas_compiled: tuple[str, ...]
    isas_supported: tuple[str, ...]
    forced: bool
    compiler: str
    flags: str
    build_type: str
    eigen: str
    threads: int


def build_info() -> BuildInfo:
    """Return how the engine that runs was built and why it was chosen.

    Returns
    -------
    dict
        ``version`` of the package; ``isa``, the instruction set that runs; ``isas_compiled``, those of this installation;
        ``isas_supported``, those that this machine could run; ``forced``, whether ``JEPA_ODE_ISA`` chose; ``compiler``,
        ``flags`` and ``build_type`` of the module that runs; ``eigen``, the version of Eigen inside it; ``threads``,
        the number that ``threads=None`` means now.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> info = jo.build_info()
    >>> info["isa"] in info["isas_compiled"] and info["isa"] in info["isas_supported"]
    True
    """
    from .._threads import available_cpus

    return {
        "version": _config.VERSION,
        "isa": _isa,
        "isas_compiled": tuple(_config.FLAGS),
        "isas_supported": _supported(_cpu_features()),
        "forced": bool(os.environ.get("JEPA_ODE_ISA")),
        "compiler": _config.COMPILER,
        "flags": _config.FLAGS[_isa],
        "build_type": _config.BUILD_TYPE,
        "eigen": _config.EIGEN,
        "threads": available_cpus(),
    }
