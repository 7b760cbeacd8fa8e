// Steps of optimisers, value by value: w and its memory are read and written once.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

template <class T>
void sgd(const SgdStep<T>& p) {
  T* __restrict w = p.w;
  T* __restrict u = p.velocity;
  const T* __restrict g = p.g;
  if (u == nullptr) {
    for (int64_t i = p.begin; i < p.end; ++i) w[i] -= p.rate * (g[i] + p.penalty * w[i]);
    return;
  }
  for (int64_t i = p.begin; i < p.end; ++i) {
    const T down = g[i] + p.penalty * w[i];
    u[i] = p.momentum * u[i] + down;
    w[i] -= p.rate * (p.nesterov ? down + p.momentum * u[i] : u[i]);
  }
}

template <class T>
void adam(const AdamStep<T>& p) {
  T* __restrict w = p.w;
  T* __restrict m = p.m;
  T* __restrict v = p.v;
  const T* __restrict g = p.g;
  for (int64_t i = p.begin; i < p.end; ++i) {
    const T down = g[i] + p.penalty * w[i];
    m[i] = p.keep1 * m[i] + p.new1 * down;
    v[i] = p.keep2 * v[i] + p.new2 * (down * down);
    const T size = square_root(v[i] / p.correction2) + p.epsilon;
    w[i] = w[i] - p.rate * (m[i] / p.correction1 / size + p.decay * w[i]);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
