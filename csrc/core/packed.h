// A stack's weights in panels: what forward reads always, what backward reads once it is asked for.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "core/dispatch.h"
#include "core/memory.h"
#include "rnncore/stack.h"

namespace rnncore {

// One layer and direction. Addresses lie in Content's blocks; null is absent.
struct LayerPanels {
  void* input = nullptr;       // W: [block of units][k < D][gate][lane], see weights.inl
  void* recurrent = nullptr;   // U: [block of units][k < P][gate][lane]
  void* second = nullptr;      // U of the gates made of hidden, if any: k < H
  void* start = nullptr;       // a slot row: what each gate's sum starts from
  void* projection = nullptr;  // W_hr: [block of outputs][k < H][lane]
  void* peephole = nullptr;    // [3][padded H]
  void* norm_input = nullptr;  // gains: [group][gate][16]
  void* norm_recurrent = nullptr;
  void* norm_c = nullptr;  // [padded H]
  void* norm_c_bias = nullptr;
  void* input_columns = nullptr;       // W: [block of inputs][k in slot order][lane]
  void* recurrent_columns = nullptr;   // U: [block of outputs][k in slot order][lane]
  void* second_columns = nullptr;      // [block of units][k in slot order][lane]
  void* projection_columns = nullptr;  // W_hr: [block of units][k < padded P][lane]
};

struct PackedStack::Content {
  StackSpec spec;
  const KernelTable* table;
  CellShape shape;
  std::vector<LayerWeights> weights;  // the caller's arrays
  std::vector<LayerPanels> panels;
  Buffer forward_block, backward_block;
  std::atomic<bool> finite_recurrent{true};  // U, so that U 0 = 0
  std::mutex backward_mutex;
  std::atomic<bool> has_backward{false};

  // Packs what backward reads, at the first call.
  void need_backward(int num_threads);
  int64_t slot_row() const { return shape.slots * padded(spec.hidden_size); }
};

// W x of one layer and direction, but for its rows: into slot rows that start from the biases, or,
// with layer norm, into rows of the product alone.
template <class T>
RowsProduct<T> input_product(const PackedStack::Content& packed, size_t which);

}  // namespace rnncore
