// Linear layers, softmax with loss, embedding gradients, Adam, and the kernels' own functions.

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "arrays.h"
#include "gil.h"
#include "rnncore/primitives.h"
#include "rnncore/stack.h"

namespace rnncore_python {
namespace {

int64_t item_of(const char* name, const py::array& array) {
  for (const int64_t item : {4, 8}) {
    if (is_native(array, 'f', item)) return item;
  }
  throw py::type_error(std::string(name) + ": expected float32 or float64, got " +
                       std::string(py::str(array.dtype())));
}

// Calls work(T{}) for the array's dtype.
template <class Work>
void by_dtype(const char* name, const py::array& array, const Work& work) {
  item_of(name, array) == 4 ? work(float{}) : work(double{});
}

template <class T>
T* take(const char* name, py::handle object, const std::vector<int64_t>& shape, bool writable) {
  return static_cast<T*>(contiguous(name, object, 'f', sizeof(T), shape, writable));
}

template <class T>
T* take_or_none(const char* name, py::handle object, const std::vector<int64_t>& shape,
                bool writable) {
  return object.is_none() ? nullptr : take<T>(name, object, shape, writable);
}

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
                             int num_threads) {
  two_axes("logits", logits);
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  const int64_t* at = take_indices("targets", targets, rows, classes);
  double loss = 0;
  by_dtype("logits", logits, [&](auto zero) {
    using T = decltype(zero);
    const T* from = take<T>("logits", logits, {rows, classes}, false);
    T* to = take_or_none<T>("dlogits", dlogits, {rows, classes}, true);
    const ReleasedGil released;
    loss = rnncore::softmax_cross_entropy(from, at, rows, classes, to, num_threads);
  });
  return loss;
}

void embedding_backward(const py::array& indices, py::handle dout, const py::array& dweight) {
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
    rnncore::embedding_backward(at, from, count, size, to);
  });
}

void adam_step(const py::array& param, py::handle grad, py::handle m, py::handle v, double rate,
               double beta1, double beta2, double epsilon, double weight_decay, int64_t step,
               int num_threads) {
  const std::vector<int64_t> shape = shape_of(param);
  const rnncore::AdamRule rule = {rate, beta1, beta2, epsilon, weight_decay, step};
  by_dtype("param", param, [&](auto zero) {
    using T = decltype(zero);
    T* to = take<T>("param", param, shape, true);
    const T* from = take<T>("grad", grad, shape, false);
    T* first = take<T>("m", m, shape, true);
    T* second = take<T>("v", v, shape, true);
    const int64_t count = param.size();
    const ReleasedGil released;
    rnncore::adam_step(to, from, first, second, count, rule, num_threads);
  });
}

void activation(const std::string& name, const py::array& x, py::handle out,
                const std::optional<std::string>& isa) {
  rnncore::Function function = rnncore::Function::exp;
  if (name == "tanh") {
    function = rnncore::Function::tanh;
  } else if (name == "sigmoid") {
    function = rnncore::Function::sigmoid;
  } else if (name != "exp") {
    throw py::value_error("name: expected 'exp', 'tanh' or 'sigmoid', got '" + name + "'");
  }
  const std::vector<int64_t> shape = shape_of(x);
  by_dtype("x", x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = take<T>("x", x, shape, false);
    T* to = take<T>("out", out, shape, true);
    const int64_t count = x.size();
    const ReleasedGil released;
    rnncore::apply(function, isa ? isa->c_str() : nullptr, from, to, count);
  });
}

}  // namespace

void bind_primitives(py::module_& m) {
  m.def("linear_forward", &linear_forward, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("out"), py::arg("num_threads"));
  m.def("linear_backward", &linear_backward, py::arg("x"), py::arg("weight"), py::arg("dout"),
        py::arg("dx"), py::arg("dweight"), py::arg("dbias"), py::arg("num_threads"));
  m.def("softmax_cross_entropy", &softmax_cross_entropy, py::arg("logits"), py::arg("targets"),
        py::arg("dlogits"), py::arg("num_threads"));
  m.def("embedding_backward", &embedding_backward, py::arg("indices"), py::arg("dout"),
        py::arg("dweight"));
  m.def("adam_step", &adam_step, py::arg("param"), py::arg("grad"), py::arg("m"), py::arg("v"),
        py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("step"), py::arg("num_threads") = 1);
  m.def("activation", &activation, py::arg("name"), py::arg("x"), py::arg("out"),
        py::arg("isa") = py::none());
}

}  // namespace rnncore_python
