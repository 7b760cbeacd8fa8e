#include "emulation/fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>

// The registers that a called function must leave as they were, and no more.
#if defined(__x86_64__)
asm(R"(
.text
.globl rnncore_emulated_switch
.type rnncore_emulated_switch, @function
rnncore_emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rnncore_emulated_switch, .-rnncore_emulated_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl rnncore_emulated_switch
.type rnncore_emulated_switch, %function
rnncore_emulated_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size rnncore_emulated_switch, .-rnncore_emulated_switch
)");
#else
#error "fibers know x86-64 and aarch64"
#endif

namespace rnncore {
namespace emulation {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr size_t kKept = 512;
constexpr size_t kGuardBytes = 64 * 1024;  // a page, where pages are largest

char* new_stack() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  if (mprotect(memory, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

}  // namespace

Stacks::~Stacks() {
  for (char* stack : stacks_) munmap(stack, kGuardBytes + kStackBytes);
}

void Stacks::keep_few() {
  for (; stacks_.size() > kKept; stacks_.pop_back()) {
    munmap(stacks_.back(), kGuardBytes + kStackBytes);
  }
}

StackPointer Stacks::start(size_t index, void (*entry)()) {
  while (stacks_.size() <= index) stacks_.push_back(new_stack());
  char* const top = stacks_[index] + kGuardBytes + kStackBytes;
  void* frame[20] = {};
#if defined(__x86_64__)
  // Six registers, where `ret` goes, and a return address that keeps the stack as after a call.
  constexpr size_t kEntry = 6, kWords = 8;
#else
  constexpr size_t kEntry = 11, kWords = 20;  // x30
#endif
  static_assert(sizeof(entry) == sizeof(void*), "code has addresses like data");
  std::memcpy(&frame[kEntry], &entry, sizeof entry);
  char* const pointer = top - kWords * sizeof(void*);
  std::memcpy(pointer, frame, kWords * sizeof(void*));
  return pointer;
}

}  // namespace emulation
}  // namespace rnncore
