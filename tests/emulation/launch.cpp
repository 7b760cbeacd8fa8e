#include "emulation/launch.h"

#include <algorithm>
#include <cstring>

#include "emulation/kernels.h"

namespace rnncore {
namespace emulation {
namespace {

constexpr int kWarp = 32;
// Blocks beyond as many threads run after the others: words know no order between blocks anyway.
constexpr size_t kFibersAtOnce = 4096;
constexpr size_t kPageBytes = 4096;

Launch* current = nullptr;

void run_thread() {
  current->kernel().run(current->arguments());
  current->end_thread();
}

}  // namespace

std::string check_launch(const CudaLaunch& launch) {
  const auto* kernel = static_cast<const cuda::emulation::Kernel*>(launch.kernel);
  if (!is_kernel(kernel)) return "launch: the pointer is not that of a kernel";
  const std::string name = std::string("launch of ") + kernel->name + ": ";
  if (launch.blocks_x < 1 || launch.blocks_x > 0x7fffffff || launch.blocks_y < 1 ||
      launch.blocks_y > 65535 || launch.blocks_x * launch.blocks_y > 0x7fffffff) {
    return name + "a grid has 1 .. 2^31 - 1 times 1 .. 65535 blocks, not " +
           std::to_string(launch.blocks_x) + " times " + std::to_string(launch.blocks_y);
  }
  if (launch.threads < 1 || launch.threads > kernel->threads || kernel->threads > 1024) {
    return name + "a block has 1 .. " + std::to_string(std::min(kernel->threads, 1024)) +
           " threads, not " + std::to_string(launch.threads);
  }
  if (launch.shared_bytes < 0 || launch.shared_bytes > kSharedBytesAtMost) {
    return name + "a block has 0 .. " + std::to_string(kSharedBytesAtMost) +
           " bytes of shared memory, not " + std::to_string(launch.shared_bytes);
  }
  if (launch.arguments_bytes != kernel->arguments_bytes || !launch.arguments) {
    return name + "takes arguments of " + std::to_string(kernel->arguments_bytes) +
           " bytes, not of " + std::to_string(launch.arguments_bytes);
  }
  return "";
}

Launch::Launch(const Memory& memory, Shadow& shadow, Stacks& stacks, uint64_t& random)
    : memory_(memory), shadow_(shadow), stacks_(stacks), random_(random) {}

// Marsaglia's xorshift with Vigna's multiplier: any seed but 0 will do.
uint64_t Launch::below(uint64_t bound) {
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return (random_ * 0x2545f4914f6cdd1dULL >> 33) % bound;
}

std::string Launch::run(const CudaLaunch& launch) {
  kernel_ = static_cast<const cuda::emulation::Kernel*>(launch.kernel);
  arguments_.resize(launch.arguments_bytes / sizeof(max_align_t) + 1);
  std::memcpy(arguments_.data(), launch.arguments, launch.arguments_bytes);
  shadow_.end_eras();
  global_era_ = shadow_.new_era();
  std::vector<int> order(launch.blocks_x * launch.blocks_y);
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t other = below(i + 1);
    order[i] = order[other];
    order[other] = static_cast<int>(i);
  }
  const size_t at_once = std::max<size_t>(1, kFibersAtOnce / launch.threads);
  current = this;
  for (size_t first = 0; first < order.size() && !abandoned_; first += at_once) {
    prepare(launch, order, first, std::min(at_once, order.size() - first));
    run_chunk();
  }
  current = nullptr;
  cuda::emulation::place = nullptr;
  if (report_.empty()) return "";
  return std::string("kernel ") + kernel_->name + ", " + std::to_string(launch.blocks_x) + " x " +
         std::to_string(launch.blocks_y) + " blocks of " + std::to_string(launch.threads) +
         " threads:" + report_.text();
}

void Launch::prepare(const CudaLaunch& launch, const std::vector<int>& order, size_t first,
                     size_t count) {
  const int threads = static_cast<int>(launch.threads);
  shared_bytes_ = launch.shared_bytes;
  const size_t pitch = (shared_bytes_ / kPageBytes + 1) * kPageBytes;
  shared_.assign((count + 1) * pitch, static_cast<char>(0xff));
  shared_era_ = shadow_.new_era();
  const size_t start = kPageBytes - reinterpret_cast<Address>(shared_.data()) % kPageBytes;
  threads_.resize(count * threads);
  blocks_.resize(count);
  ready_.clear();
  for (size_t b = 0; b < count; ++b) {
    const int number = order[first + b], blocks_x = static_cast<int>(launch.blocks_x);
    Block& block = blocks_[b];
    block = {number, 0, 0, 0, std::vector<int>(threads / kWarp + 1), &threads_[b * threads],
             threads};
    for (int t = 0; t < threads; ++t) {
      Thread& thread = block.threads[t];
      thread = {};
      thread.place = {t,
                      threads,
                      number % blocks_x,
                      number / blocks_x,
                      blocks_x,
                      static_cast<int>(launch.blocks_y),
                      &shared_[start + b * pitch]};
      thread.block = &block;
      thread.stack = stacks_.start(b * threads + t, run_thread);
      ready_.push_back(&thread);
    }
  }
}

void Launch::run_chunk() {
  while (!ready_.empty() && !abandoned_) {
    std::swap(ready_[below(ready_.size())], ready_.back());
    running_ = ready_.back();
    ready_.pop_back();
    cuda::emulation::place = &running_->place;
    rnncore_emulated_switch(&scheduler_, running_->stack);
  }
  for (const Block& block : blocks_) {
    if (!abandoned_ && block.ended < block.thread_count) describe_stall(block);
  }
}

void Launch::suspend(State state, const Site& site) {
  running_->state = state;
  running_->site = site;
  Thread* const self = running_;
  rnncore_emulated_switch(&self->stack, scheduler_);
}

void Launch::end_thread() {
  ++running_->block->ended;
  suspend(State::ended, Site());
}

void Launch::abandon() {
  abandoned_ = true;
  suspend(State::ended, Site());
  __builtin_unreachable();
}

// The last to arrive lets the others go on, and has itself no right to be first.
void Launch::wait_for_block(const Site& site) {
  Block& block = *running_->block;
  if (++block.at_barrier < block.thread_count) return suspend(State::at_barrier, site);
  running_->site = site;
  for (int t = 0; t < block.thread_count; ++t) {
    Thread& thread = block.threads[t];
    check_meeting("barrier", thread);
    thread.state = State::ready;
    ready_.push_back(&thread);
  }
  block.at_barrier = 0;
  ++block.epoch;
  suspend(State::ready, site);
}

uint64_t Launch::wait_for_warp(uint64_t value, int mask, const Site& site) {
  Block& block = *running_->block;
  const int warp = running_->place.thread / kWarp;
  if (block.thread_count % kWarp || mask < 0 || mask >= kWarp) {
    violation("partial warp", site,
              "shuffles with mask " + std::to_string(mask) + " in a block of " +
                  std::to_string(block.thread_count) +
                  " threads; warps of 32 do, and masks of 0 .. 31");
    abandon();
  }
  Thread& self = *running_;
  self.value = value;
  self.mask = mask;
  if (++block.in_shuffle[warp] < kWarp) {
    suspend(State::in_shuffle, site);
  } else {
    self.site = site;
    exchange(block, warp);
    suspend(State::ready, site);
  }
  return self.value;
}

// All lanes have come: they exchange values before one of them can bring the next.
void Launch::exchange(Block& block, int warp) {
  Thread* const lanes = &block.threads[warp * kWarp];
  uint64_t values[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) values[lane] = lanes[lane ^ lanes[lane].mask].value;
  for (int lane = 0; lane < kWarp; ++lane) {
    check_meeting("shuffle", lanes[lane]);
    lanes[lane].value = values[lane];
    lanes[lane].state = State::ready;
    ready_.push_back(&lanes[lane]);
  }
  block.in_shuffle[warp] = 0;
}

}  // namespace emulation

namespace cuda {
namespace emulation {

const Place* place = nullptr;

using Site = rnncore::emulation::Site;

// A word is known by where it returns to.
bool may_read(const void* from, size_t bytes, size_t alignment, const char* file, int line) {
  const Site site = {file, line, __builtin_return_address(0)};
  return rnncore::emulation::current->may_access(from, bytes, alignment, false, site);
}
bool may_write(void* to, size_t bytes, size_t alignment, const char* file, int line) {
  const Site site = {file, line, __builtin_return_address(0)};
  return rnncore::emulation::current->may_access(to, bytes, alignment, true, site);
}
void wait_for_block(const char* file, int line) {
  rnncore::emulation::current->wait_for_block({file, line, __builtin_return_address(0)});
}
uint64_t wait_for_warp(uint64_t value, int mask, const char* file, int line) {
  const Site site = {file, line, __builtin_return_address(0)};
  return rnncore::emulation::current->wait_for_warp(value, mask, site);
}

}  // namespace emulation
}  // namespace cuda
}  // namespace rnncore
