"""The compiled modules: which one runs, what it may use, what it exports (RELIABILITY.md 29, 31)."""

from __future__ import annotations

import importlib.metadata
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jepa_ode
from entries import ENTRIES
from jepa_ode import _core
from record import Records

ISAS = tuple(_core._NEEDS)
INFO = jepa_ode.build_info()
MODULES = {isa: next(Path(_core.__file__).parent.glob(f"_{isa}.*")) for isa in INFO["isas_compiled"]}
PROBE = Path(_core.__file__).parent / Path(sys.modules["jepa_ode._core._cpu_probe"].__file__).name
ON_X86_64_LINUX = sys.platform == "linux" and "-march=x86-64" in INFO["flags"]

everything = dict.fromkeys({need for needs in _core._NEEDS.values() for need in needs}, True)


def run(code: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with an instruction set forced."""
    environment = {key: value for key, value in os.environ.items() if key != "JEPA_ODE_ISA"}
    if isa is not None:
        environment["JEPA_ODE_ISA"] = isa
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def tool(name: str) -> str:
    """Return the path of a program that reads or emulates machine code, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# --- the choice ---


def test_best_supported_set_is_chosen() -> None:
    code = "import jepa_ode; print(jepa_ode.build_info()['isa'], jepa_ode.build_info()['forced'])"
    best = [isa for isa in INFO["isas_supported"] if isa in INFO["isas_compiled"]][-1]
    assert run(code).stdout.split() == [best, "False"]
    assert run(code, isa="").stdout.split() == [best, "False"]


@pytest.mark.parametrize("isa", ISAS)
def test_forced_set_runs_or_fails_loudly(isa: str) -> None:
    done = run("import jepa_ode; i = jepa_ode.build_info(); print(i['isa'], i['forced'])", isa)
    if isa in INFO["isas_compiled"] and isa in INFO["isas_supported"]:
        assert done.stdout.split() == [isa, "True"], done.stderr
    else:
        assert done.returncode == 1
        assert re.search(rf"^ImportError: JEPA_ODE_ISA={isa}, but this", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("value", ["sse2", "AVX2", "avx", " baseline"])
def test_unknown_set_fails_loudly(value: str) -> None:
    done = run("import jepa_ode", value)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: JEPA_ODE_ISA must be one of baseline, avx2, avx512 (or unset), got {value!r}"


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_every_need_is_needed(isa: str) -> None:
    assert _core._choose(isa, everything, dict.fromkeys(ISAS, "")) == isa
    for need in _core._NEEDS[isa]:
        lacking = {**everything, need: False}
        assert isa not in _core._supported(lacking)
        with pytest.raises(ImportError, match=f"JEPA_ODE_ISA={isa}, but this machine lacks {re.escape(need)}$"):
            _core._choose(isa, lacking, dict.fromkeys(ISAS, ""))
        assert _core._choose(None, lacking, dict.fromkeys(ISAS, "")) != isa


def test_choice_never_leaves_what_was_compiled_or_can_run() -> None:
    assert _core._choose(None, everything, {"baseline": "", "avx2": ""}) == "avx2"
    assert _core._choose(None, {}, dict.fromkeys(ISAS, "")) == "baseline"
    with pytest.raises(ImportError, match="compiled for avx2 only, which this machine cannot run"):
        _core._choose(None, {}, {"avx2": ""})
    with pytest.raises(
        ImportError,
        match="JEPA_ODE_ISA=avx512, but this installation was compiled for baseline only",
    ):
        _core._choose("avx512", everything, {"baseline": ""})


def test_probe_knows_every_need() -> None:
    features = _core._cpu_features()
    assert all(type(value) is bool for value in features.values())
    if ON_X86_64_LINUX:
        assert set(features) == set(everything)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the system does not list the CPU's features")
def test_probe_agrees_with_the_operating_system() -> None:
    if not ON_X86_64_LINUX:
        pytest.skip("the probe tests x86-64 only")
    line = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert line is not None
    flags = set(line.group(1).split())
    names = {
        "sse3": "pni",
        "sse4.1": "sse4_1",
        "sse4.2": "sse4_2",
        "cmpxchg16b": "cx16",
        "lahf": "lahf_lm",
        "lzcnt": "abm",
    }
    for feature, value in _core._cpu_features().items():
        if not feature.startswith("os"):
            assert value == (names.get(feature, feature) in flags), feature


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_needs_name_everything_the_flags_let_the_compiler_use(isa: str) -> None:
    if not ON_X86_64_LINUX:
        pytest.skip("compiled without x86-64 flags")
    compiler = tool("c++")

    def macros(march: str) -> set[str]:
        done = subprocess.run(
            [compiler, f"-march={march}", "-dM", "-E", "-x", "c++", os.devnull],
            capture_output=True,
            text=True,
            check=True,
        )
        return set(re.findall(r"#define __(\w+?)_?_? 1$", done.stdout, re.MULTILINE))

    used = macros({"avx2": "x86-64-v3", "avx512": "x86-64-v4"}[isa]) - macros("x86-64")
    names = {
        "sse4_1": "sse4.1",
        "sse4_2": "sse4.2",
        "bmi": "bmi1",
        "lahf_sahf": "lahf",
        "xsave": "osxsave",
        "gcc_have_sync_compare_and_swap_16": "cmpxchg16b",
        "crc32": "sse4.2",
    }
    # Not instructions: how the compiler itself evaluates, and synonyms of other macros.
    used -= {
        "SSE2_MATH",
        "FP_FAST_FMA",
        "FP_FAST_FMAF",
        "FP_FAST_FMAF32",
        "FP_FAST_FMAF64",
        "FP_FAST_FMAF32x",
    }
    used = {name for name in used if not name.lower().startswith(("evex", "k8", "tune", "x86_64_v"))}
    unknown = {names.get(name.lower(), name.lower()) for name in used} - set(_core._NEEDS[isa])
    assert not unknown


# --- the modules ---


@pytest.mark.parametrize("isa", [*MODULES, "probe"])
def test_only_the_init_symbol_is_exported(isa: str, record: Records) -> None:
    if sys.platform != "linux":
        pytest.skip("reads ELF")
    path = PROBE if isa == "probe" else MODULES[isa]
    done = subprocess.run([tool("nm"), "-D", "--defined-only", path], capture_output=True, text=True, check=True)
    exported = [line.split()[-1] for line in done.stdout.splitlines()]
    init = "PyInit__cpu_probe" if isa == "probe" else "PyInit_engine"
    assert init in exported
    record(31, "exported symbols beside the init symbol", len(exported) - 1, at_most=0)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the machine code of a module as pairs of mnemonic and operands."""
    done = subprocess.run(
        [tool("objdump"), "-d", "--no-show-raw-insn", path],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(
        r"^ +[0-9a-f]+:\t(?:(?:lock|rep|repz|repnz|data16|cs|notrack|bnd) )*(\S+)(.*)$", done.stdout, re.MULTILINE
    )
    assert len(found) > 300
    return found


# What x86-64 gained after its first version, by the extension that brought it. Not tzcnt, which is how objdump reads GCC's
# `rep bsf`: older processors do the bsf.
LATER_THAN_SSE2 = re.compile(
    r"addsubp[sd]|h(add|sub)p[sd]|lddqu|mov(ddup|shdup|sldup)|fisttp\w*|m(onitor|wait)|cmpxchg16b|[sl]ahf"  # SSE3 and its time
    r"|pabs[bwd]|palignr|ph(add|sub)s?[wd]|pmaddubsw|pmulhrsw|pshufb|psign[bwd]"  # SSSE3
    r"|p?blend\w+|dpp[sd]|(extract|insert)ps|movntdqa|mpsadbw|packusdw|pcmpeqq|p(extr|insr)[bdq]|phminposuw"  # SSE4.1
    r"|p(max|min)(sb|sd|ud|uw)|pmov[sz]x\w+|pmuldq|pmulld|ptest|round[ps][sd]"
    r"|pcmp[ei]str[im]|pcmpgtq|crc32\w*|popcnt\w*|lzcnt\w*|movbe\w*"  # SSE4.2 and its time
    r"|andn|bextr\w*|bls(i|r|msk)\w*|bzhi|mulx|p(dep|ext)|rorx|s(ar|hl|hr)x|ad[co]x|rdrand|rdseed|rdpid|xgetbv|sha\w+|aes\w+"
    r"|pclmul\w*|v(?!err|erw)\w+|k(mov|and|or|not|xor|shift|unpck|test|ortest|add|xnor)\w+"  # AVX and its opmasks
)


@pytest.mark.parametrize("isa", [*MODULES, "probe"])
def test_wide_registers_appear_where_they_may(isa: str, record: Records) -> None:
    if not ON_X86_64_LINUX:
        pytest.skip("reads x86-64 instructions")
    found = instructions(PROBE if isa == "probe" else MODULES[isa])
    registers = {name: sum(f"%{name}" in operands for _, operands in found) for name in ("ymm", "zmm")}
    allowed = {"avx2": {"ymm"}, "avx512": {"ymm", "zmm"}}.get(isa, set())
    forbidden = sum(count for name, count in registers.items() if name not in allowed)
    record(31, f"{isa}: instructions with registers wider than the set's", forbidden, at_most=0, cases=len(found))
    if isa in ("avx2", "avx512"):
        assert registers["ymm"]  # the flags took effect


@pytest.mark.parametrize("isa", ["baseline", "probe"])
def test_baseline_holds_no_instruction_that_x86_64_gained_later(isa: str, record: Records) -> None:
    if not ON_X86_64_LINUX:
        pytest.skip("reads x86-64 instructions")
    found = instructions(PROBE if isa == "probe" else MODULES[isa])
    # The probe asks for the saved registers by xgetbv, after it asked whether there is one.
    later = [name for name, _ in found if LATER_THAN_SSE2.fullmatch(name) and (isa, name) != ("probe", "xgetbv")]
    record(31, f"{isa}: instructions later than SSE2", len(later), at_most=0, cases=len(found))
    if "avx512" in MODULES:  # the same look finds them where they are
        assert any(LATER_THAN_SSE2.fullmatch(name) for name, _ in instructions(MODULES["avx512"]))


# Results and, as they enter the error measure E = |dw| / (L w + t |w'|) of a change dw, those denominators.
ON_AN_OLD_PROCESSOR = """
import sys, numpy as np, jepa_ode as jo
info = jo.build_info()
assert info["isa"] == "baseline" and (info["forced"] or info["isas_supported"] == ("baseline",)), info
k = np.arange(1.0, 60.0)
spec, t = jo.Spectrum(np.sin(k), sigma2=1.5 + np.cos(k)), np.array([0.0, 0.3, 7.0, 200.0, 5e4])
results = {}
for objective in ("jepa", "mae"):
    for depth in (1, 2.5, 4):
        for method in ("exact", "tsit5", "dop853"):
            sol = jo.solve(spec, objective, depth=depth, eps=0.01, t=t, method=method)
            results[f"{method} {objective} {depth}"] = sol.w, depth * sol.w + t * abs(sol.sensitivity().t)
    times = jo.critical_time(spec[spec.lam > 0], objective, depth=3, eps=0.01)
    results[f"exact {objective} time"] = times, times
np.savez(sys.stdout.buffer, **{name: np.stack(values) for name, values in results.items()})
"""


def test_baseline_runs_on_a_processor_without_avx(record: Records) -> None:
    """An emulated Nehalem (2008), which stops at every instruction that it does not know (RELIABILITY.md 15)."""
    if "baseline" not in MODULES or not ON_X86_64_LINUX:
        pytest.skip("emulates x86-64 on Linux, for the baseline")
    environment = {key: value for key, value in os.environ.items() if key != "JEPA_ODE_ISA"}

    def results(environment: dict[str, str], *emulator: str) -> dict[str, Any]:
        command = [*emulator, sys.executable, "-c", ON_AN_OLD_PROCESSOR]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr.decode()
        return dict(np.load(io.BytesIO(done.stdout)))

    there = results(environment, tool("qemu-x86_64"), "-cpu", "Nehalem")
    here = results({**environment, "JEPA_ODE_ISA": "baseline"})
    for name, (reference, scale) in here.items():
        change = abs(there[name][0] - reference)
        error = np.divide(change, scale, out=np.zeros_like(scale), where=change != 0)
        if name.startswith("exact"):
            record(15, "baseline on an emulated Nehalem: exact, E / eps_m", error / np.spacing(1.0), at_most=4)
        else:  # the C library rounds powers otherwise there, and thousands of steps add that up; far below rtol = 1e-8
            assert error.max() < 1e-12, name


def test_engine_goes_by_one_name_whatever_was_chosen() -> None:
    assert _core.engine.__name__ == "jepa_ode._core.engine"
    text = pickle.dumps(jepa_ode.Status.MAX_STEPS, protocol=0).decode()
    assert "jepa_ode._core.engine" in text
    assert not any(f"_{isa}" in text for isa in ISAS)
    assert pickle.loads(text.encode()) is jepa_ode.Status.MAX_STEPS


def test_status_has_a_sentence_for_each_value() -> None:
    sentences = {jepa_ode.Status(code): _core.engine.status_message(jepa_ode.Status(code)) for code in range(5)}
    assert [status.name for status in sentences] == [
        "OK",
        "MAX_STEPS",
        "STEP_TOO_SMALL",
        "NOT_FINITE",
        "STOPPED",
    ]
    assert len(set(sentences.values())) == 5
    with pytest.raises(ValueError, match="5"):
        jepa_ode.Status(5)


def test_build_info_tells_what_runs() -> None:
    assert INFO["version"] == importlib.metadata.version("jepa-ode")
    assert INFO["isa"] in INFO["isas_compiled"]
    assert INFO["isa"] in INFO["isas_supported"]
    assert INFO["forced"] == bool(os.environ.get("JEPA_ODE_ISA"))
    assert re.fullmatch(r"\w+ [\d.]+", INFO["compiler"])
    assert INFO["build_type"] in ("Release", "RelWithDebInfo", "Debug", "MinSizeRel")
    assert tuple(map(int, INFO["eigen"].split("."))) >= (3, 4, 0)
    assert INFO["threads"] >= 1
    for forbidden in ("-march=native", "-ffast-math", "-Ofast", "-funsafe-math-optimizations"):
        assert forbidden not in INFO["flags"]
    if "GNU" in INFO["compiler"] or "Clang" in INFO["compiler"]:
        for needed in ("-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion"):
            assert needed in INFO["flags"]


def test_floating_point_environment_is_left_alone(record: Records) -> None:
    """Rounding, exceptions and flush-to-zero are those of the process before the import (RELIABILITY.md 29)."""
    if not ON_X86_64_LINUX:
        pytest.skip("knows the layout of fenv_t of glibc on x86-64 only")
    done = run(
        """
import ctypes
def control():
    state = (ctypes.c_uint8 * 32)()  # fenv_t: the x87 control word first, MXCSR last
    assert ctypes.CDLL("libm.so.6").fegetenv(state) == 0
    mxcsr = int.from_bytes(state[28:], "little") & ~0x3f  # without the sticky exception flags
    return int.from_bytes(state[:2], "little"), mxcsr
before = control()
assert before[1] == 0x1f80, hex(before[1])
import jepa_ode as jo
print("import", control() != before)
sol = jo.solve(jo.Spectrum([1.0, 1e-300], sigma2=[1.0, 1.0]), "jepa", depth=3, eps=1e-300, t=[0.0, 1.0, 1e308])
print("extremes", control() != before)
import sys
sys.path.insert(0, TESTS)
from entries import ENTRIES
for name, entry in ENTRIES.items():
    entry.small()()
    print(name, control() != before)
assert 5e-324 * 1.0 > 0
""".replace("TESTS", repr(str(Path(__file__).parent)))
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    changed = [line.endswith("True") for line in done.stdout.splitlines()]
    assert len(changed) == 2 + len(ENTRIES)
    record(29, "calls after which control words differ", changed, at_most=0)


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
code = "try: import jepa_ode\\nexcept ImportError as error: print('refused:', error)"
{first}
run(interpreters.create(), code)
"""


@pytest.mark.parametrize("first", ["", "import jepa_ode"])
def test_subinterpreters_are_refused(first: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETER.format(first=first)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "refused: jepa_ode runs in the main interpreter only" in done.stdout, done.stderr
