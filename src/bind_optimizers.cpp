// Steps of optimisers: stochastic gradient descent and Adam.

#include "by_dtype.h"
#include "gil.h"
#include "rnncore/optimizers.h"

namespace rnncore_python {
namespace {

void sgd_step(const py::array& param, py::handle grad, py::handle velocity, double rate,
              double momentum, bool nesterov, double penalty, int num_threads) {
  const std::vector<int64_t> shape = shape_of(param);
  const rnncore::SgdRule rule = {rate, momentum, penalty, nesterov};
  by_dtype("param", param, [&](auto zero) {
    using T = decltype(zero);
    T* to = take<T>("param", param, shape, true);
    const T* from = take<T>("grad", grad, shape, false);
    T* memory = take_or_none<T>("velocity", velocity, shape, true);
    const int64_t count = param.size();
    const ReleasedGil released;
    rnncore::sgd_step(to, from, memory, count, rule, num_threads);
  });
}

void adam_step(const py::array& param, py::handle grad, py::handle m, py::handle v, double rate,
               double beta1, double beta2, double epsilon, double weight_decay, int64_t step,
               int num_threads, double penalty) {
  const std::vector<int64_t> shape = shape_of(param);
  const rnncore::AdamRule rule = {rate, beta1, beta2, epsilon, penalty, weight_decay, step};
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

double sum_of_squares(const py::array& x, int num_threads) {
  double sum = 0;
  by_dtype("x", x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = take<T>("x", x, shape_of(x), false);
    const int64_t count = x.size();
    const ReleasedGil released;
    sum = rnncore::sum_of_squares(from, count, num_threads);
  });
  return sum;
}

}  // namespace

void bind_optimizers(py::module_& m) {
  m.def("sgd_step", &sgd_step, py::arg("param"), py::arg("grad"), py::arg("velocity"),
        py::arg("lr"), py::arg("momentum"), py::arg("nesterov"), py::arg("penalty"),
        py::arg("num_threads"));
  m.def("adam_step", &adam_step, py::arg("param"), py::arg("grad"), py::arg("m"), py::arg("v"),
        py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("step"), py::arg("num_threads") = 1, py::arg("penalty") = 0.0);
  m.def("sum_of_squares", &sum_of_squares, py::arg("x"), py::arg("num_threads"));
}

}  // namespace rnncore_python
