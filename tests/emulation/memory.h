// What kernels may touch, and who touched it when: the watch over addresses and races.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

namespace rnncore {
namespace emulation {

using Address = uintptr_t;

// Device memory is host memory that the test's runtime has registered.
class Memory {
 public:
  // Whether [start, start + bytes) could be added: it may overlap no other.
  bool add(Address start, size_t bytes);
  bool remove(Address start);
  bool holds(Address start, size_t bytes) const;
  bool touches(Address start, size_t bytes) const;
  // Where an address lies, in words: its offset in, or its distance to, an allocation.
  std::string describe(Address address) const;

 private:
  struct Allocation {
    size_t bytes;
    int number;  // counted from 1 in the order of registration
  };
  const std::pair<const Address, Allocation>* at_or_below(Address address) const;

  std::map<Address, Allocation> allocations_;
  int registered_ = 0;
};

// Where a kernel's text uses a word, and where in the compiled code, which knows what called that.
struct Site {
  const char* file = "";
  int line = 0;
  const void* code = nullptr;
};

// One touch of memory by a thread of a launch. The epoch is how many barriers its block has passed.
struct Access {
  int block = -1, thread = -1;
  unsigned epoch = 0;
  Site site;
};

// Who touched the bytes of memory: the last one to write and enough of those who read to know
// whether a later write races. Only a barrier orders threads, and only those of its own block.
class Shadow {
 public:
  struct Cell {
    unsigned era = 0;
    Access writer, readers[2];
  };
  struct Found {
    bool race = false, race_wrote = false;
    Access other;            // what nothing orders with this access, if they race
    bool unwritten = false;  // a byte that nobody has written in this era
  };

  // Accesses of one era are compared with each other alone.
  unsigned new_era() { return ++era_; }
  // Ends all eras; pages that many launches have left behind are given back.
  void end_eras();
  Found read(unsigned era, Address start, size_t bytes, const Access& now);
  Found write(unsigned era, Address start, size_t bytes, const Access& now);

 private:
  // A page of memory in cells of the size of the smallest access that it has seen.
  struct Page {
    size_t cell_bytes;
    std::unique_ptr<Cell[]> cells;
  };
  static constexpr size_t kPageBytes = 4096, kCellBytesAtMost = 8;
  static constexpr size_t kPagesKept = 1024;

  Page& page_of(Address start, size_t cell_bytes);
  template <class Visit>
  void each_cell(unsigned era, Address start, size_t bytes, Visit visit);

  std::unordered_map<Address, Page> pages_;
  Address last_number_ = 0;
  Page* last_ = nullptr;
  unsigned era_ = 0;
};

}  // namespace emulation
}  // namespace rnncore
