// Linear networks and their gradient flow. Python's `jepa_ode.gradient_flow` validates; here shapes are only asserted.
#include <pybind11/stl.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "jepa_ode/gradient_flow.hpp"
#include "jepa_ode/linear_network.hpp"

namespace jepa_ode::bindings {

namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

bool is_matrix(const Array& array, py::ssize_t rows, py::ssize_t columns) {
  return array.ndim() == 2 && array.shape(0) == rows && array.shape(1) == columns;
}

FlowMethod flow_method(const std::string& name) {
  if (name == "auto") return FlowMethod::automatic;
  if (name == "tsit5") return FlowMethod::tsit5;
  if (name == "dop853") return FlowMethod::dop853;
  if (name == "rock4") return FlowMethod::rock4;
  throw std::invalid_argument("no method of the flow is called '" + name + "'");
}

NetworkShape network_shape(std::vector<Index> widths, Index outputs) {
  require(widths.size() >= 2 && outputs >= 1, "a network has an input, at least one layer and a predictor");
  for (const Index width : widths) require(width >= 1, "widths must be positive");
  return {std::move(widths), outputs};
}

// Calls back at most ten times a second: often enough for a bar, too seldom to cost anything.
class PythonProgress {
 public:
  explicit PythonProgress(py::object callback) : callback_(std::move(callback)) {}

  bool operator()(double time) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_call_ < std::chrono::milliseconds(100)) return false;
    last_call_ = now;
    const py::gil_scoped_acquire gil;
    try {
      callback_(time);
      return false;
    } catch (py::error_already_set& error) {
      error.restore();  // pending until run_without_gil, back on this thread, throws it
      return true;
    }
  }

 private:
  py::object callback_;
  std::chrono::steady_clock::time_point last_call_{};
};

// What Python sees of FlowResult, with the observations.
struct Observed {
  FlowResult result;
  std::optional<Array> loss;     // [m]
  Array response;                // [n, m]
  std::optional<Array> weights;  // [m, every weight]
};

// A flow and the arrays that it borrows. Evaluations write to its workspace: one thread at a time.
class NetworkFlow {
 public:
  NetworkFlow(std::vector<Index> widths, Index outputs, int objective, bool stop_gradient, double ema_time,
              double weight_decay, Array xx, Array yx, std::optional<Array> yy)
      : xx_(std::move(xx)),
        yx_(std::move(yx)),
        yy_(std::move(yy)),
        shape_(network_shape(std::move(widths), outputs)),
        flow_(shape_, FlowTerms{static_cast<Objective>(objective), stop_gradient, ema_time, weight_decay},
              Moments{xx_.data(), yx_.data(), yy_ ? yy_->data() : nullptr}) {
    const Index d = shape_.inputs();
    require(objective == 0 || objective == 1, "objective must be 0 (JEPA) or 1 (MAE)");
    require(outputs == (objective == 0 ? shape_.encoding() : d), "the predictor's rows do not fit the objective");
    require(is_matrix(xx_, d, d) && is_matrix(yx_, d, d) && (!yy_ || is_matrix(*yy_, d, d)),
            "second moments must have shape [d, d]");
    require(stop_gradient || yy_, "without stop-gradient the flow needs Syy");
  }

  Array velocity(const Array& state, Index repeats) {
    require_state(state);
    Array velocity(state.size());
    for (Index k = 0; k < repeats; ++k) flow_.velocity(state.data(), velocity.mutable_data());
    return velocity;
  }

  double loss(const Array& state) {
    require_state(state);
    require(yy_.has_value(), "the loss needs Syy");
    return flow_.loss(state.data());
  }

  Observed integrate(const Array& state, const Array& times, const Array& directions, const std::string& method,
                     double rtol, double atol, std::int64_t max_steps, bool keep_weights, py::object progress) {
    require_state(state);
    require(times.ndim() == 1, "times must have one dimension");
    require(directions.ndim() == 2 && directions.shape(0) == shape_.inputs(), "directions must have shape [d, n]");
    const FlowSettings settings{flow_method(method), rtol, atol, max_steps};

    Observed observed;
    FlowObservation observation;
    observation.times = times.data();
    observation.count = static_cast<std::size_t>(times.size());
    observation.directions = directions.data();
    observation.features = directions.shape(1);
    observed.response = Array({directions.shape(1), times.size()});
    observation.response = observed.response.mutable_data();
    if (yy_) {
      observed.loss = Array(times.size());
      observation.loss = observed.loss->mutable_data();
    }
    if (keep_weights) {
      observed.weights = Array({times.size(), static_cast<py::ssize_t>(flow_.weights_size())});
      observation.weights = observed.weights->mutable_data();
    }
    const FlowProgress callback = progress.is_none() ? FlowProgress{} : FlowProgress{PythonProgress(progress)};
    run_without_gil([&](Interrupt& interrupt) {
      observed.result = gradient_flow(flow_, state.data(), settings, observation, interrupt, callback);
    });
    return observed;
  }

 private:
  void require_state(const Array& state) const {
    require(state.ndim() == 1 && state.size() == flow_.state_size(), "the state does not fit the network");
  }

  Array xx_, yx_;
  std::optional<Array> yy_;
  NetworkShape shape_;
  LinearNetworkFlow flow_;
};

// The product of two square matrices by the same Eigen, compiled with the same flags, as the flow's: `repeats` times,
// so that bench/ can hold right-hand sides against it without the cost of a call in either.
Array product(const Array& a, const Array& b, Index repeats) {
  const Index d = a.shape(0);
  require(is_matrix(a, d, d) && is_matrix(b, d, d), "matrices must have shape [d, d]");
  Array result({d, d});
  MatrixView out(result.mutable_data(), d, d);
  for (Index k = 0; k < repeats; ++k) out.noalias() = ConstMatrixView(a.data(), d, d) * ConstMatrixView(b.data(), d, d);
  return result;
}

}  // namespace

void bind_linear_network(py::module_& module) {
  py::class_<Observed>(module, "ObservedFlow", "A gradient flow at the requested times; rows not reached are NaN.")
      .def_property_readonly("status", [](const Observed& self) { return self.result.status; })
      .def_property_readonly("reached", [](const Observed& self) { return self.result.reached; })
      .def_property_readonly("steps", [](const Observed& self) { return self.result.steps; })
      .def_property_readonly("stabilised_steps", [](const Observed& self) { return self.result.stabilised_steps; })
      .def_property_readonly("rejected", [](const Observed& self) { return self.result.rejected; })
      .def_property_readonly("nfev", [](const Observed& self) { return self.result.nfev; })
      .def_readonly("loss", &Observed::loss)
      .def_readonly("response", &Observed::response)
      .def_readonly("weights", &Observed::weights);

  py::class_<NetworkFlow>(module, "NetworkFlow",
                          "The flow of one linear network on given second moments (THEORY.md 1). The state is one "
                          "vector: W^1 .. W^L, V, and with ema_time > 0 the target's layers.")
      .def(py::init<std::vector<Index>, Index, int, bool, double, double, Array, Array, std::optional<Array>>(),
           py::arg("widths"), py::arg("outputs"), py::arg("objective"), py::arg("stop_gradient"), py::arg("ema_time"),
           py::arg("weight_decay"), py::arg("sxx").noconvert(), py::arg("syx").noconvert(),
           py::arg("syy").noconvert() = py::none())
      .def("velocity", &NetworkFlow::velocity, py::arg("state").noconvert(), py::arg("repeats") = 1)
      .def("loss", &NetworkFlow::loss, py::arg("state").noconvert())
      .def("integrate", &NetworkFlow::integrate, py::arg("state").noconvert(), py::arg("times").noconvert(),
           py::arg("directions").noconvert(), py::arg("method"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"),
           py::arg("keep_weights"), py::arg("progress") = py::none());

  module.def("product", &product, py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("repeats") = 1,
             "The matrix product a b, computed `repeats` times: the measure of a right-hand side's cost (bench/).");
}

}  // namespace jepa_ode::bindings
