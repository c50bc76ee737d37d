// The adaptive Runge-Kutta solution of an ensemble of features, and the methods themselves as data.
#include <string>

#include "bindings.hpp"
#include "jepa_ode/objective.hpp"
#include "jepa_ode/runge_kutta.hpp"
#include "jepa_ode/status.hpp"
#include "jepa_ode/tableau.hpp"
#include "output_array.hpp"

namespace jepa_ode::bindings {

namespace {

py::tuple solve_features(const Array& lambda, const Array& sigma2, const Array& eps, double depth, int objective,
                         const Array& t, const std::string& method, double rtol, double atol, std::int64_t max_steps,
                         unsigned threads) {
  const RungeKuttaOptions options{method_of(method), rtol, atol, max_steps};
  const bool row_per_feature = t.ndim() == 2;
  const py::ssize_t n_times = t.shape(t.ndim() - 1);
  const Ensemble features{lambda.data(), sigma2.data(), eps.data(), static_cast<std::size_t>(lambda.size())};
  Array w = output_array(lambda.size(), n_times, false);
  py::array_t<std::int8_t> status(lambda.size());
  py::array_t<std::int64_t> nfev(lambda.size());
  static_assert(sizeof(Status) == sizeof(std::int8_t));
  const double* times = t.data();
  double* out = w.mutable_data();
  Status* codes = reinterpret_cast<Status*>(status.mutable_data());
  std::int64_t* counts = nfev.mutable_data();
  run_without_gil([&](Interrupt& interrupt) {
    solve_runge_kutta(objective_of(objective), depth, features, times, static_cast<std::size_t>(n_times),
                      row_per_feature, options, threads, interrupt, out, codes, counts);
  });
  return py::make_tuple(w, status, nfev);
}

template <std::size_t rows, std::size_t columns>
Array matrix(const double (&table)[rows][columns]) {
  return Array({rows, columns}, &table[0][0]);
}

template <class Method>
py::dict tableau_of() {
  py::dict data;
  data["order"] = Method::order;
  data["dense_order"] = Method::dense_order;
  data["stages"] = Method::stages;
  data["c"] = Array(Method::extended, Method::c);
  data["a"] = matrix(Method::a);
  data["error"] = matrix(Method::error);
  data["dense"] = matrix(Method::dense);
  return data;
}

py::dict tableau(const std::string& method) {
  switch (method_of(method)) {
    case RungeKuttaMethod::tsit5:
      return tableau_of<Tsit5>();
    case RungeKuttaMethod::dop853:
      return tableau_of<Dop853>();
  }
  throw std::logic_error("a Runge-Kutta method without a tableau");
}

}  // namespace

void bind_feature_solver(py::module_& module) {
  module.def("solve_runge_kutta", &solve_features, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(),
             py::arg("eps").noconvert(), py::arg("depth"), py::arg("objective"), py::arg("t").noconvert(),
             py::arg("method"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"), py::arg("threads"),
             "Responses [n, m], statuses [n] and evaluations [n] by adaptive steps (THEORY.md 2).");
  module.def("tableau", &tableau, py::arg("method"),
             "The coefficients of a Runge-Kutta method, as tableau.hpp names them.");
}

}  // namespace jepa_ode::bindings
