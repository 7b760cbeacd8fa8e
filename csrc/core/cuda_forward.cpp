// Forward on a device: by layer and direction, W x of all times as one product, then step by step
// U h and a kernel that ends the step.
#include "core/cuda_plan.h"
#include "core/cuda_sequence.h"

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

class ForwardMember {
 public:
  ForwardMember(const CudaCall& device, const CudaSequence& sequence, const CudaTape& tape,
                const ForwardSpace& space, size_t which, bool keep)
      : device_(device),
        sequence_(sequence),
        spec_(sequence.spec()),
        shape_(spec_.shape()),
        tape_(tape),
        space_(space),
        weights_(sequence.stack().member(which)),
        which_(which) {
    const CudaMemberTape& member = tape.members[which];
    const CudaRows& rows = sequence.rows();
    const int64_t units = spec_.hidden_size;
    const auto own = [&](void* data, int64_t width) {
      return data ? rows.own(data, width) : Rows{};
    };
    step_.common = sequence.steps_of(which);
    step_.keep = keep;
    step_.projects = spec_.proj_size > 0;
    step_.slots = own(member.slots, shape_.slots * units);
    step_.product = space.product;
    step_.h = space.h;
    step_.c = space.c;
    step_.entering = space.entering;
    step_.hidden = space.hidden;
    step_.y = sequence.output_rows(tape, which);
    step_.c_kept = own(member.c, units);
    step_.hidden_kept = own(member.hidden, units);
    step_.normalised_input = own(member.norm_input, shape_.input_gates * units);
    step_.normalised_recurrent = own(member.norm_recurrent, shape_.recurrent_gates * units);
    step_.inverse = own(member.inverse, 4);
  }

  void run() {
    project_inputs();
    take_states();
    if (device_.width()) {
      persist();
    } else {
      run_steps();
    }
    give_states();
  }

 private:
  void persist() const {
    const int64_t rows = sequence_.call().batch, width = device_.width();
    const cuda::PersistentForward all = {step_, weights_.recurrent};
    device_.persist(CudaKernel::persistent_forward, (rows + kPersistentRows - 1) / kPersistentRows,
                    kPersistentSplit * width, 2 * kPersistentRows * width * real(), all);
  }

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

  int64_t item() const { return sequence_.stack().item_size(); }
  int64_t real() const { return sequence_.stack().real_size(); }

  // c[m][n] = a[m][k] b[n][k]
  void multiply(int64_t m, int64_t n, int64_t k, CudaMatrix a, const void* b, void* c,
                int64_t c_stride) const {
    CudaProduct product = {};
    product.factors = sequence_.stack().type();
    product.result = real_of(product.factors);
    product.m = m;
    product.n = n;
    product.k = k;
    product.a = a.data;
    product.a_stride = a.stride;
    product.b = b;
    product.b_stride = k;
    product.b_transposed = 1;
    product.c = c;
    product.c_stride = c_stride;
    device_.multiply(product);
  }

  void project_inputs() const {
    const int64_t layer = static_cast<int64_t>(which_) / spec_.num_directions;
    const int64_t units = spec_.hidden_size, gates = shape_.input_gates * units;
    const CudaMemberTape& member = tape_.members[which_];
    const CudaMatrix x = sequence_.input_matrix(tape_, layer);
    const bool norm = spec_.layer_norm;
    void* to =
        norm ? member.norm_input : offset<void>(member.slots, shape_.input_slot * units, real());
    multiply(sequence_.rows().total(), gates, spec_.layer_inputs(layer), x, weights_.input, to,
             norm ? gates : shape_.slots * units);
    if (!norm) return;
    const cuda::NormaliseRows rows = {
        sequence_.call().steps,     sequence_.call().batch, gates,
        sequence_.rows().lengths(), step_.normalised_input, step_.inverse};
    device_.for_each_row(CudaKernel::normalise_rows,
                         sequence_.call().batch * sequence_.call().steps, rows);
  }

  void take_states() const {
    const int64_t batch = sequence_.call().batch, at = static_cast<int64_t>(which_) * batch;
    const int64_t outputs = spec_.outputs(), units = spec_.hidden_size;
    auto copy = sequence_.state_copy(
        outputs, offset<void>(sequence_.call().h0, at * outputs, real()), space_.h);
    copy.entering = space_.entering;
    copy.mask = step_.common.entering_mask;
    device_.stride_over(CudaKernel::copy_states, batch * outputs, copy);
    if (!space_.c) return;
    copy = sequence_.state_copy(units, offset<void>(sequence_.call().c0, at * units, real()),
                                space_.c);
    device_.stride_over(CudaKernel::copy_states, batch * units, copy);
  }

  void give_states() const {
    const int64_t batch = sequence_.call().batch, at = static_cast<int64_t>(which_) * batch;
    const auto give = [&](int64_t width, const void* from, void* all) {
      auto copy = sequence_.state_copy(width, from, offset<void>(all, at * width, real()));
      copy.scatter = 1;
      device_.stride_over(CudaKernel::copy_states, batch * width, copy);
    };
    give(spec_.outputs(), space_.h, sequence_.call().hn);
    if (space_.c) give(spec_.hidden_size, space_.c, sequence_.call().cn);
  }

  // A product of h, or of hidden, with a phase's gates of U, and the cell.
  void run_phase(int phase, const void* from, int64_t width) const {
    const int64_t units = spec_.hidden_size;
    const int64_t gates = (phase ? shape_.second_gates() : shape_.first_gates) * units;
    const int64_t first = phase ? shape_.first_gates * units * width : 0;
    multiply(step_.count, gates, width, {from, width},
             offset<void>(weights_.recurrent, first, item()), space_.product, gates);
    if (spec_.layer_norm) {
      device_.for_each_row(of_phase(CudaKernel::normalised_gates_0, phase), step_.count, step_);
    } else {
      device_.for_each(of_phase(CudaKernel::forward_gates_0, phase), step_.count * units, step_);
    }
  }

  void project_hidden() const {
    const int64_t units = spec_.hidden_size, outputs = spec_.outputs();
    multiply(step_.count, outputs, units, {space_.hidden, units}, weights_.projection,
             space_.product, outputs);
    device_.for_each(CudaKernel::forward_output, step_.count * outputs, step_);
  }

  const CudaCall& device_;
  const CudaSequence& sequence_;
  const StackSpec& spec_;
  const CellShape& shape_;
  const CudaTape& tape_;
  const ForwardSpace& space_;
  const CudaWeights& weights_;
  size_t which_;
  cuda::ForwardStep step_ = {};
};

// A layer's input where its product cannot read it as it is.
void copy_input(const CudaCall& device, const CudaSequence& sequence, const CudaTape& tape,
                int64_t layer) {
  void* to = tape.inputs[static_cast<size_t>(layer)];
  if (!to) return;
  const int64_t features = sequence.spec().layer_inputs(layer);
  cuda::CopyRows copy = {};
  copy.steps = sequence.call().steps;
  copy.rows = sequence.call().batch;
  copy.features = features;
  copy.lengths = sequence.rows().lengths();
  copy.in = sequence.input_rows(tape, layer);
  copy.out = sequence.rows().own(to, features);
  copy.mask = sequence.input_mask(layer);
  copy.clears = sequence.rows().has_dead_rows();
  device.stride_over(CudaKernel::copy_rows, copy.steps * copy.rows * features, copy);
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
