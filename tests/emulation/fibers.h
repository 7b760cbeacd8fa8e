// Stacks to run on, and the switch between them. One OS thread owns them all.
#pragma once

#include <cstddef>
#include <vector>

namespace rnncore {
namespace emulation {

// A stack that is not running is known by its stack pointer.
using StackPointer = void*;

// Keeps the running stack's registers on it, its pointer in `from`, and goes on where `to` stopped.
// The signal mask stays as it is, which ucontext would spend two system calls on.
extern "C" void rnncore_emulated_switch(StackPointer* from, StackPointer to);

// Stacks that are made once and used again, each above a page that nobody may touch.
class Stacks {
 public:
  ~Stacks();
  // How a stack starts with `entry`, which never returns. Whatever ran there is forgotten.
  StackPointer start(size_t index, void (*entry)());
  // Gives back what is beyond a few blocks' worth: a process may have 65530 pieces of memory, each
  // stack is two of them, and many libraries live in one process.
  void keep_few();

 private:
  std::vector<char*> stacks_;
};

}  // namespace emulation
}  // namespace rnncore
