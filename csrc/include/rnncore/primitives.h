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

// `count` products of one shape: c[i] (rows, columns) = a[i] (rows, inner) times b[i], which is
// (inner, columns), or (columns, inner) where `transposed` is set.
template <class T>
struct BatchedProduct {
  int64_t count = 0, rows = 0, inner = 0, columns = 0;
  const T *a = nullptr, *b = nullptr;
  bool transposed = false;
  T* c = nullptr;
  int num_threads = 1;
};
template <class T>
void batched_product(const BatchedProduct<T>& product);

template <class T>
struct SoftmaxLoss {
  int64_t rows = 0, classes = 0;
  const T* logits = nullptr;         // (rows, classes)
  const int64_t* targets = nullptr;  // (rows,); a row whose target is negative counts nothing
  const T* weights = nullptr;        // (classes,), or null for ones
  double scale = 1;                  // of the gradient
  T* dlogits = nullptr;              // (rows, classes), or null
  int num_threads = 1;
};

// Returns the sum over rows of weights[target] * -log softmax(logits)[target];
// dlogits = scale * weights[target] * (softmax - onehot).
template <class T>
double softmax_cross_entropy(const SoftmaxLoss<T>& loss);

// dweight[indices[i]] += dout[i], i ascending
template <class T>
void embedding_backward(const int64_t* indices, const T* dout, int64_t count, int64_t size,
                        T* dweight, int num_threads);

// A function on an array: the kernels' own exp, tanh and sigmoid on one instruction set (null: the
// chosen), the C library's erf and log(1 + x).
enum class Function { exp, tanh, sigmoid, erf, log1p };
template <class T>
void apply(Function function, const char* isa, const T* x, T* out, int64_t count, int num_threads);

}  // namespace rnncore
