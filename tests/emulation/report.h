// What a launch did wrong, in words: each kind once for the line that did it, and how often.
#pragma once

#include <string>
#include <vector>

namespace rnncore {
namespace emulation {

class Report {
 public:
  static constexpr size_t kKindsAtMost = 12;

  // Counts one, and returns how many there are by now.
  size_t add(const std::string& kind, const std::string& text) {
    ++count_;
    for (Entry& entry : entries_) {
      if (entry.kind == kind) {
        ++entry.count;
        return count_;
      }
    }
    if (entries_.size() < kKindsAtMost) entries_.push_back({kind, text, 1});
    return count_;
  }
  bool empty() const { return entries_.empty(); }
  std::string text() const {
    std::string all;
    for (const Entry& entry : entries_) {
      all += "\n  " + entry.text;
      if (entry.count > 1) all += " (and " + std::to_string(entry.count - 1) + " more)";
    }
    return all;
  }

 private:
  struct Entry {
    std::string kind, text;
    size_t count;
  };
  std::vector<Entry> entries_;
  size_t count_ = 0;
};

}  // namespace emulation
}  // namespace rnncore
