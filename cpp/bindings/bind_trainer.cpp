// Training in steps. Python's `jepa_ode.train` validates and draws the batches; here shapes are only asserted.
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "jepa_ode/sample_moments.hpp"
#include "jepa_ode/trainer.hpp"

namespace jepa_ode::bindings {

namespace {

using Rows = py::array_t<std::int64_t, py::array::c_style>;

Optimizer optimizer_of(const std::string& name) {
  if (name == "gd" || name == "sgd") return Optimizer::sgd;
  if (name == "momentum") return Optimizer::momentum;
  if (name == "nesterov") return Optimizer::nesterov;
  if (name == "adam") return Optimizer::adam;
  if (name == "adamw") return Optimizer::adamw;
  throw std::invalid_argument("no optimizer is called '" + name + "'");
}

class NetworkTrainer {
 public:
  NetworkTrainer(std::vector<Index> widths, Index outputs, int objective, bool stop_gradient, double ema_time,
                 double weight_decay, const std::string& optimizer, double momentum, std::pair<double, double> betas,
                 double adam_eps, double predictor_rate, unsigned threads, std::optional<Index> batch_size,
                 const std::optional<Array>& xx, const std::optional<Array>& yx, const std::optional<Array>& yy)
      : inputs_(widths.front()),
        batch_size_(batch_size),
        trainer_(make({std::move(widths), outputs}, {objective_of(objective), stop_gradient, ema_time, weight_decay},
                      {optimizer_of(optimizer), momentum, betas.first, betas.second, adam_eps, predictor_rate, threads},
                      batch_size, xx, yx, yy)) {}

  void set_state(const Array& state) {
    require(state.ndim() == 1 && state.size() == trainer_.state_size(), "the state does not fit the network");
    trainer_.set_state(state.data());
  }

  Array state() const {
    Array state(trainer_.state_size());
    trainer_.get_state(state.mutable_data());
    return state;
  }

  double work() const { return trainer_.work(); }

  std::int64_t advance(const Array& rates, const std::optional<Array>& x, const std::optional<Array>& y,
                       const std::optional<Rows>& rows) {
    const py::ssize_t count = rates.size();
    require(x.has_value() == batch_size_.has_value() && y.has_value() == x.has_value(), "batches need samples");
    if (x) {
      const py::ssize_t needed = count * *batch_size_;
      require(x->ndim() == 2 && x->shape(1) == inputs_ && y->ndim() == 2 && y->shape(1) == inputs_,
              "samples must have shape [*, d]");
      require(rows ? rows->size() >= needed : x->shape(0) >= needed && y->shape(0) >= needed, "too few samples");
    }
    std::int64_t done = 0;
    run_without_gil([&](Interrupt& interrupt) {
      done = trainer_.advance(rates.data(), count, x ? x->data() : nullptr, y ? y->data() : nullptr,
                              rows ? rows->data() : nullptr, interrupt);
    });
    return done;
  }

 private:
  static Trainer make(const NetworkShape& shape, const FlowTerms& terms, const TrainerSettings& settings,
                      std::optional<Index> batch_size, const std::optional<Array>& xx, const std::optional<Array>& yx,
                      const std::optional<Array>& yy) {
    if (batch_size) return {shape, terms, settings, *batch_size};
    require(xx && yx && (yy || !terms.differentiates_target()), "the population has moments");
    return {shape, terms, settings, Moments{xx->data(), yx->data(), yy ? yy->data() : nullptr}};
  }

  Index inputs_;
  std::optional<Index> batch_size_;
  Trainer trainer_;
};

py::tuple moments_of(const Array& x, const Array& y, unsigned threads) {
  require(x.ndim() == 2 && y.ndim() == 2 && x.shape(0) == y.shape(0) && x.shape(1) == y.shape(1) && x.shape(0) > 0,
          "samples must have the same shape [samples, d]");
  SampleMoments moments;
  run_without_gil([&](Interrupt& interrupt) {
    moments = sample_moments(x.data(), y.data(), x.shape(0), x.shape(1), threads, interrupt);
  });
  const auto array = [](const Matrix& moment) { return Array({moment.rows(), moment.cols()}, moment.data()); };
  return py::make_tuple(array(moments.xx), array(moments.yx), array(moments.yy));
}

}  // namespace

void bind_trainer(py::module_& module) {
  module.def("sample_moments", &moments_of, py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("threads"),
             "Return X^T X / n, Y^T X / n and Y^T Y / n for samples x, y [n, d].");

  py::class_<NetworkTrainer>(module, "NetworkTrainer",
                             "Training of one linear network in steps, on batches of samples or, without a batch "
                             "size, on second moments. The state is that of NetworkFlow.")
      .def(py::init<std::vector<Index>, Index, int, bool, double, double, std::string, double,
                    std::pair<double, double>, double, double, unsigned, std::optional<Index>, std::optional<Array>,
                    std::optional<Array>, std::optional<Array>>(),
           py::arg("widths"), py::arg("outputs"), py::arg("objective"), py::arg("stop_gradient"), py::arg("ema_time"),
           py::arg("weight_decay"), py::arg("optimizer"), py::arg("momentum"), py::arg("betas"), py::arg("adam_eps"),
           py::arg("predictor_rate"), py::arg("threads"), py::arg("batch_size") = py::none(),
           py::arg("sxx").noconvert() = py::none(), py::arg("syx").noconvert() = py::none(),
           py::arg("syy").noconvert() = py::none())
      .def_property_readonly("state", &NetworkTrainer::state)
      .def("set_state", &NetworkTrainer::set_state, py::arg("state").noconvert())
      .def_property_readonly("work", &NetworkTrainer::work, "Floating-point operations of one step, about.")
      .def("advance", &NetworkTrainer::advance, py::arg("rates").noconvert(), py::arg("x").noconvert() = py::none(),
           py::arg("y").noconvert() = py::none(), py::arg("rows").noconvert() = py::none(),
           "Take one step for each learning rate, on successive rows of x, y [*, d] or on those that `rows` lists; "
           "return how many left all weights finite.");
}

}  // namespace jepa_ode::bindings
