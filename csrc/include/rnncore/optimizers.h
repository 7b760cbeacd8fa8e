// Steps of optimisers, on the same team as a layer's work.
//
// Arrays are contiguous and do not overlap. Results do not depend on the number of threads. Each is
// one template, made for float and double. Gradients stay as they are: d below is the gradient plus
// `penalty` times the parameter.
#pragma once

#include <cstdint>

namespace rnncore {

// velocity = momentum velocity + d, param -= rate velocity, or rate (d + momentum velocity) with
// nesterov (Sutskever et al. 2013); param -= rate d where velocity is null.
struct SgdRule {
  double rate, momentum, penalty;
  bool nesterov;
};
template <class T>
void sgd_step(T* param, const T* grad, T* velocity, int64_t count, const SgdRule& rule,
              int num_threads);

// Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019); `step` counts
// from 1.
struct AdamRule {
  double rate, beta1, beta2, epsilon, penalty, weight_decay;
  int64_t step;
};
template <class T>
void adam_step(T* param, const T* grad, T* m, T* v, int64_t count, const AdamRule& rule,
               int num_threads);

// The sum of squares in float64, in an order that follows from the count alone.
template <class T>
double sum_of_squares(const T* x, int64_t count, int num_threads);

}  // namespace rnncore
