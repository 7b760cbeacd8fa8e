// The loops that dominate around a recurrent layer, on the same kernels and team as the layer.
//
// Arrays are contiguous. Results do not depend on the number of threads. Each is one template, made
// for float and double.
#pragma once

#include <cstdint>

namespace rnncore {

template <class T>
struct Linear {
  int64_t rows = 0, inputs = 0, outputs = 0;
  const T* x = nullptr;       // (rows, inputs)
  const T* weight = nullptr;  // (outputs, inputs)
  const T* bias = nullptr;    // (outputs,) or null
  int num_threads = 1;
};

// out (rows, outputs) = x weight^T + bias
template <class T>
void linear_forward(const Linear<T>& linear, T* out);

// dx (rows, inputs) = dout weight, unless null; dweight += dout^T x; dbias += column sums of dout
template <class T>
void linear_backward(const Linear<T>& linear, const T* dout, T* dx, T* dweight, T* dbias);

// Sum over rows of -log softmax(logits)[target]; dlogits (rows, classes) = softmax - onehot. Rows
// whose target is negative count nothing.
template <class T>
double softmax_cross_entropy(const T* logits, const int64_t* targets, int64_t rows, int64_t classes,
                             T* dlogits, int num_threads);

// dweight[indices[i]] += dout[i], i ascending
template <class T>
void embedding_backward(const int64_t* indices, const T* dout, int64_t count, int64_t size,
                        T* dweight);

// Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019); `step` counts
// from 1.
struct AdamRule {
  double rate, beta1, beta2, epsilon, weight_decay;
  int64_t step;
};
template <class T>
void adam_step(T* param, const T* grad, T* m, T* v, int64_t count, const AdamRule& rule,
               int num_threads);

// The kernels' own exp, tanh and sigmoid on an array, on one instruction set (null: the chosen).
enum class Function { exp, tanh, sigmoid };
template <class T>
void apply(Function function, const char* isa, const T* x, T* out, int64_t count);

}  // namespace rnncore
