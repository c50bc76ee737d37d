"""What calls do to their process: Ctrl-C, other threads, children, memory, for every main entry (RELIABILITY.md 24 to 28)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jepa_ode as jo
from conftest import case_count
from entries import ENTRIES, covariances, spectrum
from record import Records

HEAD = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import entries
from entries import ENTRIES, same, size, small
"""
reads_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")

# What /proc tells of this process alone: the peak that getrusage knows is at first that of the process it came from.
MEMORY = """
import gc
def memory(what):  # MiB
    for line in open("/proc/self/status"):
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
def peak_since(before):  # begin anew with None
    if before is None:
        gc.collect()
        open("/proc/self/clear_refs", "w").write("5")
        return memory("VmRSS")
    return memory("VmHWM") - before
"""


def child(code: str, **settings: Any) -> subprocess.Popen[str]:
    """Start Python code that knows the entries and ``settings``; what it prints are lines of a name and a number."""
    given = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    return subprocess.Popen([sys.executable, "-c", HEAD + given + code], stdout=subprocess.PIPE, text=True)


def measured(code: str, timeout: float, **settings: Any) -> dict[str, list[float]]:
    """Return what the code printed of each entry; every one has to be there."""
    found = defaultdict(list)
    with child(code, **settings) as process:
        try:
            output = process.communicate(timeout=timeout)[0]
        finally:
            process.kill()
    print(output)
    assert process.returncode == 0
    for line in output.splitlines():
        name, numbers = line.rsplit(":", 1)
        found[name].append([float(number) for number in numbers.split()])
    return found


# --- Ctrl-C (25) ------------------------------------------------------------------------------------

INTERRUPTED = """
for name, entry in ENTRIES.items():
    call, next_call = entry.lasting(), entry.small()
    expected = next_call()
    for _ in range(count):
        print(name, flush=True)
        try:
            call()
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
        print(same(next_call(), expected), flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_every_call_at_once(record: Records) -> None:
    """And the next call is correct. In a campaign every time counts, on the busy machine of a change the best of three."""
    count, rng = case_count(3, 50), random.Random(0)
    with child(INTERRUPTED, count=count) as process:
        assert process.stdout is not None
        try:
            for name in ENTRIES:
                waits = []
                for _ in range(count):
                    assert process.stdout.readline() == f"{name}\n"
                    time.sleep(rng.uniform(0.05, 0.3))
                    pressed = time.monotonic()
                    process.send_signal(signal.SIGINT)
                    ended, correct = float(process.stdout.readline()), process.stdout.readline()
                    waits.append(ended - pressed)
                    record(25, "next calls that are wrong", correct != "True\n", at_most=0)
                print(name, waits)
                counted = case_count(0, 1) * waits or [min(waits)]
                record(25, "time from Ctrl-C to the end of the call, in seconds", counted, at_most=0.3)
            assert process.wait(60) == 0
        finally:
            process.kill()


# --- threads and children (26, 27) --------------------------------------------------------------------

MEANWHILE = """
import _thread, threading
def tick():
    global ticks
    begin = time.monotonic()
    while time.monotonic() < begin + 0.25:
        time.sleep(0.001)
        ticks += 1
    _thread.interrupt_main()
for name, entry in ENTRIES.items():
    for _ in range(count):
        call, ticks = entry.lasting(), 0
        thread = threading.Thread(target=tick)
        try:
            thread.start()
            call()
        except KeyboardInterrupt:
            print(f"{name}: {ticks}", flush=True)
        thread.join()
"""


def test_other_threads_run_meanwhile(record: Records) -> None:
    """The GIL is released."""
    count = case_count(1, 10)
    for name, ticks in measured(MEANWHILE, timeout=280, count=count).items():
        assert name in ENTRIES
        assert len(ticks) == count
        record(26, "turns of another thread during 0.25 s of a call", ticks, at_least=5)


CHILDREN = """
import multiprocessing
if __name__ == "__main__":
    expected = {name: small(name) for name in ENTRIES}  # on threads, which have come and gone
    names = list(ENTRIES) * count
    with multiprocessing.get_context(method).Pool(2) as pool:
        for name, result in zip(names, pool.map_async(small, names, chunksize=1).get(timeout=250)):
            print(f"{name}: {not same(result, expected[name])}".replace("True", "1").replace("False", "0"))
    for name in ENTRIES:
        assert same(small(name), expected[name])
"""


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_a_process_that_solved_on_threads(method: str, record: Records) -> None:
    """None hangs, and each has the same numbers."""
    count = case_count(1, 50)
    for name, wrong in measured(CHILDREN, timeout=280, method=method, count=count).items():
        assert name in ENTRIES
        assert len(wrong) == count
        record(27, "calls in children that hang or differ", wrong, at_most=0)


# --- memory (24, 28) ----------------------------------------------------------------------------------

REPEATED = """
import gc
for name, entry in ENTRIES.items():
    call = entry.small()
    for _ in range(400):
        call()
    before, kept = peak_since(None), []
    for _ in range(5):
        gc.collect()
        blocks = sys.getallocatedblocks()
        for _ in range(count // 5):
            call()
        gc.collect()
        kept.append((sys.getallocatedblocks() - blocks) / (count // 5))
    print(f"{name}: {peak_since(before)} {min(kept)}")  # what is kept for good is kept in each fifth
"""


@reads_proc
def test_calls_keep_nothing(record: Records) -> None:
    """Neither memory nor Python objects, over 10^4 calls of each entry."""
    count = case_count(400, 10_000)
    found = measured(MEMORY + REPEATED, timeout=case_count(280, 3600), count=count)
    assert found.keys() == ENTRIES.keys()
    for ((grown, objects),) in found.values():
        record(24, "memory kept by repeated calls, in MiB", grown, at_most=8, cases=count)
        record(24, "Python objects kept per call", objects, at_most=0.9, cases=count)  # one is a leak


REFUSED = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_AS)
def limit(room):  # the memory that is free within the process is taken first, and returned
    ballast = []
    resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize") * 2**20), most))
    try:
        while True:
            ballast.append(bytearray(2**18))
    except MemoryError:
        resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize") * 2**20 + room), most))
    return ballast
for name, entry in ENTRIES.items():
    next_call, call = entry.small(), entry.large()
    expected, whole = next_call(), call()
    done = 0
    for k in range(count + 1):  # up to the first that suffices each is refused at a place of its own
        room = 2 ** (16 + 11 * k / count) if k < count else 2**30  # bytes
        ballast, refused, wrong = limit(room), 0, 0
        try:
            wrong = not same(call(), whole)
        except MemoryError:
            refused = 1
        except BaseException as error:
            print(type(error), error, file=sys.stderr)
            wrong = 1
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        del ballast
        print(f"{name}: {refused} {int(wrong)} {int(not same(next_call(), expected))}", flush=True)
        done += not refused
        if done == 2:
            break
"""


@reads_proc
def test_memory_that_is_refused(record: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """MemoryError, at whatever place, and the next call works."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # its threads end the process where they get no memory
    found = measured(MEMORY + REFUSED, timeout=case_count(280, 3600), count=case_count(5, 300))
    assert found.keys() == ENTRIES.keys()
    for outcomes in found.values():
        refused, wrong, wrong_next = np.array(outcomes).T
        assert refused.any()
        assert not refused.all()
        record(28, "calls without memory that end in anything but MemoryError", wrong, at_most=0)
        record(28, "calls after it that are wrong", wrong_next, at_most=0)


PEAK = """
for name, entry in ENTRIES.items():
    entry.small()()
    call = entry.large()
    before = peak_since(None)
    result = call()
    print(f"{name}: {peak_since(before) - size(result) / 2**20}")
    del result, call
"""

# Results of no size after very many steps: of features each, of a flow, of a training.
STEPS = """
many = entries.spectrum(2000)
average = entries.jo.JEPA(ema=0.5, weight_decay=0.01)
def solve(objective, method):
    sol = entries.jo.solve(many, objective, depth=2, eps=1e-4, t=[1e9], method=method, rtol=1e-12)
    return int(sol.nfev.sum())
calls = {
    "tsit5": lambda: solve("jepa", "tsit5"),
    "dop853": lambda: solve("mae", "dop853"),
    "layer systems": lambda: solve(average, "dop853"),
    "gradient_flow": lambda: entries.flows(1, 4, [0.0, 1e12], method="tsit5", max_steps=steps)().nfev,
    "train": lambda: entries.training(4, 20, steps)().steps,
}
for name, call in calls.items():
    before = peak_since(None)
    taken = call()
    print(f"{name}: {peak_since(before)} {taken}")
"""


@reads_proc
def test_peak_memory_is_that_of_the_results(record: Records) -> None:
    """And 64 MiB at most, whatever the number of steps."""
    found = measured(MEMORY + PEAK, timeout=280)
    assert found.keys() == ENTRIES.keys()
    for ((beyond,),) in found.values():
        record(28, "peak memory beyond inputs and results, in MiB", beyond, at_most=64)
    steps = case_count(30_000, 3_000_000)
    for ((beyond, taken),) in measured(MEMORY + STEPS, timeout=case_count(280, 3600), steps=steps).values():
        assert taken >= steps
        record(28, "peak memory beyond inputs and results, in MiB", beyond, at_most=64)


WAITING = """
spec = entries.spectrum(10_000)
def solve(m):
    entries.jo.solve(spec, "jepa", depth=2, eps=0.1, t=range(m))
solve(100)
before = peak_since(None)
for m in range(100, 400, 25):  # 8 to 30 MiB each, one at a time
    solve(m)
print(f"waiting: {peak_since(before)}")
"""


@reads_proc
def test_waiting_memory_is_bounded() -> None:
    """What responses leave behind for the next ones to take: 64 MiB at most, beside the last ones."""
    ((beyond,),) = measured(MEMORY + WAITING, timeout=280)["waiting"]
    assert beyond < 31 + 64 + 8


def test_results_too_large_are_refused_before_work(monkeypatch: pytest.MonkeyPatch, record: Records) -> None:
    """n times m beyond memory, or beyond all numbers of bytes, is an error at once, and the next call works."""
    n = m = 1_000_000
    spec, t, cov = spectrum(n), np.zeros(m), covariances(200)
    net, features = jo.LinearNetwork.balanced(200, 2, 0.1), cov.spectrum()
    steps = {"features": features, "keep_weights": True}
    calls: dict[str, Any] = {
        method: lambda method=method: jo.solve(spec, "jepa", depth=1, eps=0.1, t=t, method=method)
        for method in ("exact", "tsit5", "dop853")
    }
    calls["layer systems"] = lambda: jo.solve(spec, jo.JEPA(ema=1.0), depth=1, eps=0.1, t=t)
    calls["gradient_flow"] = lambda: jo.gradient_flow(net, cov, "jepa", t=np.zeros(3 * m), **steps)
    calls["train"] = lambda: jo.train(net, cov, "jepa", lr=0.1, steps=3 * m, snapshots=3 * m, **steps)
    for call in calls.values():
        begin = time.perf_counter()
        with pytest.raises((MemoryError, ValueError)):
            call()
        record(28, "time to refuse what is too large, in seconds", time.perf_counter() - begin, at_most=2)
    # No memory holds times that make n m overflow, so they are but claimed.
    monkeypatch.setattr(sys.modules["jepa_ode.solve"], "as_times", lambda *_: np.broadcast_to(0.0, 2**59))
    for method in ("exact", "tsit5", "dop853"):
        with pytest.raises(ValueError, match="more values than memory has addresses"):
            jo.solve(spectrum(40), "jepa", depth=1, eps=0.1, t=0.0, method=method)
    monkeypatch.undo()
    for entry in ENTRIES.values():
        entry.small()()
