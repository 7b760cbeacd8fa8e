// What is computed value by value or row by row: masks, activations on arrays, softmax.
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

// The largest of a row; NaN is passed over, since exp finds it. Any order gives the same.
template <class T>
inline T largest_of(const T* x, int64_t count) {
  constexpr int kLane = kLanes<T>, kChains = 4;
  alignas(kVectorBytes) T lanes[kChains * kLane];
  auto most = broadcast(static_cast<T>(-__builtin_inf()));
  typename VecOf<T>::Vec chain[kChains] = {most, most, most, most};
  int64_t i = 0;
  for (; i + kChains * kLane <= count; i += kChains * kLane) {
    for (int c = 0; c < kChains; ++c) chain[c] = larger(load(x + i + c * kLane), chain[c]);
  }
  for (int c = 0; c < kChains; ++c) store(lanes + c * kLane, chain[c]);
  T largest = lanes[0];
  for (int lane = 1; lane < kChains * kLane; ++lane) {
    largest = lanes[lane] > largest ? lanes[lane] : largest;
  }
  for (; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
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
  const bool wanted = p.dlogits_stride != 0;
  for (int64_t row = p.row_begin; row < p.row_end; ++row) {
    const T* x = p.logits + row * p.logits_stride;
    T* out = p.dlogits + row * p.dlogits_stride;
    const int64_t target = p.targets[row];
    if (target < 0) {
      if (wanted) memset(out, 0, static_cast<size_t>(p.classes) * sizeof(T));
      p.sum[row] = T(1);
      p.shifted[row] = T(0);
      continue;
    }
    const T largest = largest_of(x, p.classes);
    const T sum = exponentials(x, largest, p.classes, out);
    p.sum[row] = sum;
    p.shifted[row] = x[target] - largest;
    if (!wanted) continue;
    const T factor = p.weights ? p.scale * p.weights[target] : p.scale;
    const T share = factor / sum;
    for (int64_t i = 0; i < p.classes; ++i) out[i] = out[i] * share;
    out[target] -= factor;
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
