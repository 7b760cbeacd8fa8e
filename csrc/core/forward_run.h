// One forward pass, prepared: every buffer allocated, every address found, the work planned.
//
// Members of the team run the same program on their own share (plan.h): for each chunk of steps and
// each layer, the input projection of the chunk, then the recurrence through it. Members that share
// batch rows meet between layers; those that share a direction meet between steps; others never.
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
    T* h[2] = {nullptr, nullptr};
    T* c = nullptr;
    Rows<const T> x;
    Rows<T> y;
  };
  struct Scratch {  // of one member
    Buffer a, c;
    Buffer x_records, h_records;  // 8-bit weights
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
  int64_t inner_steps() const;
  // Whether the recurrence makes W x itself.
  bool is_fused(int64_t layer) const {
    const bool few = spec_.layer_inputs(layer) <= 32 || sequences_->steps() == 1;
    return few || (crew_->plan.fused && !tape_);  // a tape is written in either case
  }
  SequenceRows<const T> inputs_of(int64_t layer, int64_t direction, Range steps) const;
  bool is_chunked() const { return !tape_ && spec_.num_directions == 1; }
  void work(Run& run, int index);
  bool run_layer(Run& run, int index, int64_t layer, Range steps);
  bool run_direction(Run& run, int index, int64_t layer, int64_t direction, Range steps);
  void project(int index, int64_t layer, int64_t direction, Range steps);
  void recur(Run& run, int index, int64_t layer, int64_t direction, Range steps);
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
  ptrdiff_t state_stride_, slots_stride_;
  std::vector<Direction> directions_;  // [L * K]
  std::vector<Buffer> slots_;          // inference: [K], a chunk's projected gates
  std::vector<Buffer> inner_;          // inference: outputs of inner layers, two in turn
  std::vector<Buffer> masked_;         // inference: masked inputs, one a layer
  std::vector<Sequence> masks_;
  Sequence x_;
};

// Work as the plan needs it.
Work work_of(const PackedStack::Content& packed, const Sequences& sequences);

extern template class ForwardRun<float>;
extern template class ForwardRun<double>;

}  // namespace rnncore
