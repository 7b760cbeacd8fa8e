// One call over a sequence on a device: what forward and backward share, and where each keeps what.
//
// Everything is by row of memory (CudaRows) in blocks that the caller allocates: the tape, from
// forward to backward, and a workspace for the time of a call. The caller's own arrays are touched
// by the first and last kernels alone.
#pragma once

#include <vector>

#include "core/cuda_rows.h"
#include "core/cuda_stack.h"
#include "rnncore/stack.h"

namespace rnncore {

// One layer and direction of a tape; of the axes before these, a row of memory for every time.
struct CudaMemberTape {
  void* slots = nullptr;           // Real [slots][H]
  void* c = nullptr;               // Real [H]
  void* hidden = nullptr;          // T [H]: before W_hr, or r h
  void* norm_input = nullptr;      // Real [input gates][H]
  void* norm_recurrent = nullptr;  // Real [recurrent gates][H]
  void* inverse = nullptr;         // Real [4]
};

struct CudaTape {
  std::vector<CudaMemberTape> members;
  std::vector<void*> inputs;   // T [F]: of a layer, where they are not the caller's or y's
  std::vector<void*> outputs;  // T [K*P]: of every layer but the last
};

// A layer's input as its product reads it.
struct CudaMatrix {
  const void* data;
  int64_t stride;
};

class CudaSequence {
 public:
  // `host_lengths` may be null, or `lengths` on the device may stand for them, or neither.
  CudaSequence(const CudaStack& stack, const ForwardCall& call, const int64_t* host_lengths,
               const int32_t* lengths);

  size_t tape_bytes(bool keep) const;
  size_t forward_bytes() const;
  size_t backward_bytes(const BackwardCall& call) const;

  // Runs it; `tape` and `workspace` have as many bytes as was said. y holds zeros past lengths.
  void forward(const CudaCall& device, void* tape, void* workspace, bool keep);
  void backward(const CudaCall& device, const BackwardCall& call, void* tape, void* workspace);

  const CudaStack& stack() const { return stack_; }
  const StackSpec& spec() const { return stack_.spec(); }
  const ForwardCall& call() const { return call_; }
  ForwardCall& call() { return call_; }  // whose results may still be named
  const CudaRows& rows() const { return rows_; }
  size_t num_members() const {
    return static_cast<size_t>(spec().num_layers * spec().num_directions);
  }

  CudaTape place_tape(CudaCarve& carve, bool keep);
  // What every step of a layer and direction has in common.
  cuda::Steps steps_of(size_t which) const;
  // A layer's input as rows, and as the matrix of its product.
  Rows input_rows(const CudaTape& tape, int64_t layer) const;
  CudaMatrix input_matrix(const CudaTape& tape, int64_t layer) const;
  // y of a layer and direction: the caller's, or a tape's.
  Rows output_rows(const CudaTape& tape, size_t which) const;
  Rows input_mask(int64_t layer) const;
  // A copy of a layer's input or of its gradient, times its mask; between what, the caller says.
  cuda::CopyRows input_copy(int64_t layer) const;

 private:
  bool copies_input(int64_t layer) const;
  bool is_dense_input() const;

  const CudaStack& stack_;
  ForwardCall call_;
  CudaRows rows_;
};

// Numbers of x's type that a tape takes, at most, for each of a call's T N places, T and N from 1;
// `masked` says which layers' inputs have a mask (empty: none), `ragged` whether there are lengths.
// It holds for an x whose rows lie side by side, time by time or sequence by sequence.
int64_t cuda_tape_width(const StackSpec& spec, CudaType type, const std::vector<bool>& masked,
                        bool ragged);

template <class Value>
inline Value* offset(const void* data, int64_t count, int64_t item_size) {
  if (!data) return nullptr;
  return reinterpret_cast<Value*>(static_cast<char*>(const_cast<void*>(data)) + count * item_size);
}

}  // namespace rnncore
