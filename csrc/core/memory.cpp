#include "core/memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "rnncore/debug.h"

namespace rnncore {
namespace {

constexpr size_t kHuge = size_t{2} << 20;
constexpr size_t kLarge = size_t{16} << 10;       // from here on freed blocks are kept
constexpr size_t kKeptBytes = size_t{256} << 20;  // of them, for the whole process
constexpr int kKeptBlocks = 64;

std::atomic<int64_t> live{0};
std::atomic<int64_t> failing{-1};
std::atomic<bool> poisoned{false};

struct Block {
  void* data;
  size_t bytes;
};

// Freed blocks. Never destroyed: buffers may be freed while the process ends.
struct Kept {
  std::mutex mutex;
  Block blocks[kKeptBlocks] = {};  // a ring: the longest kept is replaced first
  int next = 0;
  size_t bytes = 0;
};

Kept& kept() {
  static Kept* const instance = new Kept;
  return *instance;
}

// What a block of `bytes` takes: few different sizes, so that kept blocks are found again.
size_t rounded(size_t bytes) {
  const size_t unit = bytes >= kHuge ? kHuge : bytes >= kLarge ? kLarge : 64;
  return (bytes + unit - 1) / unit * unit;
}

void* take_kept(size_t bytes) {
  std::unique_lock<std::mutex> lock(kept().mutex, std::try_to_lock);
  if (!lock) return nullptr;
  for (Block& block : kept().blocks) {
    if (!block.data || block.bytes != bytes) continue;
    kept().bytes -= bytes;
    block.bytes = 0;
    return std::exchange(block.data, nullptr);
  }
  return nullptr;
}

void drop(Kept& k, Block& block) {
  std::free(block.data);
  k.bytes -= block.bytes;
  block = {};
}

// A full store gives up what has waited longest: sizes change when shapes do.
bool keep(void* data, size_t bytes) {
  std::unique_lock<std::mutex> lock(kept().mutex, std::try_to_lock);
  if (!lock || bytes > kKeptBytes) return false;
  Kept& k = kept();
  for (; k.bytes + bytes > kKeptBytes; k.next = (k.next + 1) % kKeptBlocks) {
    drop(k, k.blocks[k.next]);
  }
  drop(k, k.blocks[k.next]);
  k.blocks[k.next] = {data, bytes};
  k.bytes += bytes;
  k.next = (k.next + 1) % kKeptBlocks;
  return true;
}

void release_kept() {
  std::unique_lock<std::mutex> lock(kept().mutex, std::try_to_lock);
  if (!lock) return;
  for (Block& block : kept().blocks) drop(kept(), block);
}

bool failure_is_due() {
  int64_t left = failing.load(std::memory_order_relaxed);
  while (left >= 0) {
    if (failing.compare_exchange_weak(left, left - 1)) return left == 0;
  }
  return false;
}

// Small blocks are malloc's, aligned here: posix_memalign takes ten times as long, and a short call
// needs a dozen of them. What malloc gave stands before the block.
void* fresh_small(size_t bytes) {
  void* given = std::malloc(bytes + 64);
  if (!given) throw std::bad_alloc();
  const uintptr_t at = (reinterpret_cast<uintptr_t>(given) + 64) / 64 * 64;
  void** data = reinterpret_cast<void**>(at);
  data[-1] = given;
  return data;
}

void* fresh(size_t bytes) {
  if (bytes < kLarge) return fresh_small(bytes);
  void* data = nullptr;
  const size_t alignment = bytes >= kHuge ? kHuge : 64;
  if (posix_memalign(&data, alignment, bytes)) {
    release_kept();
    if (posix_memalign(&data, alignment, bytes)) throw std::bad_alloc();
  }
  if (bytes >= kHuge) madvise(data, bytes, MADV_HUGEPAGE);
  return data;
}

}  // namespace

size_t Buffer::checked_bytes(int64_t count, size_t item) {
  if (count < 0 || static_cast<size_t>(count) > SIZE_MAX / 4 / item) throw std::bad_alloc();
  return static_cast<size_t>(count) * item;
}

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (failure_is_due()) throw std::bad_alloc();
  const size_t block = rounded(bytes ? bytes : 1);
  if (block >= kLarge) data_ = take_kept(block);
  if (!data_) data_ = fresh(block);
  live.fetch_add(1, std::memory_order_relaxed);
  if (poisoned.load(std::memory_order_relaxed)) std::memset(data_, 0xff, block);
}

Buffer Buffer::at(void* memory, size_t bytes) {
  Buffer buffer;
  buffer.data_ = memory;
  buffer.size_ = bytes;
  buffer.owned_ = false;
  return buffer;
}

Buffer::~Buffer() {
  if (!data_ || !owned_) return;
  live.fetch_sub(1, std::memory_order_relaxed);
  const size_t block = rounded(size_ ? size_ : 1);
  if (block < kLarge) {
    std::free(static_cast<void**>(data_)[-1]);
  } else if (!keep(data_, block)) {
    std::free(data_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      owned_(other.owned_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(owned_, other.owned_);
  return *this;
}

void Buffer::clear() { std::memset(data_, 0, size_); }

namespace debug {
int64_t live_blocks() { return live.load(); }
void fail_after(int64_t allocations) { failing.store(allocations); }
void fill_with_nan(bool on) { poisoned.store(on); }
void clear_kept_memory() { release_kept(); }
}  // namespace debug

}  // namespace rnncore
