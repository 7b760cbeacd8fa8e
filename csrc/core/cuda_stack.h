// A stack's weights on a device, in the order of slots and the type that products multiply.
#pragma once

#include <vector>

#include "core/cuda_rows.h"
#include "rnncore/types.h"

namespace rnncore {

// One layer and direction; addresses lie in the block that packing filled, null is absent.
struct CudaWeights {
  void* input = nullptr;       // T [input gates * H][F]
  void* recurrent = nullptr;   // T [recurrent gates * H][P]
  void* projection = nullptr;  // T [P][H]
  void* bias = nullptr;        // Real [slots][H]
  void* norm_input = nullptr;  // Real [input gates * H], and so on
  void* norm_recurrent = nullptr;
  const void* peephole = nullptr;  // the parameters' own arrays
  const void *norm_c = nullptr, *norm_c_bias = nullptr;
};

class CudaStack {
 public:
  CudaStack(const StackSpec& spec, CudaType type, std::vector<LayerWeights> parameters);

  const StackSpec& spec() const { return spec_; }
  CudaType type() const { return type_; }
  int64_t item_size() const { return size_of(type_); }
  int64_t real_size() const { return size_of(real_of(type_)); }
  const CudaWeights& member(size_t which) const { return members_[which]; }
  size_t nbytes() const { return nbytes_; }

  // Fills `block`, nbytes() of device memory that outlives this object's calls.
  void pack(const CudaCall& call, void* block);

 private:
  void place(CudaCarve& carve);
  void pack_member(const CudaCall& call, size_t which) const;

  StackSpec spec_;
  CudaType type_;
  std::vector<LayerWeights> parameters_;
  std::vector<CudaWeights> members_;
  size_t nbytes_ = 0;
};

// Gates of the parameters by slot of a product: rows to be moved.
cuda::MoveGates move_gates(const StackSpec& spec, bool recurrent, int64_t columns, const void* from,
                           void* to);

// What the kernels take of a spec and its weights.
cuda::Options cuda_options(const StackSpec& spec);

}  // namespace rnncore
