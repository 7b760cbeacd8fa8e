// One layer and direction of a call on a device: what running it forward and backward share.
#pragma once

#include "core/cuda_plan.h"
#include "core/cuda_sequence.h"

namespace rnncore {

class CudaMember {
 protected:
  CudaMember(const CudaCall& device, const CudaSequence& sequence, const CudaTape& tape,
             size_t which)
      : device_(device),
        sequence_(sequence),
        spec_(sequence.spec()),
        shape_(spec_.shape()),
        tape_(tape),
        weights_(sequence.stack().member(which)),
        which_(which) {}

  int64_t item() const { return sequence_.stack().item_size(); }
  int64_t real() const { return sequence_.stack().real_size(); }
  int64_t layer() const { return static_cast<int64_t>(which_) / spec_.num_directions; }
  const CudaMemberTape& kept() const { return tape_.members[which_]; }
  Rows own(void* data, int64_t width) const {
    return data ? sequence_.rows().own(data, width) : Rows{};
  }

  // A step, forward or backward, with what both say alike.
  template <class Step>
  Step start_step() const {
    const int64_t units = spec_.hidden_size;
    Step step = {};
    step.common = sequence_.steps_of(which_);
    step.projects = spec_.proj_size > 0;
    step.slots = own(kept().slots, shape_.slots * units);
    step.y = sequence_.output_rows(tape_, which_);
    step.c_kept = own(kept().c, units);
    step.normalised_input = own(kept().norm_input, shape_.input_gates * units);
    step.normalised_recurrent = own(kept().norm_recurrent, shape_.recurrent_gates * units);
    step.inverse = own(kept().inverse, 4);
    return step;
  }

  // This member's part of all members' states, [L*K][N][width], to an array of its own by row of
  // memory, and to `entering` as it enters U; and back.
  void take_state(int64_t width, const void* all, void* to, void* entering = nullptr) const;
  void give_state(int64_t width, const void* from, void* all) const;

  // c[m][n] = a[m][k] b[k][n]; what is transposed or added to is for the caller to say.
  struct Size {
    int64_t m, n, k;
  };
  CudaProduct product_of(Size size, CudaMatrix a, CudaMatrix b, void* c, int64_t c_stride) const;

  // All steps at once; `operands` values of a unit and row wait in shared memory.
  template <class Arguments>
  void persist(CudaKernel kernel, int64_t operands, const Arguments& arguments) const {
    const int64_t rows = sequence_.call().batch, width = device_.width();
    device_.persist(kernel, (rows + kPersistentRows - 1) / kPersistentRows,
                    kPersistentSplit * width, 2 * kPersistentRows * operands * width * real(),
                    arguments);
  }

  const CudaCall& device_;
  const CudaSequence& sequence_;
  const StackSpec& spec_;
  const CellShape& shape_;
  const CudaTape& tape_;
  const CudaWeights& weights_;
  size_t which_;

 private:
  void* part_of_state(const void* all, int64_t width) const {
    const int64_t at = static_cast<int64_t>(which_) * sequence_.call().batch * width;
    return offset<void>(all, at, real());
  }
  cuda::CopyStates state_copy(int64_t width, const void* from, void* to) const;
};

}  // namespace rnncore
