// What tests look at and bring about. Not part of the promised API.
#pragma once

#include <cstdint>

namespace rnncore {
namespace debug {

int64_t live_blocks();  // of the core's memory
void fail_after(
    int64_t allocations);     // the n-th allocation from now (0: the next) fails; < 0: none
void fill_with_nan(bool on);  // new blocks start as NaN, to show what is read unwritten
int team_threads();           // workers that exist
void clear_kept_memory();     // gives back what is kept for the next call

}  // namespace debug
}  // namespace rnncore
