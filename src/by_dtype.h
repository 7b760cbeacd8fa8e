// Arrays of float32 or float64 as addresses of one type, for templates made for both.
#pragma once

#include <string>
#include <vector>

#include "arrays.h"

namespace rnncore_python {

inline int64_t item_of(const char* name, const py::array& array) {
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

}  // namespace rnncore_python
