#include "jepa_ode/exact_curve.hpp"

#include <algorithm>
#include <list>

namespace jepa_ode {

std::shared_ptr<ExactCurve> ExactCurve::of(Objective objective, double depth) {
  struct Entry {
    Objective objective;
    double depth;
    std::shared_ptr<ExactCurve> curve;
  };
  constexpr std::size_t capacity = 16;
  static std::mutex mutex;
  static std::list<Entry> recent;  // the last one used first
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = std::find_if(recent.begin(), recent.end(), [&](const Entry& entry) {
    return entry.objective == objective && entry.depth == depth;
  });
  if (found != recent.end()) {
    recent.splice(recent.begin(), recent, found);
    return found->curve;
  }
  auto curve = std::make_shared<ExactCurve>(objective, depth);
  if (!curve->tabulated()) return curve;  // cheap to make, or too large to keep
  recent.push_front({objective, depth, curve});
  if (recent.size() > capacity) recent.pop_back();
  return curve;
}

CurveTable& ExactCurve::table(Branch branch) {
  const auto k = static_cast<std::size_t>(branch);
  std::call_once(made_[k], [&] { tables_[k] = std::make_unique<CurveTable>(curve_, branch); });
  return *tables_[k];
}

}  // namespace jepa_ode
