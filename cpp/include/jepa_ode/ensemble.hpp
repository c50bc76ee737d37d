// The features of one problem, as the solvers take them.
#pragma once

#include <cstddef>

namespace jepa_ode {

struct Ensemble {
  const double* lambda;
  const double* sigma2;
  const double* eps;
  std::size_t size;
};

}  // namespace jepa_ode
