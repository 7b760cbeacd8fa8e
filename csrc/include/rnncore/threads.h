// How many threads calls may use, and which instruction set.
#pragma once

#include <vector>

namespace rnncore {

// Whole CPUs of this process's affinity and cgroup quota, at least one.
int default_num_threads();
int get_num_threads();
void set_num_threads(int n);  // at least 1

// The instruction set in use: "baseline", "avx2" or "avx512". Chosen at the first call; the
// environment variable RNNCORE_ISA forces one. Throws std::invalid_argument for a name that is
// unknown or that this machine lacks.
const char* isa();
void set_isa(const char* name);
std::vector<const char*> compiled_isas();
std::vector<const char*> supported_isas();

}  // namespace rnncore
