// One forward pass, prepared: every buffer allocated, every address found, the work planned.
//
// Members of the team run the same program on their own share (plan.h): for each turn of steps and
// each layer, and each chunk of these, the chunk's input projection, then the recurrence through
// it. Members that share batch rows meet between layers; those that share a direction meet between
// steps; others never.
#pragma once

#include <vector>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/packed.h"
#include "core/plan.h"
#include "core/sequences.h"
#include "core/tape.h"
#include "core/team.h"

namespace rnncore {

// A layer and direction's options, but for what only some calls have.
template <class T>
CellOptions<T> cell_options(const StackSpec& spec, const LayerPanels& panels);

// Whether a call needs the kernels that know options.
bool has_options(const StackSpec& spec, const Masks& masks, const Sequences& sequences);

// An array whose rows one direction visits.
template <class T>
struct Rows {
  Buffer first_block;
  T** first = nullptr;
  ptrdiff_t step = 0;

  void allocate(int64_t batch) {
    first_block = Buffer::of<T*>(batch);
    first = first_block.template as<T*>();
  }
  SequenceRows<T> from(int64_t origin) const { return {first, step, origin}; }
};

// Where one direction of a layer finds its masks.
template <class T>
struct RandomRows {
  Rows<const unsigned char> kept_h, kept_c;
  Buffer entering_block;
  const T** entering = nullptr;

  // `which` counts layers and directions; T steps of all sequences.
  void locate(const StackSpec& spec, const Masks& masks, const Sequences& sequences, size_t which);
  void put_into(CellOptions<T>& options) const;
};

template <class T>
class ForwardRun {
 public:
  // `tape` null: inference.
  ForwardRun(const PackedStack& packed, const ForwardCall& call, Tape::Content* tape, int threads);

  // Falls back to one thread where the lease grants fewer than members(). That allocates, unless
  // prepare_alone() was called.
  void fit(int threads);
  void prepare_alone();

  // Points the run at a call's arrays of the prepared sizes and sets its initial states.
  void bind(const ForwardCall& call);
  bool run(Lease& lease, const Interrupt& interrupt);
  void write_states(void* hn, void* cn) const;

  // For streams, whose steps follow one another: new arrays of one step, and the last state becomes
  // the next call's first.
  void point_at(const T* x, int64_t x_row_stride, T* y, int64_t y_row_stride);
  void carry_states();
  void clear_states(const unsigned char* rows);
  void get_states(T* h, T* c) const;
  void set_states(const T* h, const T* c);
  int members() const { return crew_->plan.members(); }
  int wanted() const { return together_.plan.members(); }

 private:
  struct Direction {  // of one layer
    Buffer h_block[2], c_block, hidden;
    Buffer entering_block[2];  // h times its mask
    T* h[2] = {nullptr, nullptr};
    T* entering[2] = {nullptr, nullptr};
    T* c = nullptr;
    Rows<const T> x;
    Rows<T> y;
    RandomRows<T> random;
    CellOptions<T> options;
  };
  struct Scratch {  // of one member
    Buffer a, c;
    Buffer x_records, h_records;  // 8-bit weights
    Buffer row;                   // layer norm: [padded H]
  };
  struct Chunk {  // of one direction, in inference: what a chunk of steps needs
    Buffer slots, norm_input, norm_recurrent, inverse;
  };
  struct Crew {  // who does the work, and where they meet
    Plan plan;
    std::vector<Scratch> scratch;
    std::vector<Barrier> row_barriers, unit_barriers;
  };

  void allocate_states();
  void allocate_between();
  void make_crew(Crew& crew, int threads) const;
  void allocate_records(Scratch& scratch) const;
  void locate_arrays(const ForwardCall& call);
  void choose_options(const ForwardCall& call);
  int64_t inner_steps() const;
  // Whether the recurrence makes W x itself.
  bool is_fused(int64_t layer) const {
    if (spec_.layer_norm || packed_.shape.second_gates()) return false;
    const bool few = spec_.layer_inputs(layer) <= 32 || sequences_->steps() == 1;
    return few || crew_->plan.fused;
  }
  bool keeps_gates() const { return tape_ && !tape_->recompute; }
  T* slots_of(size_t which, int64_t direction) const;
  NormalisedRows<T> normalised_of(size_t which, int64_t direction) const;
  SequenceRows<const T> inputs_of(int64_t layer, int64_t direction, int64_t origin) const;
  bool takes_turns() const { return !tape_ && spec_.num_directions == 1; }
  void work(Run& run, int index);
  bool run_layer(Run& run, int index, int64_t layer, Range steps);
  bool run_direction(Run& run, int index, int64_t layer, int64_t direction, Range steps);
  void project(int index, int64_t layer, int64_t direction, Range steps, int64_t origin);
  void recur(Run& run, int index, int64_t layer, int64_t direction, Range steps, int64_t origin);
  void apply_mask(int index, int64_t layer, Range steps);
  bool meet_rows(Run& run, int index);
  const T* final_row(int64_t which, int64_t rank, bool of_c) const;
  static void job(void* self, Run& run, int index);

  const PackedStack::Content& packed_;
  const StackSpec& spec_;
  const Kernels<T>& kernels_;
  const WeightKernels<T>& weights_;
  Tape::Content* tape_;
  Sequences own_sequences_;
  const Sequences* sequences_;
  Crew together_, alone_;
  Crew* crew_ = nullptr;
  int64_t chunk_ = 1;  // steps whose input projection is made at a time
  int64_t turn_ = 1;   // steps that a layer does before the next one
  ptrdiff_t state_stride_, slots_stride_;
  std::vector<Direction> directions_;  // [L * K]
  std::vector<Chunk> chunks_;          // [K], where gates are not kept
  bool optional_ = false;              // the kernels that know options run
  bool from_zeros_ = false;            // h before the first step is, in every layer and row
  Buffer zeros_;                       // a state of a segment that starts
  std::vector<Buffer> inner_;          // inference: outputs of inner layers, two in turn
  std::vector<Buffer> masked_;         // inference: masked inputs, one a layer
  std::vector<Sequence> masks_;        // of inputs
  Sequence x_;
};

// A member's share of a recurrence over some steps.
Share share_of(const StackSpec& spec, const Plan& plan, const Member& member, Range steps,
               const Sequences& sequences, StepGate& gate);

// Work as the plan needs it.
Work work_of(const PackedStack::Content& packed, const Sequences& sequences);

extern template class ForwardRun<float>;
extern template class ForwardRun<double>;

}  // namespace rnncore
