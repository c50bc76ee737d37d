// The adaptive solution of an ensemble of layer systems: every objective, any start of the predictor.
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "bindings.hpp"
#include "jepa_ode/layer_solver.hpp"

namespace jepa_ode::bindings {

namespace {

LayerTarget target_of(const std::string& name) {
  if (name == "own") return LayerTarget::own;
  if (name == "differentiated") return LayerTarget::differentiated;
  if (name == "average") return LayerTarget::average;
  if (name == "data") return LayerTarget::data;
  throw std::invalid_argument("no target is called '" + name + "'");
}

std::tuple<Array, Array, std::optional<Array>, py::array_t<std::int8_t>, py::array_t<std::int64_t>> solve_layers(
    const Array& lambda, const Array& sigma2, const std::optional<Array>& sigma2_y, const Array& eps,
    const std::optional<Array>& predictor, double depth, const std::string& target, double decay, double tau,
    const Array& t, const std::string& method, double rtol, double atol, std::int64_t max_steps, unsigned threads) {
  const RungeKuttaOptions options{method_of(method), rtol, atol, max_steps};
  LayerProblem problem;
  problem.target = target_of(target);
  problem.depth = depth;
  problem.decay = decay;
  problem.tau = tau;
  problem.features = {lambda.data(), sigma2.data(), eps.data(), static_cast<std::size_t>(lambda.size())};
  problem.sigma2_y = sigma2_y ? sigma2_y->data() : nullptr;
  problem.predictor = predictor ? predictor->data() : nullptr;

  const py::ssize_t n_times = t.shape(t.ndim() - 1);
  const std::array<py::ssize_t, 2> shape{lambda.size(), n_times};
  Array w(shape), v(shape);
  std::optional<Array> b;
  if (problem.target == LayerTarget::average) b.emplace(shape);
  py::array_t<std::int8_t> status(lambda.size());
  py::array_t<std::int64_t> nfev(lambda.size());
  static_assert(sizeof(Status) == sizeof(std::int8_t));
  const LayerOutput output{w.mutable_data(), v.mutable_data(), b ? b->mutable_data() : nullptr,
                           reinterpret_cast<Status*>(status.mutable_data()), nfev.mutable_data()};
  const double* times = t.data();
  const bool row_per_feature = t.ndim() == 2;
  run_without_gil([&](Interrupt& interrupt) {
    solve_layers(problem, times, static_cast<std::size_t>(n_times), row_per_feature, options, threads, interrupt,
                 output);
  });
  return {w, v, b, status, nfev};
}

}  // namespace

void bind_layer_solver(py::module_& module) {
  module.def("solve_layers", &solve_layers, py::arg("lam").noconvert(), py::arg("sigma2").noconvert(),
             py::arg("sigma2_y").noconvert(), py::arg("eps").noconvert(), py::arg("predictor").noconvert(),
             py::arg("depth"), py::arg("target"), py::arg("decay"), py::arg("tau"), py::arg("t").noconvert(),
             py::arg("method"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"), py::arg("threads"),
             "Responses, predictors and target layers [n, m], statuses and evaluations [n] of layer systems "
             "(THEORY.md 2).");
}

}  // namespace jepa_ode::bindings
