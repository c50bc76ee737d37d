// New arrays for results, in memory that earlier results have given back.
//
// The system hands out fresh pages at about 1 ns per number, half of what the exact solution of one costs. So arrays of
// 1 to 64 MiB come from here: when one is garbage-collected its memory waits for the next, at most 64 MiB in all.
#pragma once

#include "bindings.hpp"

namespace jepa_ode::bindings {

// An uninitialised, C-contiguous array [rows, columns] of float64 or, `single`, float32.
py::array output_array(py::ssize_t rows, py::ssize_t columns, bool single);

}  // namespace jepa_ode::bindings
