// Second moments of pairs of samples, which is all that a linear network sees of them (THEORY.md 1).
#pragma once

#include "jepa_ode/matrix_product.hpp"
#include "jepa_ode/parallel.hpp"

namespace jepa_ode {

struct SampleMoments {
  Matrix xx, yx, yy;  // X^T X / samples, Y^T X / samples, Y^T Y / samples, about zero
};

// x and y are [samples, d] row after row. Sums run over blocks of samples, whose number does not depend on the threads,
// and so do not the bits.
SampleMoments sample_moments(const double* x, const double* y, Index samples, Index d, unsigned threads,
                             Interrupt& interrupt);

}  // namespace jepa_ode
