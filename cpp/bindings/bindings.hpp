// What every bind_*.cpp shares: the arrays that cross the seam, and how Ctrl-C reaches the engine.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "jepa_ode/objective.hpp"
#include "jepa_ode/parallel.hpp"
#include "jepa_ode/runge_kutta.hpp"
#include "jepa_ode/tableau.hpp"

namespace jepa_ode::bindings {

namespace py = pybind11;

// Python validates and converts (python/jepa_ode/_validate.py) before it calls: here an array is C-contiguous float64
// or the call is a programming error, which `noconvert` arguments make loud.
using Array = py::array_t<double, py::array::c_style>;

inline void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

// What Python's codes and names stand for (objectives.py, solve.py).
inline Objective objective_of(int code) { return code == 0 ? Objective::jepa : Objective::mae; }

inline RungeKuttaMethod method_of(const std::string& name) {
  if (name == Tsit5::name) return RungeKuttaMethod::tsit5;
  if (name == Dop853::name) return RungeKuttaMethod::dop853;
  throw std::invalid_argument("no Runge-Kutta method is called '" + name + "'");
}

// True when a Python signal handler raised: runs on the calling thread, which released the GIL for the engine.
inline bool python_wants_to_stop() {
  const py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Runs `work(interrupt)` without the GIL. Safe because the engine sees native arrays only, never a Python object; their
// owners are kept alive by the caller's frame.
template <class Work>
void run_without_gil(Work&& work) {
  bool interrupted = false;
  {
    const py::gil_scoped_release no_gil;
    Interrupt interrupt(python_wants_to_stop);
    try {
      work(interrupt);
    } catch (const Interrupted&) {
      interrupted = true;
    }
  }
  if (interrupted) throw py::error_already_set();  // the exception that the signal handler left pending
}

// One function per noun; module.cpp is their table of contents.
void bind_master_curve(py::module_& module);
void bind_feature_solver(py::module_& module);
void bind_layer_solver(py::module_& module);
void bind_linear_network(py::module_& module);
void bind_trainer(py::module_& module);

}  // namespace jepa_ode::bindings
