// Linear networks and their gradient flow. Python's `jepa_ode.gradient_flow` validates; here shapes are only asserted.
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
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

// Tells Python the part that is done of all flows, at most ten times a second: often enough for a bar, too seldom to
// cost anything. A Python exception becomes one of C++ and so reaches the caller from whatever thread.
class PythonProgress {
 public:
  PythonProgress(py::object callback, std::size_t flows) : callback_(std::move(callback)), done_(flows) {}

  void operator()(std::size_t flow, double done) {
    done_[flow].store(done, std::memory_order_relaxed);
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    const auto now = std::chrono::steady_clock::now();
    if (!lock || now - last_call_ < std::chrono::milliseconds(100)) return;
    last_call_ = now;
    double sum = 0;
    for (const std::atomic<double>& each : done_) sum += each.load(std::memory_order_relaxed);
    const py::gil_scoped_acquire gil;
    callback_(sum / static_cast<double>(done_.size()));
  }

 private:
  py::object callback_;
  std::vector<std::atomic<double>> done_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point last_call_{};
};

// What Python sees of FlowResult, with the observations.
struct Observed {
  FlowResult result;
  std::optional<Array> loss;       // [m]
  Array response;                  // [n, m]
  std::optional<Array> weights;    // [m, every weight]
  Array final_weights;             // [every weight]
  std::optional<Array> crossings;  // [n]
};

// A flow and the arrays that it borrows. Evaluations write to its workspace: one thread at a time.
class NetworkFlow {
 public:
  NetworkFlow(std::vector<Index> widths, Index outputs, int objective, bool stop_gradient, double ema_time,
              double weight_decay, double predictor_rate, std::optional<Array> xx, std::optional<Array> yx,
              std::optional<Array> yy, std::optional<Array> coupling, std::optional<Array> rho)
      : xx_(std::move(xx)),
        yx_(std::move(yx)),
        yy_(std::move(yy)),
        coupling_(std::move(coupling)),
        rho_(std::move(rho)),
        shape_(network_shape(std::move(widths), outputs)),
        terms_{static_cast<Objective>(objective), stop_gradient, ema_time, weight_decay, predictor_rate} {
    const Index d = shape_.inputs();
    require(objective == 0 || objective == 1, "objective must be 0 (JEPA) or 1 (MAE)");
    require(outputs == (objective == 0 ? shape_.encoding() : d), "the predictor's rows do not fit the objective");
    if (xx_ && xx_->ndim() == 1) variances_ = std::exchange(xx_, std::nullopt);
    for (const std::optional<Array>* moment : {&xx_, &yx_, &yy_, &coupling_})
      require(!*moment || is_matrix(**moment, d, d), "second moments must have shape [d, d]");
    require(!variances_ || variances_->size() == d, "variances must have shape [d]");
    require((xx_ || variances_) != coupling_.has_value(), "give sxx, or coupling in feature coordinates");
    if (coupling_ && objective == 0) {
      require(rho_ && rho_->ndim() == 1 && rho_->size() == d, "JEPA in feature coordinates needs rho [d]");
    } else {
      require(yx_.has_value(), "the flow needs Syx");
    }
    require(stop_gradient || yy_, "without stop-gradient the flow needs Syy");
  }

  Array velocity(const Array& state, Index repeats) {
    require_state(state);
    Array velocity(state.size());
    for (Index k = 0; k < repeats; ++k) workspace().velocity(state.data(), velocity.mutable_data());
    return velocity;
  }

  double loss(const Array& state) {
    require_state(state);
    require(yy_.has_value(), "the loss needs Syy");
    return workspace().loss(state.data());
  }

  // A flow with a workspace of its own.
  LinearNetworkFlow flow(unsigned threads) const { return {shape_, terms_, moments(), threads}; }
  const NetworkShape& shape() const { return shape_; }
  bool has_loss() const { return yy_.has_value(); }

  void require_state(const Array& state) const {
    const Index target = terms_.has_target_network() ? shape_.encoder_size() : 0;
    require(state.ndim() == 1 && state.size() == shape_.weights_size() + target, "the state does not fit the network");
  }

 private:
  LinearNetworkFlow& workspace() {
    if (!workspace_) workspace_.emplace(shape_, terms_, moments());
    return *workspace_;
  }

  Moments moments() const {
    return {data_of(xx_), data_of(yx_), data_of(yy_), data_of(coupling_), data_of(rho_), data_of(variances_)};
  }

  static const double* data_of(const std::optional<Array>& array) { return array ? array->data() : nullptr; }

  std::optional<Array> xx_, yx_, yy_, coupling_, rho_, variances_;
  NetworkShape shape_;
  FlowTerms terms_;
  std::optional<LinearNetworkFlow> workspace_;  // of velocity() and loss()
};

// One integration: all that it takes, and where the results go.
class FlowRun {
 public:
  FlowRun(std::shared_ptr<NetworkFlow> network, Array state, Array times, Array directions, const std::string& method,
          double rtol, double atol, std::int64_t max_steps, bool keep_weights, py::object visit,
          std::optional<Array> levels, bool stop_when_crossed, double rest, double plateau)
      : network_(std::move(network)),
        state_(std::move(state)),
        times_(std::move(times)),
        directions_(std::move(directions)),
        levels_(std::move(levels)),
        visit_(std::move(visit)),
        settings_{flow_method(method), rtol, atol, max_steps} {
    const auto m = times_.size();
    network_->require_state(state_);
    require(times_.ndim() == 1, "times must have one dimension");
    require(directions_.ndim() == 2 && directions_.shape(0) == network_->shape().inputs(),
            "directions must have shape [d, n]");
    const auto n = directions_.shape(1);
    const auto size = static_cast<py::ssize_t>(network_->shape().weights_size());
    observation_.times = times_.data();
    observation_.count = static_cast<std::size_t>(m);
    observation_.directions = directions_.data();
    observation_.features = n;
    observed_.response = Array({n, m});
    observation_.response = observed_.response.mutable_data();
    observed_.final_weights = Array(size);
    observation_.final_weights = observed_.final_weights.mutable_data();
    if (network_->has_loss()) {
      observed_.loss = Array(m);
      observation_.loss = observed_.loss->mutable_data();
    }
    if (keep_weights) {
      observed_.weights = Array({m, size});
      observation_.weights = observed_.weights->mutable_data();
    }
    if (!visit_.is_none()) {
      observation_.visit = [this, size](std::size_t k, const double* weights) {
        const py::gil_scoped_acquire gil;
        visit_(k, Array(size, weights));  // a copy: the flow goes on
      };
    }
    EventSettings& events = observation_.events;
    if (levels_) {
      require(levels_->ndim() == 1 && levels_->size() == n, "levels must have shape [n]");
      observed_.crossings = Array(n);
      events.levels = levels_->data();
      events.crossings = observed_.crossings->mutable_data();
    }
    require(plateau == 0 || network_->has_loss(), "plateaus of the loss need Syy");
    events.stop_when_crossed = stop_when_crossed && levels_;
    events.rest = rest;
    events.plateau = plateau;
  }

  // Without the GIL, once.
  void run(unsigned threads, Interrupt& interrupt, const FlowProgress& progress) {
    LinearNetworkFlow flow = network_->flow(threads);
    observed_.result = gradient_flow(flow, state_.data(), settings_, observation_, interrupt, progress);
  }

  double end() const { return times_.size() ? times_.data()[times_.size() - 1] : 0.0; }
  const Observed& observed() const { return observed_; }

 private:
  std::shared_ptr<NetworkFlow> network_;
  Array state_, times_, directions_;
  std::optional<Array> levels_;
  py::object visit_;
  FlowSettings settings_;
  FlowObservation observation_;
  Observed observed_;
};

// A thread takes one network after the other; which one does not matter to any result. Where there are fewer networks
// than threads each has some.
std::vector<Observed> run_flows(const std::vector<std::shared_ptr<FlowRun>>& runs, unsigned threads,
                                const py::object& progress) {
  std::optional<PythonProgress> shown;
  if (!progress.is_none()) shown.emplace(progress, runs.size());
  const unsigned threads_each = threads / static_cast<unsigned>(std::clamp<std::size_t>(runs.size(), 1, threads));
  run_without_gil([&](Interrupt& interrupt) {
    parallel_for(runs.size(), 1, threads, interrupt, [&](std::size_t begin, std::size_t end) {
      for (std::size_t k = begin; k < end; ++k) {
        FlowProgress told;
        if (shown) {
          told = [&, k](double time) {
            (*shown)(k, std::min(time / runs[k]->end(), 1.0));
            return false;
          };
        }
        runs[k]->run(threads_each, interrupt, told);
        if (shown) (*shown)(k, 1.0);
      }
    });
  });
  std::vector<Observed> all;
  for (const auto& run : runs) all.push_back(run->observed());
  return all;
}

// Wbar [h_L, d] of the layers that a state begins with.
Array product_of_layers(const std::vector<Index>& widths, const Array& state) {
  require(widths.size() >= 2 && state.ndim() == 1, "a network has an input and at least one layer");
  Index size = 0;
  for (std::size_t l = 1; l < widths.size(); ++l) size += widths[l] * widths[l - 1];
  require(size <= state.size(), "the state does not fit the network");
  const Matrix product = encoder_product(widths, state.data());
  return Array({product.rows(), product.cols()}, product.data());
}

// Not by NumPy, whose linear algebra leaves threads behind that wait for more of it, busily, for some 0.03 s: a
// training right after would have to share its CPUs with them.
Array response_along(const Array& encoder, const Array& directions) {
  require(encoder.ndim() == 2 && directions.ndim() == 2 && encoder.shape(1) == directions.shape(0),
          "directions [d, features] must fit the encoder [h, d]");
  Array response(directions.shape(1));
  MatrixProduct product;
  Matrix encoded;
  encoder_response({encoder.data(), encoder.shape(0), encoder.shape(1)},
                   {directions.data(), directions.shape(0), directions.shape(1)}, product, encoded,
                   response.mutable_data());
  return response;
}

// Repeated here, so that bench/ can hold right-hand sides against it without the cost of a call in either.
Array product(const Array& a, const Array& b, Index repeats) {
  const Index d = a.shape(0);
  require(is_matrix(a, d, d) && is_matrix(b, d, d), "matrices must have shape [d, d]");
  Array result({d, d});
  eigen_product(a.data(), b.data(), d, repeats, result.mutable_data());
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
      .def_property_readonly("time", [](const Observed& self) { return self.result.time; })
      .def_property_readonly("plateaus", [](const Observed& self) { return self.result.plateaus; })
      .def_readonly("loss", &Observed::loss)
      .def_readonly("response", &Observed::response)
      .def_readonly("weights", &Observed::weights)
      .def_readonly("final_weights", &Observed::final_weights)
      .def_readonly("crossings", &Observed::crossings);

  py::class_<NetworkFlow, std::shared_ptr<NetworkFlow>>(
      module, "NetworkFlow",
      "The flow of one linear network on given second moments (THEORY.md 1). The state is one "
      "vector: W^1 .. W^L, V, and with ema_time > 0 the target's layers. A vector `sxx` holds the "
      "variances in the principal axes of x, where Sxx is diagonal. With `coupling` the flow is that in feature "
      "coordinates (THEORY.md 6).")
      .def(py::init<std::vector<Index>, Index, int, bool, double, double, double, std::optional<Array>,
                    std::optional<Array>, std::optional<Array>, std::optional<Array>, std::optional<Array>>(),
           py::arg("widths"), py::arg("outputs"), py::arg("objective"), py::arg("stop_gradient"), py::arg("ema_time"),
           py::arg("weight_decay"), py::arg("predictor_rate"), py::arg("sxx").noconvert(), py::arg("syx").noconvert(),
           py::arg("syy").noconvert() = py::none(), py::arg("coupling").noconvert() = py::none(),
           py::arg("rho").noconvert() = py::none())
      .def("velocity", &NetworkFlow::velocity, py::arg("state").noconvert(), py::arg("repeats") = 1)
      .def("loss", &NetworkFlow::loss, py::arg("state").noconvert());

  py::class_<FlowRun, std::shared_ptr<FlowRun>>(module, "FlowRun", "One integration of a flow, to be run once.")
      .def(py::init<std::shared_ptr<NetworkFlow>, Array, Array, Array, const std::string&, double, double, std::int64_t,
                    bool, py::object, std::optional<Array>, bool, double, double>(),
           py::arg("network"), py::arg("state").noconvert(), py::arg("times").noconvert(),
           py::arg("directions").noconvert(), py::arg("method"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"),
           py::arg("keep_weights"), py::arg("visit"), py::arg("levels").noconvert(), py::arg("stop_when_crossed"),
           py::arg("rest"), py::arg("plateau"));

  module.def("run_flows", &run_flows, py::arg("runs"), py::arg("threads"), py::arg("progress") = py::none(),
             "Integrate, flows side by side on the threads; progress is told the part done.");

  module.def("encoder_product", &product_of_layers, py::arg("widths"), py::arg("state").noconvert(),
             "Return W^L ... W^1, the product of the layers that a state begins with.");

  module.def("encoder_response", &response_along, py::arg("encoder").noconvert(), py::arg("directions").noconvert(),
             "Return |Wbar p| for each column p of the directions [d, features].");

  module.def("product", &product, py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("repeats") = 1,
             "The matrix product a b, computed `repeats` times: the measure of a right-hand side's cost (bench/).");
}

}  // namespace jepa_ode::bindings
