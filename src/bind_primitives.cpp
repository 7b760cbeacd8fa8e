// Linear layers, batches of products, softmax with loss, embedding gradients, Adam, functions.

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "by_dtype.h"
#include "gil.h"
#include "rnncore/primitives.h"
#include "rnncore/stack.h"

namespace rnncore_python {
namespace {

void two_axes(const char* name, const py::array& array) {
  if (array.ndim() != 2) wrong_shape(name, {-1, -1}, array);
}

template <class T>
rnncore::Linear<T> make_linear(const py::array& x, const py::array& weight, int num_threads) {
  rnncore::Linear<T> l;
  l.rows = x.shape(0);
  l.inputs = x.shape(1);
  l.outputs = weight.shape(0);
  l.x = take<T>("x", x, {l.rows, l.inputs}, false);
  l.weight = take<T>("weight", weight, {l.outputs, l.inputs}, false);
  l.num_threads = num_threads;
  return l;
}

void linear_forward(const py::array& x, const py::array& weight, py::handle bias, py::handle out,
                    int num_threads) {
  two_axes("x", x);
  two_axes("weight", weight);
  by_dtype("x", x, [&](auto zero) {
    using T = decltype(zero);
    auto l = make_linear<T>(x, weight, num_threads);
    l.bias = take_or_none<T>("bias", bias, {l.outputs}, false);
    T* to = take<T>("out", out, {l.rows, l.outputs}, true);
    const ReleasedGil released;
    rnncore::linear_forward(l, to);
  });
}

void linear_backward(const py::array& x, const py::array& weight, py::handle dout, py::handle dx,
                     py::handle dweight, py::handle dbias, int num_threads) {
  two_axes("x", x);
  two_axes("weight", weight);
  by_dtype("x", x, [&](auto zero) {
    using T = decltype(zero);
    const auto l = make_linear<T>(x, weight, num_threads);
    const T* from = take<T>("dout", dout, {l.rows, l.outputs}, false);
    T* to_x = take_or_none<T>("dx", dx, {l.rows, l.inputs}, true);
    T* to_weight = take<T>("dweight", dweight, {l.outputs, l.inputs}, true);
    T* to_bias = take_or_none<T>("dbias", dbias, {l.outputs}, true);
    const ReleasedGil released;
    rnncore::linear_backward(l, from, to_x, to_weight, to_bias);
  });
}

void batched_product(const py::array& a, const py::array& b, py::handle out, bool transposed,
                     int num_threads) {
  if (a.ndim() != 3) wrong_shape("a", {-1, -1, -1}, a);
  if (b.ndim() != 3) wrong_shape("b", {-1, -1, -1}, b);
  by_dtype("a", a, [&](auto zero) {
    using T = decltype(zero);
    rnncore::BatchedProduct<T> p;
    p.count = a.shape(0);
    p.rows = a.shape(1);
    p.inner = a.shape(2);
    p.columns = b.shape(transposed ? 1 : 2);
    p.transposed = transposed;
    p.num_threads = num_threads;
    const int64_t first = transposed ? p.columns : p.inner;
    const int64_t second = transposed ? p.inner : p.columns;
    p.a = take<T>("a", a, {p.count, p.rows, p.inner}, false);
    p.b = take<T>("b", b, {p.count, first, second}, false);
    p.c = take<T>("out", out, {p.count, p.rows, p.columns}, true);
    const ReleasedGil released;
    rnncore::batched_product(p);
  });
}

const int64_t* take_indices(const char* name, py::handle object, int64_t count, int64_t below) {
  const auto* indices =
      static_cast<const int64_t*>(contiguous(name, object, 'i', 8, {count}, false));
  const auto largest = std::max_element(indices, indices + count);
  if (count && *largest >= below) {
    throw py::value_error(std::string(name) + ": expected values below " + std::to_string(below) +
                          ", got " + std::to_string(*largest));
  }
  return indices;
}

double softmax_cross_entropy(const py::array& logits, py::handle targets, py::handle dlogits,
                             py::handle weights, double scale, int num_threads) {
  two_axes("logits", logits);
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  const int64_t* at = take_indices("targets", targets, rows, classes);
  double loss = 0;
  by_dtype("logits", logits, [&](auto zero) {
    using T = decltype(zero);
    rnncore::SoftmaxLoss<T> l;
    l.rows = rows;
    l.classes = classes;
    l.logits = take<T>("logits", logits, {rows, classes}, false);
    l.targets = at;
    l.weights = take_or_none<T>("weights", weights, {classes}, false);
    l.scale = scale;
    l.dlogits = take_or_none<T>("dlogits", dlogits, {rows, classes}, true);
    l.num_threads = num_threads;
    const ReleasedGil released;
    loss = rnncore::softmax_cross_entropy(l);
  });
  return loss;
}

void embedding_backward(const py::array& indices, py::handle dout, const py::array& dweight,
                        int num_threads) {
  two_axes("dweight", dweight);
  const int64_t count = indices.size(), rows = dweight.shape(0), size = dweight.shape(1);
  const int64_t* at = take_indices("indices", indices, count, rows);
  if (std::any_of(at, at + count, [](int64_t i) { return i < 0; })) {
    throw py::value_error("indices: expected none below 0");
  }
  by_dtype("dweight", dweight, [&](auto zero) {
    using T = decltype(zero);
    const T* from = take<T>("dout", dout, {count, size}, false);
    T* to = take<T>("dweight", dweight, {rows, size}, true);
    const ReleasedGil released;
    rnncore::embedding_backward(at, from, count, size, to, num_threads);
  });
}

rnncore::Function function_named(const std::string& name) {
  using rnncore::Function;
  const std::pair<const char*, Function> named[] = {{"exp", Function::exp},
                                                    {"tanh", Function::tanh},
                                                    {"sigmoid", Function::sigmoid},
                                                    {"erf", Function::erf},
                                                    {"log1p", Function::log1p}};
  for (const auto& [known, function] : named) {
    if (name == known) return function;
  }
  throw py::value_error("name: expected 'exp', 'tanh', 'sigmoid', 'erf' or 'log1p', got '" + name +
                        "'");
}

void activation(const std::string& name, const py::array& x, py::handle out,
                const std::optional<std::string>& isa, int num_threads) {
  const rnncore::Function function = function_named(name);
  const std::vector<int64_t> shape = shape_of(x);
  by_dtype("x", x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = take<T>("x", x, shape, false);
    T* to = take<T>("out", out, shape, true);
    const int64_t count = x.size();
    const ReleasedGil released;
    rnncore::apply(function, isa ? isa->c_str() : nullptr, from, to, count, num_threads);
  });
}

}  // namespace

void bind_primitives(py::module_& m) {
  m.def("linear_forward", &linear_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("out"), py::arg("num_threads"));
  m.def("linear_backward", &linear_backward, py::arg("x"), py::arg("weight"), py::arg("dout"),
        py::arg("dx"), py::arg("dweight"), py::arg("dbias"), py::arg("num_threads"));
  m.def("batched_product", &batched_product, py::arg("a"), py::arg("b"), py::arg("out"),
        py::arg("transposed"), py::arg("num_threads"));
  m.def("softmax_cross_entropy", &softmax_cross_entropy, py::arg("logits"), py::arg("targets"),
        py::arg("dlogits"), py::arg("weights") = py::none(), py::arg("scale") = 1.0,
        py::arg("num_threads") = 1);
  m.def("embedding_backward", &embedding_backward, py::arg("indices"), py::arg("dout"),
        py::arg("dweight"), py::arg("num_threads") = 1);
  m.def("activation", &activation, py::arg("name"), py::arg("x"), py::arg("out"),
        py::arg("isa") = py::none(), py::arg("num_threads") = 1);
}

}  // namespace rnncore_python
