// The extension module `rnncore._rnncore`: the one shared object that owns the engine.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "gil.h"
#include "rnncore/c_api.h"
#include "rnncore/debug.h"
#include "rnncore/limits.h"
#include "rnncore/threads.h"

namespace py = pybind11;

void bind_safetensors(py::module_& m);

namespace rnncore_python {
void bind_stack(py::module_& m);
void bind_stream_limit(py::module_& m);
void bind_primitives(py::module_& m);
void bind_optimizers(py::module_& m);
void bind_cuda(py::module_& m);
}  // namespace rnncore_python

namespace {

const char* compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

void set_num_threads(int n) {
  if (n < 1) throw py::value_error("num_threads: expected 1 or more, got " + std::to_string(n));
  rnncore::set_num_threads(n);
}

template <class Function>
void set_address(Function& function, uintptr_t address) {
  function = reinterpret_cast<Function>(address);
}

void borrow_threads(uintptr_t parallel, uintptr_t thread_num, uintptr_t num_threads,
                    uintptr_t max_threads, uintptr_t in_parallel, uintptr_t dynamic) {
  rnncore::OpenMP runtime;
  set_address(runtime.parallel, parallel);
  set_address(runtime.thread_num, thread_num);
  set_address(runtime.num_threads, num_threads);
  set_address(runtime.max_threads, max_threads);
  set_address(runtime.in_parallel, in_parallel);
  set_address(runtime.dynamic, dynamic);
  rnncore::borrow_threads(runtime);
}

void bind_threads(py::module_& m) {
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("get_num_threads", &rnncore::get_num_threads);
  m.def("default_num_threads", &rnncore::default_num_threads);
  m.def("borrow_threads", &borrow_threads, py::arg("parallel"), py::arg("thread_num"),
        py::arg("num_threads"), py::arg("max_threads"), py::arg("in_parallel"), py::arg("dynamic"));
  m.def("return_threads", &rnncore::return_threads);
}

void bind_debug(py::module_ m) {
  m.def("live_blocks", &rnncore::debug::live_blocks);
  m.def("fail_after", &rnncore::debug::fail_after, py::arg("n"));
  m.def("fill_with_nan", &rnncore::debug::fill_with_nan, py::arg("on"));
  m.def("team_threads", &rnncore::debug::team_threads);
  m.def("clear_kept_memory", &rnncore::debug::clear_kept_memory);
}

void bind_limits(py::module_ m) {
  rnncore_python::bind_stream_limit(m);
  const auto without_gil = py::call_guard<py::gil_scoped_release>();
  m.def("fma_rate", &rnncore::measure_fma_rate, py::arg("num_threads"), py::arg("seconds"),
        without_gil);
  m.def("read_rate", &rnncore::measure_read_rate, py::arg("bytes"), py::arg("num_threads"),
        py::arg("seconds"), without_gil);
}

}  // namespace

PYBIND11_MODULE(_rnncore, m, py::mod_gil_not_used()) {
  m.doc() = "The engine: packed weights, whole sequences, threads. Use rnncore instead.";
  rnncore_python::remember_main_thread();
  rnncore_python::bind_stack(m);
  rnncore_python::bind_primitives(m);
  rnncore_python::bind_optimizers(m);
  rnncore_python::bind_cuda(m);
  bind_safetensors(m);
  bind_debug(m.def_submodule("_debug", "For tests."));
  m.attr("_C_API") = py::capsule(rnncore_get_c_api(), RNNCORE_C_API_CAPSULE);
  bind_limits(m.def_submodule("_limits", "The machine's own limits, measured."));
  m.def("isa", &rnncore::isa);
  m.def(
      "set_isa", [](const std::string& name) { rnncore::set_isa(name.c_str()); }, py::arg("name"));
  m.def("compiled_isas", &rnncore::compiled_isas);
  m.def("supported_isas", &rnncore::supported_isas);
  m.def("compiler", &compiler);
  bind_threads(m);
}
