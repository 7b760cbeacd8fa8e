// Forward on a device: by layer and direction, W x of all times as one product, then step by step
// U h and a kernel that ends the step.
#include "core/cuda_member.h"

namespace rnncore {
namespace {

// Memory that one member's steps share.
struct ForwardSpace {
  void *h, *c, *entering, *hidden, *product;

  ForwardSpace(CudaCarve& carve, const CudaSequence& sequence) {
    const StackSpec& s = sequence.spec();
    const int64_t batch = sequence.call().batch, units = s.hidden_size, outputs = s.outputs();
    const int64_t item = sequence.stack().item_size(), real = sequence.stack().real_size();
    const int64_t gates = s.shape().recurrent_gates;
    h = carve.take(batch * outputs, real);
    c = s.carries_c() ? carve.take(batch * units, real) : nullptr;
    entering = carve.take(batch * outputs, item);
    hidden = s.has_hidden() ? carve.take(batch * units, item) : nullptr;
    product = carve.take(batch * std::max(gates * units, outputs), real);
  }
};

class ForwardMember : CudaMember {
 public:
  ForwardMember(const CudaCall& device, const CudaSequence& sequence, const CudaTape& tape,
                const ForwardSpace& space, size_t which, bool keep)
      : CudaMember(device, sequence, tape, which),
        space_(space),
        step_(start_step<cuda::ForwardStep>()) {
    step_.keep = keep;
    step_.product = space.product;
    step_.h = space.h;
    step_.c = space.c;
    step_.entering = space.entering;
    step_.hidden = space.hidden;
    step_.hidden_kept = own(kept().hidden, spec_.hidden_size);
  }

  void run() {
    project_inputs();
    take_states();
    if (device_.width()) {
      const cuda::PersistentForward all = {step_, weights_.recurrent};
      persist(CudaKernel::persistent_forward, 1, all);
    } else {
      run_steps();
    }
    give_states();
  }

 private:
  void run_steps() {
    for (int64_t s = 0; s < sequence_.rows().steps(); ++s) {
      const int64_t count = sequence_.rows().alive(s);
      if (!count) break;
      step_.s = s;
      step_.count = count;
      run_phase(0, space_.entering, spec_.outputs());
      if (shape_.second_gates()) run_phase(1, space_.hidden, spec_.hidden_size);
      if (spec_.proj_size) project_hidden();
    }
  }

  // c[m][n] = a[m][k] b[n][k]
  void multiply(Size size, CudaMatrix a, const void* b, void* c, int64_t c_stride) const {
    CudaProduct product = product_of(size, a, {b, size.k}, c, c_stride);
    product.b_transposed = 1;
    device_.multiply(product);
  }

  void project_inputs() const {
    const int64_t units = spec_.hidden_size, gates = shape_.input_gates * units;
    const bool norm = spec_.layer_norm;
    void* to =
        norm ? kept().norm_input : offset<void>(kept().slots, shape_.input_slot * units, real());
    multiply({sequence_.rows().total(), gates, spec_.layer_inputs(layer())},
             sequence_.input_matrix(tape_, layer()), weights_.input, to,
             norm ? gates : shape_.slots * units);
    if (!norm) return;
    const cuda::NormaliseRows rows = {
        sequence_.call().steps,     sequence_.call().batch, gates,
        sequence_.rows().lengths(), step_.normalised_input, step_.inverse};
    device_.for_each_row(CudaKernel::normalise_rows,
                         sequence_.call().batch * sequence_.call().steps, rows);
  }

  void take_states() const {
    const ForwardCall& call = sequence_.call();
    take_state(spec_.outputs(), call.h0, space_.h, space_.entering);
    if (space_.c) take_state(spec_.hidden_size, call.c0, space_.c);
  }

  void give_states() const {
    const ForwardCall& call = sequence_.call();
    give_state(spec_.outputs(), space_.h, call.hn);
    if (space_.c) give_state(spec_.hidden_size, space_.c, call.cn);
  }

  // A product of h, or of hidden, with a phase's gates of U, and the cell.
  void run_phase(int phase, const void* from, int64_t width) const {
    const int64_t units = spec_.hidden_size;
    const int64_t gates = (phase ? shape_.second_gates() : shape_.first_gates) * units;
    const int64_t first = phase ? shape_.first_gates * units * width : 0;
    multiply({step_.count, gates, width}, {from, width},
             offset<void>(weights_.recurrent, first, item()), space_.product, gates);
    if (spec_.layer_norm) {
      device_.for_each_row(of_phase(CudaKernel::normalised_gates_0, phase), step_.count, step_);
    } else {
      device_.for_each(of_phase(CudaKernel::forward_gates_0, phase), step_.count * units, step_);
    }
  }

  void project_hidden() const {
    const int64_t units = spec_.hidden_size, outputs = spec_.outputs();
    multiply({step_.count, outputs, units}, {space_.hidden, units}, weights_.projection,
             space_.product, outputs);
    device_.for_each(CudaKernel::forward_output, step_.count * outputs, step_);
  }

  const ForwardSpace& space_;
  cuda::ForwardStep step_;
};

// A layer's input where its product cannot read it as it is.
void copy_input(const CudaCall& device, const CudaSequence& sequence, const CudaTape& tape,
                int64_t layer) {
  void* to = tape.inputs[static_cast<size_t>(layer)];
  if (!to) return;
  cuda::CopyRows copy = sequence.input_copy(layer);
  copy.in = sequence.input_rows(tape, layer);
  copy.out = sequence.rows().own(to, copy.features);
  copy.clears = sequence.rows().has_dead_rows();
  device.stride_over(CudaKernel::copy_rows, copy.steps * copy.rows * copy.features, copy);
}

// What products over all rows multiply by zeros must not be NaN.
void clear_dead_rows(const CudaCall& device, const CudaSequence& sequence, void* rows,
                     int64_t width) {
  if (!rows || !sequence.rows().has_dead_rows()) return;
  const int64_t bytes = sequence.rows().total() * width * sequence.stack().item_size();
  device.clear(rows, static_cast<size_t>(bytes));
}

}  // namespace

size_t CudaSequence::forward_bytes() const {
  CudaCarve measure(nullptr);
  ForwardSpace(measure, *this);
  return measure.used();
}

void CudaSequence::forward(const CudaCall& device, void* tape_block, void* workspace, bool keep) {
  CudaCarve tape_carve(tape_block), carve(workspace);
  const CudaTape tape = place_tape(tape_carve, keep);
  const ForwardSpace space(carve, *this);
  rows_.upload(device);
  const size_t directions = static_cast<size_t>(spec().num_directions);
  for (size_t which = 0; which < num_members(); ++which) {
    const int64_t layer = static_cast<int64_t>(which / directions);
    void* output = tape.outputs[static_cast<size_t>(layer)];
    if (which % directions == 0) {
      copy_input(device, *this, tape, layer);
      clear_dead_rows(device, *this, output, spec().num_directions * spec().outputs());
    }
    clear_dead_rows(device, *this, tape.members[which].hidden, spec().hidden_size);
    ForwardMember(device, *this, tape, space, which, keep).run();
  }
}

}  // namespace rnncore
