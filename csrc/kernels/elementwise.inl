// What is computed value by value or row by row: masks, activations on arrays, softmax, Adam.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

template <class T>
void add(T* to, const T* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

template <class T>
void multiply(T* to, const T* a, const T* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = a[i] * b[i];
}

struct ExpFunction {
  template <class Vec>
  static Vec value(Vec x) {
    return exp(x);
  }
};
struct TanhFunction {
  template <class Vec>
  static Vec value(Vec x) {
    return tanh(x);
  }
};
struct SigmoidFunction {
  template <class Vec>
  static Vec value(Vec x) {
    return sigmoid(x);
  }
};

template <class T, class Function>
void activation(const T* x, T* out, int64_t count) {
  constexpr int kLane = kLanes<T>;
  for (int64_t i = 0; i < count; i += kLane) {
    const int exist = existing<T>(count - i);
    store_upto(out + i, Function::value(load_upto(x + i, exist)), exist);
  }
}

template <class T>
inline T largest_of(const T* x, int64_t count) {
  T largest = x[0];
  for (int64_t i = 1; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

template <class T>
inline T exponentials(const T* x, T largest, int64_t count, T* e) {
  constexpr int kLane = kLanes<T>;
  const auto shift = broadcast(largest);
  alignas(kVectorBytes) T partial[kGroup] = {};
  for (int64_t i = 0; i < count; i += kLane) {
    const int exist = existing<T>(count - i);
    const auto value = exp(load_upto(x + i, exist) - shift);
    store_upto(e + i, value, exist);
    T* slot = partial + i % kGroup;
    store(slot, load(slot) + (exist < kLane ? keep_first<T>(value, exist) : value));
  }
  return sum_of_partials(partial);
}

template <class T>
void softmax_rows(const SoftmaxRows<T>& p) {
  for (int64_t row = p.row_begin; row < p.row_end; ++row) {
    const T* x = p.logits + row * p.logits_stride;
    T* out = p.dlogits + row * p.classes;
    const int64_t target = p.targets[row];
    if (target < 0) {
      memset(out, 0, static_cast<size_t>(p.classes) * sizeof(T));
      p.sum[row] = T(1);
      p.shifted[row] = T(0);
      continue;
    }
    const T largest = largest_of(x, p.classes);
    const T sum = exponentials(x, largest, p.classes, out);
    for (int64_t i = 0; i < p.classes; ++i) out[i] = out[i] / sum;
    out[target] -= T(1);
    p.sum[row] = sum;
    p.shifted[row] = x[target] - largest;
  }
}

template <class T>
void adam(const AdamStep<T>& p) {
  T* __restrict w = p.w;
  T* __restrict m = p.m;
  T* __restrict v = p.v;
  const T* __restrict g = p.g;
  for (int64_t i = p.begin; i < p.end; ++i) {
    m[i] = p.keep1 * m[i] + p.new1 * g[i];
    v[i] = p.keep2 * v[i] + p.new2 * (g[i] * g[i]);
    const T size = square_root(v[i] / p.correction2) + p.epsilon;
    w[i] = w[i] - p.rate * (m[i] / p.correction1 / size + p.decay * w[i]);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
