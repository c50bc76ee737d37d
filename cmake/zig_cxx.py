#!/usr/bin/env python3
"""The clang that the wheel `ziglang` holds, as a C++ compiler for CMake: CXX=cmake/zig_cxx.py (`make clang`)."""

import os
import sys

# Zig writes the names of the x86-64 levels its own way: -mcpu=x86_64_v3.
arguments = [
    "-mcpu=" + a.removeprefix("-march=").replace("-", "_") if a.startswith("-march=") else a for a in sys.argv[1:]
]
os.execvp("python-zig", ["python-zig", "c++", *arguments])
