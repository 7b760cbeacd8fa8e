// What a launch says of its threads: addresses, races, and where they stand when none can go on.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <map>

#include "emulation/launch.h"

namespace rnncore {
namespace emulation {
namespace {

constexpr size_t kViolationsAtMost = 1000;
// So near to shared memory, an address was meant to be in it.
constexpr int64_t kNear = 2048;

std::string number(int64_t value) { return std::to_string(value); }

std::string name_of(int block, int thread, int blocks_x) {
  return "block (" + number(block % blocks_x) + ", " + number(block / blocks_x) + ") thread " +
         number(thread);
}

// The file and line, and {the place in this library}, of which library.py finds out the callers.
std::string name_of(const Site& site) {
  const std::string name = std::string(site.file) + ":" + number(site.line);
  Dl_info library;
  if (!site.code || !dladdr(site.code, &library)) return name;
  const char* const start = static_cast<const char*>(library.dli_fbase);
  return name + " {" + number(static_cast<const char*>(site.code) - start) + "}";
}

// Numbers as ranges: 0-30, 32.
std::string ranges(const std::vector<int>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size(); ++i) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + number(numbers[i]);
    if (last > i) text += "-" + number(numbers[last]);
    i = last;
  }
  return text;
}

std::string what_it_does(const Thread& thread) {
  if (thread.state == State::ended) return "ended";
  const char* const word = thread.state == State::at_barrier ? "block_barrier" : "shuffle_xor";
  return std::string("wait in ") + word + " at " +
         name_of({thread.site.file, thread.site.line, nullptr});
}

}  // namespace

std::string Launch::describe_place(const void* at, size_t bytes) const {
  const Address start = reinterpret_cast<Address>(at);
  const auto offset =
      static_cast<int64_t>(start - reinterpret_cast<Address>(running_->place.shared));
  const std::string size = number(bytes) + " bytes at ";
  if (offset < -kNear || offset >= static_cast<int64_t>(shared_bytes_) + kNear) {
    return size + memory_.describe(start);
  }
  return size + "byte " + number(offset) + " of " + number(shared_bytes_) + " of shared memory";
}

bool Launch::may_access(const void* at, size_t bytes, size_t alignment, bool writes,
                        const Site& site) {
  const Address start = reinterpret_cast<Address>(at);
  const size_t offset = start - reinterpret_cast<Address>(running_->place.shared);
  const bool is_shared = offset < shared_bytes_ && bytes <= shared_bytes_ - offset;
  const char* const what = writes ? "writes " : "reads ";
  if (start % alignment) {
    violation("misaligned", site, what + ("misaligned " + describe_place(at, bytes)));
    return false;
  }
  if (!is_shared && !memory_.holds(start, bytes)) {
    violation("out of bounds", site, what + ("out of bounds " + describe_place(at, bytes)));
    return false;
  }
  const Block& block = *running_->block;
  const Access now = {block.number, running_->place.thread, block.epoch, site};
  const unsigned era = is_shared ? shared_era_ : global_era_;
  const Shadow::Found found =
      writes ? shadow_.write(era, start, bytes, now) : shadow_.read(era, start, bytes, now);
  if (found.race) {
    const Access& other = found.other;
    violation("race", site,
              std::string("races: ") + what + describe_place(at, bytes) + ", which " +
                  name_of(other.block, other.thread, running_->place.blocks_x) +
                  (found.race_wrote ? " wrote at " : " read at ") + name_of(other.site) +
                  " with no barrier between");
  } else if (is_shared && !writes && found.unwritten) {
    violation("unwritten", site, "reads unwritten " + describe_place(at, bytes));
  }
  return true;
}

void Launch::violation(const char* kind, const Site& site, const std::string& text) {
  const std::string name = name_of(site);
  const std::string who =
      name_of(running_->block->number, running_->place.thread, running_->place.blocks_x);
  const size_t count = report_.add(name + kind, name + ": " + who + " " + text);
  if (count >= kViolationsAtMost) abandon();
}

// Threads that meet must come from one place in the text.
void Launch::check_meeting(const char* what, const Thread& other) {
  const Site &here = running_->site, &there = other.site;
  if (here.line == there.line && std::strcmp(here.file, there.file) == 0) return;
  const std::string divergent = std::string("divergent ") + what;
  violation(divergent.c_str(), here,
            "in a " + divergent + " meets thread " + number(other.place.thread) +
                " in the one at " + name_of(there));
}

void Launch::describe_stall(const Block& block) {
  std::map<std::string, std::vector<int>> doing;
  bool in_shuffle = false;
  for (int t = 0; t < block.thread_count; ++t) {
    doing[what_it_does(block.threads[t])].push_back(t);
    in_shuffle = in_shuffle || block.threads[t].state == State::in_shuffle;
  }
  const char* kind = "deadlock";
  if (block.ended) kind = in_shuffle ? "divergent shuffle" : "divergent barrier";
  const cuda::emulation::Place& place = block.threads[0].place;
  std::string text = std::string(kind) + ": block (" + number(place.block_x) + ", " +
                     number(place.block_y) + ") cannot go on:";
  const char* separator = " ";
  for (const auto& [what, threads] : doing) {
    text += separator + ("threads " + ranges(threads)) + " " + what;
    separator = "; ";
  }
  report_.add(kind, text);
}

}  // namespace emulation
}  // namespace rnncore
