// How many threads calls may use, and which instruction set.
#pragma once

#include <vector>

namespace rnncore {

// Whole CPUs of this process's affinity and cgroup quota, at least one.
int default_num_threads();
int get_num_threads();
void set_num_threads(int n);  // at least 1

// The functions of an OpenMP runtime that runs in this process: GOMP_parallel, which GCC's, LLVM's
// and Intel's runtimes have on Linux, and omp_get_...
struct OpenMP {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
  int (*thread_num)();
  int (*num_threads)();
  int (*max_threads)();
  int (*in_parallel)();
  int (*dynamic)();
};

// Lets later calls compute on the threads of a host's runtime. Workers of OpenMP spin for
// milliseconds after a region: threads of the engine's own would wait for their CPUs, at every
// call. Results are the same. In a forked child the engine has threads of its own again.
void borrow_threads(const OpenMP& runtime);
void return_threads();

// The instruction set in use: "baseline", "avx2" or "avx512". Chosen at the first call; the
// environment variable RNNCORE_ISA forces one. Throws std::invalid_argument for a name that is
// unknown or that this machine lacks.
const char* isa();
void set_isa(const char* name);
std::vector<const char*> compiled_isas();
std::vector<const char*> supported_isas();

}  // namespace rnncore
