// Products in kept memory are Eigen's, transposed or not: to the bit where they are Eigen's work.
#include <algorithm>

#include "check.hpp"
#include "jepa_ode/matrix_product.hpp"

namespace {

using namespace jepa_ode;

// Reproducible entries between -1 and 1, without a pattern that a transposed index could hide in.
Matrix entries(Index rows, Index columns) {
  static unsigned state = 1;
  return Matrix::NullaryExpr(rows, columns, [] {
    state = 1664525U * state + 1013904223U;
    return static_cast<double>(state) / 2147483648.0 - 1;
  });
}

void check_products(MatrixProduct& product, Index rows, Index depth, Index columns) {
  const Matrix a = entries(rows, depth), b = entries(depth, columns), start = entries(rows, columns);
  const Matrix at = a.transpose(), bt = b.transpose();
  Matrix ours = start, eigens = start;

  // Another kernel rounds in another order.
  const bool direct = std::max({rows, depth, columns}) <= 64 && std::min({rows, depth, columns}) >= 8;
  const bool tiled = TiledProduct::suits(rows, depth, columns);
  const double rounding = direct || tiled ? 1e-15 * static_cast<double>(depth) : 0;
  const auto same = [&] { return (ours - eigens).cwiseAbs().maxCoeff() <= rounding; };
  product.assign(ours, -1, a, b);
  eigens.noalias() = -1 * a * b;
  CHECK(same());
  // And right: against the sum of products, whose rounding grows like the number of terms.
  CHECK((ours + a.lazyProduct(b)).cwiseAbs().maxCoeff() <= 1e-15 * static_cast<double>(depth + 10));

  product.add(ours, 0.5, at.transpose(), b);
  eigens.noalias() += 0.5 * at.transpose() * b;
  CHECK(same());

  product.add(MatrixView(ours.data(), rows, columns), 1, ConstMatrixView(a.data(), rows, depth), bt.transpose());
  eigens.noalias() += a * bt.transpose();
  CHECK(same());
}

TEST(products_are_those_of_eigen) {
  MatrixProduct product;  // one for all: its memory grows, and large blocks are followed by small ones
  for (const Index rows : {1, 2, 7, 33, 130})
    for (const Index depth : {1, 3, 12, 65, 260})
      for (const Index columns : {1, 5, 16, 47, 129}) check_products(product, rows, depth, columns);
  for (const Index rows : {8, 9, 15, 32, 64})
    for (const Index depth : {8, 24, 33, 64})
      for (const Index columns : {8, 16, 24, 32, 40, 48, 56, 64}) check_products(product, rows, depth, columns);
  check_products(product, 301, 299, 300);
  check_products(product, 530, 514, 540);
  check_products(product, 20, 21, 22);
}

// Whether or not it is what MatrixProduct chooses on this instruction set.
template <class A, class B>
void check_tiles(TiledProduct& product, const A& a, const B& b, const Matrix& exact) {
  const Matrix start = entries(exact.rows(), exact.cols());
  const double rounding = 1e-15 * static_cast<double>(a.cols() + 10);
  Matrix out = start;
  product.reserve(a);
  product.run<false>(out, -1, a, b, 0, out.rows());
  CHECK((out + exact).cwiseAbs().maxCoeff() <= rounding);
  out = start;
  product.run<true>(out, 0.5, a, b, 0, out.rows());
  CHECK((out - start - 0.5 * exact).cwiseAbs().maxCoeff() <= rounding);
}

// Tiles of every height at the end, panels with every width of the last one, left factors packed or not, inner indices
// in one block and in several.
TEST(tiles_make_up_a_product) {
  TiledProduct product;
  for (const Index rows : {8, 13, 66, 216}) {
    for (const Index depth : {8, 71, 128, 257, 300}) {
      for (const Index columns : {8, 13, 20, 72, 79, 107}) {
        const Matrix a = entries(rows, depth), b = entries(depth, columns);
        const Matrix at = a.transpose(), bt = b.transpose(), exact = a.lazyProduct(b);
        check_tiles(product, a, b, exact);
        check_tiles(product, at.transpose(), b, exact);
        check_tiles(product, a, bt.transpose(), exact);
        check_tiles(product, at.transpose(), bt.transpose(), exact);
      }
    }
  }
}

// At sizes above and below those that are shared, with rows that no kernel takes together and depths of several blocks.
TEST(threads_change_no_bit_of_a_product) {
  MatrixProduct alone;
  for (const unsigned threads : {2, 3, 5}) {
    Team team(threads);
    MatrixProduct shared(team);
    for (const Index size : {40, 103, 130, 257}) {
      for (const Index rows : {size, 2 * size + 1}) {
        const Matrix a = entries(rows, size), b = entries(size, size + 3), start = entries(rows, size + 3);
        const Matrix at = a.transpose(), bt = b.transpose();
        Matrix one = start, many = start;
        alone.add(one, 0.5, a, bt.transpose());
        shared.add(many, 0.5, a, bt.transpose());
        CHECK(one == many);
        alone.assign(one, -1, at.transpose(), b);
        shared.assign(many, -1, at.transpose(), b);
        CHECK(one == many);
      }
    }
  }
}

TEST(nothing_to_multiply) {
  MatrixProduct product;
  const Matrix a = entries(40, 40), none(40, 0);
  Matrix out(40, 0);
  product.assign(out, 1, a, none);
  CHECK(out.size() == 0);
}

}  // namespace
