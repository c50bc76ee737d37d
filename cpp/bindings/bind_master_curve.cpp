// The exact solution: responses, times and fixed points of an ensemble of features.
#include <stdexcept>

#include "bindings.hpp"
#include "jepa_ode/exact.hpp"
#include "jepa_ode/feature_curve.hpp"
#include "jepa_ode/objective.hpp"
#include "jepa_ode/sensitivity.hpp"
#include "jepa_ode/status.hpp"
#include "output_array.hpp"

namespace jepa_ode::bindings {

namespace {

Ensemble ensemble(const Array& lambda, const Array& sigma2, const Array& eps) {
  return {lambda.data(), sigma2.data(), eps.data(), static_cast<std::size_t>(lambda.size())};
}

// Fills w, the responses [n, m], which Python has allocated: float64 or float32.
py::array_t<std::int8_t> solve(const Array& lambda, const Array& sigma2, const Array& eps, double depth, int objective,
                               const Array& t, unsigned threads, py::array w) {
  const auto curve = ExactCurve::of(objective_of(objective), depth);
  const bool row_per_feature = t.ndim() == 2;
  const auto n_times = static_cast<std::size_t>(t.shape(t.ndim() - 1));
  if (w.ndim() != 2 || w.shape(0) != lambda.size() || w.shape(1) != t.shape(t.ndim() - 1) ||
      !(w.flags() & py::array::c_style)) {
    throw std::invalid_argument("out does not hold one response per feature and time");
  }
  const Ensemble features = ensemble(lambda, sigma2, eps);
  const double* times = t.data();
  py::array_t<std::int8_t> status(lambda.size());
  static_assert(sizeof(Status) == sizeof(std::int8_t));
  Status* codes = reinterpret_cast<Status*>(status.mutable_data());
  const auto run = [&](auto* out) {
    run_without_gil([&](Interrupt& interrupt) {
      solve_exact(*curve, features, times, n_times, row_per_feature, threads, interrupt, out, codes);
    });
  };
  if (w.dtype().num() == py::dtype::num_of<float>()) {
    run(static_cast<float*>(w.mutable_data()));
  } else if (w.dtype().num() == py::dtype::num_of<double>()) {
    run(static_cast<double*>(w.mutable_data()));
  } else {
    throw std::invalid_argument("out is neither float64 nor float32");
  }
  return status;
}

std::tuple<Array, Array, Array, Array> sensitivity(const Array& lambda, const Array& sigma2, const Array& eps,
                                                   double depth, int objective, const Array& t, unsigned threads) {
  const MasterCurve curve(objective_of(objective), depth);
  const bool row_per_feature = t.ndim() == 2;
  const py::ssize_t n_times = t.shape(t.ndim() - 1);
  const auto array = [&] { return Array({lambda.size(), n_times}); };
  std::tuple<Array, Array, Array, Array> derivatives{array(), array(), array(), array()};
  const Sensitivities out{std::get<0>(derivatives).mutable_data(), std::get<1>(derivatives).mutable_data(),
                          std::get<2>(derivatives).mutable_data(), std::get<3>(derivatives).mutable_data()};
  const Ensemble features = ensemble(lambda, sigma2, eps);
  const double* times = t.data();
  run_without_gil([&](Interrupt& interrupt) {
    solve_sensitivities(curve, features, times, static_cast<std::size_t>(n_times), row_per_feature, threads, interrupt,
                        out);
  });
  return derivatives;
}

Array reach(const Array& lambda, const Array& sigma2, const Array& eps, double depth, int objective, const Array& w,
            unsigned threads) {
  const auto curve = ExactCurve::of(objective_of(objective), depth);
  Array t(lambda.size());
  const Ensemble features = ensemble(lambda, sigma2, eps);
  const double* target = w.data();
  double* out = t.mutable_data();
  run_without_gil([&](Interrupt& interrupt) { time_to_reach(*curve, features, target, threads, interrupt, out); });
  return t;
}

Array critical(const Array& lambda, const Array& sigma2, const Array& eps, double depth, int objective, double fraction,
               unsigned threads) {
  const auto curve = ExactCurve::of(objective_of(objective), depth);
  Array t(lambda.size());
  const Ensemble features = ensemble(lambda, sigma2, eps);
  double* out = t.mutable_data();
  run_without_gil([&](Interrupt& interrupt) { critical_time(*curve, features, fraction, threads, interrupt, out); });
  return t;
}

Array fixed(const Array& lambda, const Array& sigma2, double depth, int objective) {
  const MasterCurve curve(objective_of(objective), depth);
  Array w(lambda.size());
  for (py::ssize_t i = 0; i < lambda.size(); ++i) {
    w.mutable_data()[i] = fixed_point(curve, lambda.data()[i], sigma2.data()[i]);
  }
  return w;
}

}  // namespace

void bind_master_curve(py::module_& module) {
  module.def("solve_exact", &solve, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(),
             py::arg("eps").noconvert(), py::arg("depth"), py::arg("objective"), py::arg("t").noconvert(),
             py::arg("threads"), py::arg("out").noconvert(),
             "Writes the responses into out [n, m], float64 or float32; returns statuses [n] (THEORY.md 3).");
  module.def("output_array", &output_array, py::arg("rows"), py::arg("columns"), py::arg("single"),
             "An uninitialised array [rows, columns] of float64 or float32, in memory of earlier ones if it can be.");
  module.def("sensitivity", &sensitivity, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(),
             py::arg("eps").noconvert(), py::arg("depth"), py::arg("objective"), py::arg("t").noconvert(),
             py::arg("threads"), "Derivatives [n, m] of the responses with respect to lam, sigma2, eps and t.");
  module.def("time_to_reach", &reach, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(),
             py::arg("eps").noconvert(), py::arg("depth"), py::arg("objective"), py::arg("w").noconvert(),
             py::arg("threads"), "Time [n] from eps to w, inf where never.");
  module.def("critical_time", &critical, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(),
             py::arg("eps").noconvert(), py::arg("depth"), py::arg("objective"), py::arg("fraction"),
             py::arg("threads"), "Time [n] from eps to a fraction of the fixed point (THEORY.md 4), inf where never.");
  module.def("fixed_point", &fixed, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(), py::arg("depth"),
             py::arg("objective"), "Fixed points w* [n], 0 for lam <= 0.");
}

}  // namespace jepa_ode::bindings
