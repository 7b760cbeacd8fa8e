// Leaving Python while the core works, and how the core asks for Python's signals.
#pragma once

#include <pthread.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <atomic>

#include "rnncore/types.h"

namespace rnncore_python {

namespace py = pybind11;

inline bool finalizing() {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsFinalizing();
#else
  return _Py_IsFinalizing();
#endif
}

inline std::atomic<unsigned long>& main_thread() {
  static std::atomic<unsigned long> ident{0};
  return ident;
}

inline bool on_main_thread() { return PyThread_get_thread_ident() == main_thread().load(); }

// Remembers Python's main thread, the only one that runs signal handlers; after a fork that is the
// thread that forked.
inline void remember_main_thread() {
  const py::object main = py::module_::import("threading").attr("main_thread")();
  main_thread().store(main.attr("ident").cast<unsigned long>());
  pthread_atfork(nullptr, nullptr, [] { main_thread().store(PyThread_get_thread_ident()); });
}

// While this lives the thread does not hold the GIL. Other threads do not come back to an
// interpreter that is ending; one that comes while it begins to end is unwound by Python, so this
// destructor may throw, unlike pybind11's.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ~ReleasedGil() noexcept(false) {
    while (finalizing() && !on_main_thread()) pause();
    PyEval_RestoreThread(state_);
  }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

inline bool signals_pending(void*) {
  py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

// What the core asks every 50 ms whether to stop: nothing, off the main thread.
inline rnncore::Interrupt python_interrupt() {
  rnncore::Interrupt interrupt;
  if (on_main_thread()) interrupt.requested = signals_pending;
  return interrupt;
}

}  // namespace rnncore_python
