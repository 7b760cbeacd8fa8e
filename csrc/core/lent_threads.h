// The threads of an OpenMP runtime that a host lends, see rnncore/threads.h.
#pragma once

#include "rnncore/threads.h"

namespace rnncore {

// What was lent, if the calling thread can have a team of it now; nullptr otherwise.
const OpenMP* lent_threads();

// Runs body(context, member) on members 0 (the caller) to `members` - 1 at the same time; false if
// the runtime gave fewer threads, none of which has run it then.
bool run_on_lent_threads(const OpenMP& runtime, int members, void (*body)(void*, int),
                         void* context);

}  // namespace rnncore
