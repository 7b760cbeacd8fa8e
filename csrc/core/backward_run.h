// One backward pass, prepared. For each layer from the last to the first:
//
//   1. the recurrence backwards, split as in forward; gates in the tape become their gradients
//   2. dx = da W over all steps, one product a direction, then their sum: dy of the layer below
//   3. dW, dU, db: one product over all steps each, split over rows of the weight. Their sums run
//      over packed rows from the last to the first.
//
// Where the tape holds states alone, each direction goes through this in blocks of steps, the last
// one first, and before 1 makes the block's gates again: products over all its rows, since the
// states before them are known (rebuild). The order of every sum is the same.
//
// All members meet after 1 and after 3. An interrupted call leaves the caller's gradients as they
// were: where products of kind 3 are short, they come last for all layers, add to the gradients as
// they finish and are not interrupted; else they go to scratch, which is added at the very end.
// Where someone wants to be told of each layer, they go to scratch too, as 3 of a layer ends before
// 1 of the one below begins.
#pragma once

#include <vector>

#include "core/forward_run.h"

namespace rnncore {

constexpr int64_t kRowsAtOnce = 1024;   // of a product over all steps, between two polls
constexpr int64_t kRebuiltAtOnce = 96;  // rows whose gates a member makes again at a time

template <class T>
class BackwardRun {
 public:
  BackwardRun(const PackedStack& packed, Tape::Content& tape, const BackwardCall& call,
              int threads);
  void fit(int threads);
  int members() const { return threads_; }
  bool run(Lease& lease);
  void write_states() const;
  void clear_gradients() const;      // those that are added to although they are to be written
  void add_gradients(Lease& lease);  // what is in scratch

 private:
  // Gates and what else backward overwrites: the tape's own, copies of these, or those of a block
  // that were made again.
  struct Gates {
    Buffer slots_block, norm_input_block, norm_recurrent_block;
    Buffer inverse_block, hidden_block, doutput;
    T *slots = nullptr, *hidden = nullptr;
    NormalisedRows<T> normalised;
  };
  struct Direction {  // of one layer
    Buffer dh, dc, direct, h_initial, c_initial;
    Buffer row_gradients;  // layer norm: dL/dh or dL/dhidden of a step
    Gates gates;
    Rows<const T> x, y, dy;
    RandomRows<T> random;
    CellOptions<T> options;
    Buffer unit_gradients;  // sums over t of a row's part of the gradients of vectors
    Buffer bias_sums;       // slot row
    Buffer weights;  // scratch for all its gradients, in the order of the parameters, or none
  };
  struct Scratch {       // of one member
    Buffer a, c, outer;  // a: also the rows of a second factor
    Buffer second;       // rows of dx from the reversed direction
    Buffer row;          // layer norm: [3][padded H]
    Buffer entering;     // recurrent dropout: rows of h as they enter U
    Buffer known;        // rebuild: addresses of h and c
  };
  enum class Factor { input, state_before, hidden };
  struct Weight {  // a matrix's gradient: a sum over packed rows of gradients times this factor
    Factor factor;
    int64_t width;
    T* c;       // where the sum is made
    T* add_to;  // and what it is added to, or null
  };
  struct Gradients {  // that one or two matrices share
    const T* rows;    // of the first packed row
    ptrdiff_t stride;
    const int64_t* columns;
    int64_t begin, end;  // rows of the matrices
  };
  struct Waiting {  // a gradient that waits in scratch, and its place among the caller's
    void* LayerGradients::* place;
    const T* sum;
    int64_t count;
  };
  struct WaitingList {  // of one layer and direction
    Waiting parts[5];
    int count = 0;

    const Waiting* begin() const { return parts; }
    const Waiting* end() const { return parts + count; }
  };
  // Steps whose gates are there at a time, and what that means for sums.
  struct Block {
    Range steps, rows;  // packed
    bool first, last;   // in the order in which sums run
  };

  void choose_scratch();
  int64_t most_rows() const;
  int64_t widest_factor() const;
  void allocate();
  void locate();
  void fill_states();
  void choose_options();
  void take_gates();
  Gates& gates_of(int64_t layer, int64_t k) {
    return tape_.recompute ? block_gates_ : direction(layer, k).gates;
  }
  void allocate_gates(Gates& gates, int64_t rows);
  int64_t block_rows() const;
  Block block_before(int64_t end) const;
  Block whole() const;
  bool run_layer(Run& run, int index, int64_t layer);
  bool run_blocks(Run& run, int index, int64_t layer, int64_t k);
  bool rebuild(Run& run, int index, int64_t layer, int64_t k, const Block& block);
  void rebuild_rows(int index, int64_t layer, int64_t k, const Block& block, Range rows);
  Direction& direction(int64_t layer, int64_t k) {
    return directions_[static_cast<size_t>(layer * spec_.num_directions + k)];
  }
  LayerTape& tape_of(int64_t layer, int64_t k) {
    return tape_.layers[static_cast<size_t>(layer * spec_.num_directions + k)];
  }
  MutableSequence dx_of(int64_t layer) const;
  bool wants_dx(int64_t layer) const { return layer || call_.dx.data; }
  void work(Run& run, int index);
  void recur(Run& run, int index, int64_t layer, int64_t k, const Block& block);
  bool make_dx(Run& run, int index, int64_t layer);
  bool make_block_dx(Run& run, int index, int64_t layer, int64_t k, Range rows);
  void dx_rows(int index, int64_t layer, int64_t k, Range rows, int64_t first);
  int64_t dx_rows_at_once() const { return spec_.num_directions == 2 ? 192 : kRowsAtOnce; }
  void mask_dx(int64_t layer, Range rows);
  bool make_weights(Run& run, int index, int64_t layer, int64_t k, const Block& block);
  bool make_matrices(Run& run, int index, int64_t layer, int64_t k, const Block& block);
  bool make_products(Run& run, int index, int64_t layer, int64_t k, const Block& block,
                     const Gradients& gradients, const Weight* weights, int count);
  const T* factor_row(int64_t layer, int64_t k, Factor factor, const Block& block, int64_t s,
                      int64_t r, T* copy);
  const T* c_before(int64_t layer, int64_t k, int64_t s, int64_t r);
  Weight weight_of(int64_t layer, int64_t k, Factor factor) const;
  void sum_biases(int index, int64_t layer, int64_t k, const Block& block);
  void make_biases(int index, int64_t layer, int64_t k);
  WaitingList waiting(size_t which) const;
  bool report(Run& run, int index, int64_t layer);
  void add_vectors(int64_t which);
  static void job(void* self, Run& run, int index);
  static void add_job(void* self, Run& run, int index);
  static void add_vectors_job(void* self, Run& run, int index);

  const PackedStack::Content& packed_;
  const StackSpec& spec_;
  const Kernels<T>& kernels_;
  Tape::Content& tape_;
  const BackwardCall& call_;
  const Sequences& sequences_;
  int threads_ = 1;
  bool adds_at_once_ = false;  // to the caller's gradients, without scratch for whole weights
  bool sums_wait_ = true;      // between blocks of k, in scratch
  Plan plan_;
  ptrdiff_t state_stride_;
  std::vector<Direction> directions_;
  std::vector<Buffer> inner_;  // dy of inner layers: [T][N by rank][K*P]
  Gates block_gates_;
  bool optional_ = false;
  bool drops_h_ = false;  // before it enters U
  Buffer zeros_, vector_sums_;
  UnitGradients unit_places_;
  Buffer input_columns_, recurrent_columns_, output_columns_;
  std::vector<Scratch> scratch_;
  std::vector<Barrier> unit_barriers_;
  Barrier all_;
};

extern template class BackwardRun<float>;
extern template class BackwardRun<double>;

}  // namespace rnncore
