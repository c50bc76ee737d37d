// Products of matrices whose memory is kept.
//
// Eigen packs blocks of both factors before it multiplies them, and allocates the memory for that anew in every product
// that needs more than 128 KiB of it (EIGEN_STACK_ALLOCATION_LIMIT), as those of dimensions above 128 do. The limit
// could be raised, to the size of a cache; but stacks of threads are small on some systems. So the memory is kept here,
// and the rest is Eigen's: its block sizes and its kernel, to the bit.
#pragma once

#include <Eigen/Core>

namespace jepa_ode {

using Eigen::Index;
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstMatrixView = Eigen::Map<const Matrix>;
using MatrixView = Eigen::Map<Matrix>;

// One per thread. Factors are matrices and views of them, or their transposes; `out` overlaps neither.
class MatrixProduct {
 public:
  // out = scale a b
  template <class Out, class A, class B>
  void assign(Out&& out, double scale, const A& a, const B& b) {
    if (is_small(a, b)) {
      out.noalias() = scale * a * b;
    } else {
      out.setZero();
      add_packed(out, scale, a, b);
    }
  }

  // out += scale a b
  template <class Out, class A, class B>
  void add(Out&& out, double scale, const A& a, const B& b) {
    if (is_small(a, b)) {
      out.noalias() += scale * a * b;
    } else {
      add_packed(out, scale, a, b);
    }
  }

 private:
  // What Eigen multiplies without packing: small matrices, vectors, and nothing at all.
  template <class A, class B>
  static bool is_small(const A& a, const B& b) {
    return a.rows() + a.cols() + b.cols() < EIGEN_GEMM_TO_COEFFBASED_THRESHOLD || a.rows() <= 1 || b.cols() <= 1;
  }

  using EigenBlocking = Eigen::internal::gemm_blocking_space<Eigen::RowMajor, double, double, Eigen::Dynamic,
                                                             Eigen::Dynamic, Eigen::Dynamic>;

  // Eigen's sizes of the blocks, in our memory.
  class Blocking : public EigenBlocking {
   public:
    Blocking(Index rows, Index columns, Index depth, MatrixProduct& product)
        : EigenBlocking(rows, columns, depth, 1, true) {
      this->m_blockA = grown(product.block_a_, this->m_mc * this->m_kc);
      this->m_blockB = grown(product.block_b_, this->m_kc * this->m_nc);
    }
    ~Blocking() { this->m_blockA = this->m_blockB = nullptr; }  // or the base would free them
    Blocking(const Blocking&) = delete;
    Blocking& operator=(const Blocking&) = delete;

   private:
    static double* grown(Eigen::VectorXd& block, Index size) {
      if (block.size() < size) block.resize(size);
      return block.data();
    }
  };

  template <class Factor>
  static constexpr int order = Factor::IsRowMajor ? Eigen::RowMajor : Eigen::ColMajor;

  template <class Out, class A, class B>
  void add_packed(Out& out, double scale, const A& a, const B& b) {
    Blocking blocking(out.rows(), out.cols(), a.cols(), *this);
    Eigen::internal::general_matrix_matrix_product<Index, double, order<A>, false, double, order<B>, false,
                                                   Eigen::RowMajor, 1>::run(out.rows(), out.cols(), a.cols(), a.data(),
                                                                            a.outerStride(), b.data(), b.outerStride(),
                                                                            out.data(), 1, out.outerStride(), scale,
                                                                            blocking);
  }

  Eigen::VectorXd block_a_, block_b_;
};

}  // namespace jepa_ode
