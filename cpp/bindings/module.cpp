// Table of contents of the compiled engine. It is compiled once per instruction set (cmake/InstructionSets.cmake) into
// files of different names; `jepa_ode._core` picks one at import and loads it as `jepa_ode._core.engine`.
#include <pybind11/native_enum.h>

#include "bindings.hpp"
#include "jepa_ode/status.hpp"

namespace jepa_ode::bindings {

void bind_status(py::module_& module) {
  py::native_enum<Status>(module, "Status", "enum.IntEnum", "How a computation ended, one code per feature or network.")
      .value("OK", Status::ok, message(Status::ok))
      .value("MAX_STEPS", Status::max_steps, message(Status::max_steps))
      .value("STEP_TOO_SMALL", Status::step_too_small, message(Status::step_too_small))
      .value("NOT_FINITE", Status::not_finite, message(Status::not_finite))
      .value("STOPPED", Status::stopped, message(Status::stopped))
      .finalize();
  module.def("status_message", &message, py::arg("status"), "The sentence that explains a status.");
}

}  // namespace jepa_ode::bindings

PYBIND11_MODULE(engine, module, pybind11::mod_gil_used()) {
  module.doc() = "The engine of jepa_ode, compiled for one instruction set.";
  using namespace jepa_ode::bindings;
  bind_status(module);
  bind_master_curve(module);
  bind_feature_solver(module);
  bind_layer_solver(module);
  bind_linear_network(module);
  bind_trainer(module);
}
