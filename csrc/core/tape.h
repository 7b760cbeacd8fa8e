// What forward leaves for backward.
#pragma once

#include <atomic>
#include <vector>

#include "core/memory.h"
#include "core/packed.h"
#include "core/sequences.h"
#include "rnncore/stack.h"

namespace rnncore {

// One layer and direction; all by packed row.
struct LayerTape {
  Buffer slots;   // gates: [slot row]
  Buffer c;       // [padded H]
  Buffer hidden;  // before W_hr, or r h: [padded H]
  // Layer norm: [input gates * padded H], [recurrent gates * padded H], [kInverses]
  Buffer norm_input, norm_recurrent, inverse;
};

// A layer's normalised rows in buffers that begin with some row.
template <class T>
inline NormalisedRows<T> normalised_rows(const CellShape& shape, int64_t units, const Buffer& input,
                                         const Buffer& recurrent, const Buffer& inverse) {
  return {input.as<T>(), recurrent.as<T>(),
          static_cast<ptrdiff_t>(shape.input_gates * padded(units)),
          static_cast<ptrdiff_t>(shape.recurrent_gates * padded(units)), inverse.as<T>()};
}

struct Tape::Content {
  // Backward passes that read the tape, or one of these when a pass has taken it to overwrite it.
  static constexpr int kSpent = -1;
  std::atomic<int> readers{0};

  // Throws std::runtime_error where the tape is spent, or a pass would overwrite what others read.
  void claim(bool retain);
  void release(bool retain, bool overwritten);

  // Makes room for what forward leaves. Given memory is cut up in the same way every time, so that
  // a tape can be found again in it.
  template <class T>
  void lay_out(const PackedStack::Content& packed, const ForwardCall& call);
  template <class T>
  Buffer take(int64_t count);
  // Writes zeros to what forward writes nothing to, in given memory: its owner may compare it.
  template <class T>
  void clear_unused(const PackedStack::Content& packed);

  char* given = nullptr;  // what is left of a caller's memory; null: blocks of the tape's own
  int64_t given_bytes = 0;
  StackSpec spec;
  bool recompute = false;  // slots, hidden and normalised products are made again in backward
  Sequences sequences;
  ptrdiff_t slots_stride = 0;
  std::vector<LayerTape> layers;  // [L * K]
  std::vector<Buffer> outputs;    // y of every layer but the last: [T][N by rank][K*P]
  std::vector<Buffer> masked;     // a layer's input times its mask, where it has one: [T][N][D]
};

// Between slot rows. A stride of whole pages would put a column of them into one set of the cache.
template <class T>
inline ptrdiff_t slots_stride_of(int64_t slot_row) {
  const bool aliases = slot_row * static_cast<int64_t>(sizeof(T)) % 1024 == 0;
  return static_cast<ptrdiff_t>(slot_row + (aliases ? kGroup : 0));
}

}  // namespace rnncore
