// Steps of optimisers on the team. See rnncore/optimizers.h.
#include "rnncore/optimizers.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/on_team.h"
#include "core/plan.h"

namespace rnncore {
namespace {

constexpr double kOperations = 8;  // of one value, as on_team counts them
constexpr int64_t kBlock = 4096;   // values that one sum of squares takes
constexpr int kChains = 8;         // sums side by side in a block

// Runs a kernel on each thread's share of the values.
template <class T, class Step>
void share_out(const Step& all, int64_t count, int num_threads, void (*kernel)(const Step&)) {
  on_team(static_cast<double>(count) * kOperations, num_threads, [&](int part, int parts) {
    Step mine = all;
    const Range range = part_of(count, part, parts);
    mine.begin = range.begin;
    mine.end = range.end;
    kernel(mine);
  });
}

// The sum of squares of one block: value i goes to chain i mod kChains, then chains in order.
template <class T>
double block_of_squares(const T* x, int64_t count) {
  double chains[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= count; i += kChains) {
    for (int c = 0; c < kChains; ++c) {
      const double value = static_cast<double>(x[i + c]);
      chains[c] += value * value;
    }
  }
  for (int c = 0; i + c < count; ++c) {
    const double value = static_cast<double>(x[i + c]);
    chains[c] += value * value;
  }
  double sum = 0;
  for (const double chain : chains) sum += chain;
  return sum;
}

}  // namespace

template <class T>
void sgd_step(T* param, const T* grad, T* velocity, int64_t count, const SgdRule& rule,
              int num_threads) {
  SgdStep<T> step;
  step.w = param;
  step.velocity = velocity;
  step.g = grad;
  step.rate = static_cast<T>(rule.rate);
  step.momentum = static_cast<T>(rule.momentum);
  step.penalty = static_cast<T>(rule.penalty);
  step.nesterov = rule.nesterov;
  share_out<T>(step, count, num_threads, kernels_of<T>(chosen_kernels()).sgd);
}

template <class T>
void adam_step(T* param, const T* grad, T* m, T* v, int64_t count, const AdamRule& rule,
               int num_threads) {
  AdamStep<T> step;
  step.w = param;
  step.m = m;
  step.v = v;
  step.g = grad;
  step.rate = static_cast<T>(rule.rate);
  step.keep1 = static_cast<T>(rule.beta1);
  step.new1 = static_cast<T>(1 - rule.beta1);
  step.keep2 = static_cast<T>(rule.beta2);
  step.new2 = static_cast<T>(1 - rule.beta2);
  step.epsilon = static_cast<T>(rule.epsilon);
  step.penalty = static_cast<T>(rule.penalty);
  step.decay = static_cast<T>(rule.weight_decay);
  const double steps = static_cast<double>(rule.step);
  step.correction1 = static_cast<T>(1 - std::pow(rule.beta1, steps));
  step.correction2 = static_cast<T>(1 - std::pow(rule.beta2, steps));
  share_out<T>(step, count, num_threads, kernels_of<T>(chosen_kernels()).adam);
}

template <class T>
double sum_of_squares(const T* x, int64_t count, int num_threads) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  const Buffer sums = Buffer::of<double>(blocks);
  double* sum = sums.as<double>();
  on_team(static_cast<double>(count) * 2, num_threads, [&](int part, int parts) {
    const Range mine = part_of(blocks, part, parts);
    for (int64_t b = mine.begin; b < mine.end; ++b) {
      sum[b] = block_of_squares(x + b * kBlock, std::min(kBlock, count - b * kBlock));
    }
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += sum[b];
  return total;
}

#define RNNCORE_INSTANTIATE(T)                                                     \
  template void sgd_step<T>(T*, const T*, T*, int64_t, const SgdRule&, int);       \
  template void adam_step<T>(T*, const T*, T*, T*, int64_t, const AdamRule&, int); \
  template double sum_of_squares<T>(const T*, int64_t, int);

RNNCORE_INSTANTIATE(float)
RNNCORE_INSTANTIATE(double)
#undef RNNCORE_INSTANTIATE

}  // namespace rnncore
