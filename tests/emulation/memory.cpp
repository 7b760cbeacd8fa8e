#include "emulation/memory.h"

#include <iterator>

namespace rnncore {
namespace emulation {

const std::pair<const Address, Memory::Allocation>* Memory::at_or_below(Address address) const {
  auto above = allocations_.upper_bound(address);
  return above == allocations_.begin() ? nullptr : &*std::prev(above);
}

bool Memory::add(Address start, size_t bytes) {
  if (start == 0 || touches(start, bytes)) return false;
  return allocations_.insert({start, {bytes, ++registered_}}).second;
}

bool Memory::remove(Address start) { return allocations_.erase(start) == 1; }

bool Memory::holds(Address start, size_t bytes) const {
  const auto* found = at_or_below(start);
  if (!found) return false;
  const size_t offset = start - found->first, size = found->second.bytes;
  return offset <= size && bytes <= size - offset;
}

bool Memory::touches(Address start, size_t bytes) const {
  if (bytes == 0) return false;
  const auto* found = at_or_below(start + bytes - 1);
  return found && start < found->first + found->second.bytes;
}

std::string Memory::describe(Address address) const {
  const auto name = [](const auto& found) {
    return "allocation " + std::to_string(found.second.number) + " of " +
           std::to_string(found.second.bytes) + " bytes";
  };
  const auto* found = at_or_below(address);
  if (found) {
    const size_t offset = address - found->first;
    if (offset < found->second.bytes)
      return "byte " + std::to_string(offset) + " of " + name(*found);
  }
  std::string text = "memory of no allocation";
  if (address == 0) return text + ", a null pointer";
  if (found) {
    const size_t past = address - found->first - found->second.bytes;
    text += ", " + std::to_string(past) + " bytes past the end of " + name(*found);
  }
  const auto above = allocations_.upper_bound(address);
  if (above != allocations_.end()) {
    text += ", " + std::to_string(above->first - address) + " bytes before " + name(*above);
  }
  return text;
}

namespace {

bool concurrent(const Access& a, const Access& b) {
  return a.block != b.block || (a.epoch == b.epoch && a.thread != b.thread);
}

// Keeps two readers such that a later write races with one of them if it races with any: two that
// are concurrent serve for their block and epoch, two of different blocks for good.
void remember_reader(Access (&readers)[2], const Access& now) {
  if (readers[0].block < 0) {
    readers[0] = now;
  } else if (!concurrent(readers[0], now)) {
    if (readers[1].block == now.block && readers[0].epoch != now.epoch) readers[1] = Access();
    readers[0] = now;
  } else if (readers[1].block < 0 || now.block != readers[0].block) {
    readers[1] = now;
  }
}

}  // namespace

void Shadow::end_eras() {
  if (pages_.size() <= kPagesKept) return;
  pages_.clear();
  last_number_ = 0;
  last_ = nullptr;
}

Shadow::Page& Shadow::page_of(Address start, size_t cell_bytes) {
  const Address number = start / kPageBytes;
  Page* page = number == last_number_ ? last_ : nullptr;
  if (!page) page = &pages_[number];
  last_number_ = number;
  last_ = page;
  if (!page->cells) {
    *page = {cell_bytes, std::make_unique<Cell[]>(kPageBytes / cell_bytes)};
  } else if (page->cell_bytes > cell_bytes) {
    auto cells = std::make_unique<Cell[]>(kPageBytes / cell_bytes);
    for (size_t i = 0; i < kPageBytes / cell_bytes; ++i) {
      cells[i] = page->cells[i * cell_bytes / page->cell_bytes];
    }
    *page = {cell_bytes, std::move(cells)};
  }
  return *page;
}

// The address is aligned to the largest power of two in `bytes`, which is checked before.
template <class Visit>
void Shadow::each_cell(unsigned era, Address start, size_t bytes, Visit visit) {
  size_t piece = bytes & (~bytes + 1);
  if (piece > kCellBytesAtMost) piece = kCellBytesAtMost;
  while (start % piece) piece /= 2;
  for (const Address end = start + bytes; start < end;) {
    Page& page = page_of(start, piece);
    Cell& cell = page.cells[start % kPageBytes / page.cell_bytes];
    if (cell.era != era) {
      cell = Cell();
      cell.era = era;
    }
    visit(cell);
    start += page.cell_bytes;
  }
}

Shadow::Found Shadow::read(unsigned era, Address start, size_t bytes, const Access& now) {
  Found found;
  each_cell(era, start, bytes, [&](Cell& cell) {
    if (cell.writer.block < 0) {
      found.unwritten = true;
    } else if (concurrent(cell.writer, now)) {
      found.race = found.race_wrote = true;
      found.other = cell.writer;
    }
    remember_reader(cell.readers, now);
  });
  return found;
}

Shadow::Found Shadow::write(unsigned era, Address start, size_t bytes, const Access& now) {
  Found found;
  each_cell(era, start, bytes, [&](Cell& cell) {
    for (const Access& reader : cell.readers) {
      if (reader.block >= 0 && concurrent(reader, now)) {
        found.race = true;
        found.other = reader;
      }
    }
    if (cell.writer.block >= 0 && concurrent(cell.writer, now)) {
      found.race = found.race_wrote = true;
      found.other = cell.writer;
    }
    cell.writer = now;
  });
  return found;
}

}  // namespace emulation
}  // namespace rnncore
