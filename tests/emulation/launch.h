// Runs a launch: every thread a fiber, the blocks of a launch side by side, in an order that a seed
// makes, until all have ended or none can go on.
#pragma once

#include <string>
#include <vector>

#include "core/cuda_device.h"
#include "cuda/emulated.h"
#include "emulation/fibers.h"
#include "emulation/memory.h"
#include "emulation/report.h"

namespace rnncore {
namespace emulation {

struct Block;

enum class State { ready, at_barrier, in_shuffle, ended };

struct Thread {
  cuda::emulation::Place place;
  Block* block;
  StackPointer stack;
  State state;
  Site site;       // where it waits
  uint64_t value;  // in a shuffle: the lane's own, then the other one's
  int mask;
};

struct Block {
  int number;  // y * blocks_x + x
  unsigned epoch;
  int at_barrier, ended;
  std::vector<int> in_shuffle;  // by warp: lanes that wait
  Thread* threads;
  int thread_count;
};

class Launch {
 public:
  Launch(const Memory& memory, Shadow& shadow, Stacks& stacks, uint64_t& random);
  // What the kernel did wrong; empty: nothing.
  std::string run(const CudaLaunch& launch);

  // The words, called from fibers.
  bool may_access(const void* at, size_t bytes, size_t alignment, bool writes, const Site& site);
  void wait_for_block(const Site& site);
  uint64_t wait_for_warp(uint64_t value, int mask, const Site& site);
  void end_thread();
  const void* arguments() const { return arguments_.data(); }
  const cuda::emulation::Kernel& kernel() const { return *kernel_; }

 private:
  void prepare(const CudaLaunch& launch, const std::vector<int>& order, size_t first, size_t count);
  void run_chunk();
  void suspend(State state, const Site& site);
  [[noreturn]] void abandon();
  void exchange(Block& block, int warp);
  std::string describe_place(const void* at, size_t bytes) const;
  void describe_stall(const Block& block);
  void violation(const char* kind, const Site& site, const std::string& text);
  void check_meeting(const char* what, const Thread& other);
  uint64_t below(uint64_t bound);

  const Memory& memory_;
  Shadow& shadow_;
  Stacks& stacks_;
  uint64_t& random_;
  Report report_;
  const cuda::emulation::Kernel* kernel_ = nullptr;
  std::vector<max_align_t> arguments_;
  std::vector<Thread> threads_;
  std::vector<Block> blocks_;
  std::vector<Thread*> ready_;
  std::vector<char> shared_;
  size_t shared_bytes_ = 0;
  unsigned global_era_ = 0, shared_era_ = 0;
  bool abandoned_ = false;
  StackPointer scheduler_ = nullptr;
  Thread* running_ = nullptr;
};

// What is wrong with a launch before it starts; empty: nothing.
std::string check_launch(const CudaLaunch& launch);

}  // namespace emulation
}  // namespace rnncore
