// One layer and direction backward on a device, and the memory that all of them work in.
#pragma once

#include <vector>

#include "core/cuda_member.h"
#include "kernels/kernel_table.h"

namespace rnncore {

// Sums that become gradients of a member's parameters, in the order of slots.
struct CudaMemberSums {
  void* input = nullptr;       // Real [input gates * H][F]
  void* recurrent = nullptr;   // Real [recurrent gates * H][P]
  void* projection = nullptr;  // Real [P][H]
  void* slots = nullptr;       // Real [slots][H]: of gates' gradients, for the biases
  void* unit = nullptr;        // Real, as UnitGradients places them
};

constexpr int64_t kSumHeight = 64;  // rows that one thread sums up

// See cuda/arguments.h for what most of these are.
struct CudaBackwardSpace {
  void *dh, *dc, *direct, *h_initial, *c_initial, *carry, *product, *gradients;
  void *doutput, *doutput_kept, *gradients_kept;
  void* before;  // T [P]: what entered U at every time
  void *row_scratch = nullptr, *input_gradients = nullptr, *recurrent_gradients = nullptr;
  void* unit_gradients;
  UnitGradients places;
  void* parts_of_sums[2];
  void* dinputs[2];  // Real [F]: of a layer's input, and of that of the layer above
  std::vector<CudaMemberSums> members;

  CudaBackwardSpace(CudaCarve& carve, const CudaSequence& sequence);
  void* dinput_of(int64_t layer) const { return dinputs[layer % 2]; }
};

class CudaBackwardMember : CudaMember {
 public:
  CudaBackwardMember(const CudaCall& device, const CudaSequence& sequence, const BackwardCall& call,
                     const CudaTape& tape, const CudaBackwardSpace& space, size_t which);

  // All but the gradient of the input, which is next, and adding to the caller's gradients.
  void run();
  void multiply_input(void* dinput) const;
  void add_gradients() const;

 private:
  void take_dy();
  void take_states() const;
  void run_step() const;
  void leave_first_step();
  void give_states() const;
  void multiply_weights() const;
  void sum_vectors() const;

  void multiply_back(CudaMatrix a, const void* b, int64_t n, void* c) const;
  void multiply_rows(int64_t m, int64_t n, CudaMatrix gradients, CudaMatrix values,
                     void* sums) const;
  void sum_rows(int64_t rows, int64_t columns, int64_t stride, const void* in, void* sums) const;
  // Gradients of a product's results, by row of memory.
  CudaMatrix gate_gradients(bool recurrent) const;

  const BackwardCall& call_;
  const CudaBackwardSpace& space_;
  cuda::BackwardStep step_;
};

}  // namespace rnncore
