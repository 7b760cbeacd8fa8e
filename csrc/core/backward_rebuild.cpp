// BackwardRun where the tape holds states alone: gates are made again, a block of steps at a time.
// See backward_run.h.
#include <algorithm>

#include "core/backward_run.h"
#include "core/packed_row.h"

namespace rnncore {
namespace {

bool go_on(void*) { return true; }

}  // namespace

// Rows that a block may have: a sixteenth of them all, and enough for its products to be worth it.
template <class T>
int64_t BackwardRun<T>::block_rows() const {
  constexpr int64_t kLeast = 256;
  const int64_t most = std::max(kLeast, sequences_.live() / 16);
  return std::min(sequences_.live(), most + sequences_.batch());  // whole steps
}

template <class T>
typename BackwardRun<T>::Block BackwardRun<T>::block_before(int64_t end) const {
  const int64_t* offsets = sequences_.offsets();
  int64_t begin = end ? end - 1 : 0;
  while (begin && offsets[end] - offsets[begin - 1] <= block_rows()) --begin;
  return {{begin, end}, {offsets[begin], offsets[end]}, end == sequences_.steps(), begin == 0};
}

template <class T>
bool BackwardRun<T>::run_blocks(Run& run, int index, int64_t layer, int64_t k) {
  int64_t end = sequences_.steps();
  do {
    const Block block = block_before(end);
    if (!rebuild(run, index, layer, k, block)) return false;
    if (!all_.wait(run)) return false;
    if (index < plan_.members()) recur(run, index, layer, k, block);
    if (!all_.wait(run)) return false;
    if (wants_dx(layer) && !make_block_dx(run, index, layer, k, block.rows)) return false;
    if (!make_weights(run, index, layer, k, block)) return false;
    if (!all_.wait(run)) return false;
    end = block.steps.begin;
  } while (end);
  return true;
}

template <class T>
bool BackwardRun<T>::make_block_dx(Run& run, int index, int64_t layer, int64_t k, Range rows) {
  const Range part = part_of(rows.end - rows.begin, index, threads_);
  const Range mine = {rows.begin + part.begin, rows.begin + part.end};
  for (int64_t begin = mine.begin; begin < mine.end; begin += dx_rows_at_once()) {
    dx_rows(index, layer, k, {begin, std::min(begin + dx_rows_at_once(), mine.end)}, rows.begin);
    if (index == 0) run.poll();
    if (!run.live()) return false;
  }
  return true;
}

// This member's part of a block's rows: they do not wait for one another.
template <class T>
bool BackwardRun<T>::rebuild(Run& run, int index, int64_t layer, int64_t k, const Block& block) {
  const Range part = part_of(block.rows.end - block.rows.begin, index, threads_);
  const int64_t end = block.rows.begin + part.end;
  for (int64_t begin = block.rows.begin + part.begin; begin < end; begin += kRebuiltAtOnce) {
    rebuild_rows(index, layer, k, block, {begin, std::min(begin + kRebuiltAtOnce, end)});
    if (index == 0) run.poll();
    if (!run.live()) return false;
  }
  return true;
}

// W x into the slots, then the forward kernel on rows whose states before are known.
template <class T>
void BackwardRun<T>::rebuild_rows(int index, int64_t layer, int64_t k, const Block& block,
                                  Range rows) {
  const Scratch& scratch = scratch_[static_cast<size_t>(index)];
  const Direction& d = direction(layer, k);
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + k);
  const LayerPanels& panels = packed_.panels[which];
  const bool norm = spec_.layer_norm;
  const int64_t count = rows.end - rows.begin, from = rows.begin - block.rows.begin;
  const int64_t wide = padded(spec_.hidden_size);
  const NormalisedRows<T> normalised = block_gates_.normalised.from(from);
  T* slots = block_gates_.slots + from * tape_.slots_stride;
  const T** a = scratch.a.template as<const T*>();
  T** c = scratch.c.template as<T*>();
  const T** known_h = scratch.known.template as<const T*>();
  const T** known_c = known_h + kRebuiltAtOnce;
  T* entering = scratch.entering.template as<T>();
  PackedRow at(sequences_, rows.begin);
  for (int64_t i = 0; i < count; ++i, at.next()) {
    a[i] = d.x.from(0).at(at.s, at.r);
    c[i] = norm ? normalised.input + i * normalised.input_stride : slots + i * tape_.slots_stride;
    T* copy = entering ? entering + i * spec_.outputs() : nullptr;
    known_h[i] = factor_row(layer, k, Factor::state_before, block, at.s, at.r, copy);
    if (spec_.carries_c()) known_c[i] = c_before(layer, k, at.s, at.r);
  }
  RowsProduct<T> product = input_product<T>(packed_, which);
  product.rows = count;
  product.a = a;
  product.c = c;
  kernels_.weights[kFull].rows_product(product);

  CellOptions<T> options = d.options;
  options.fresh = nullptr;  // known states are zero already where a segment starts
  const int64_t offsets[] = {0, count};
  ForwardLoop<T> loop;
  loop.share.step_end = 1;
  loop.share.group_end = wide / kGroup;
  loop.share.offsets = offsets;
  loop.share.proceed = go_on;
  loop.units = spec_.hidden_size;
  loop.outputs = spec_.outputs();
  loop.panels = panels.recurrent;
  loop.second_panels = panels.second;
  loop.bias = static_cast<const T*>(panels.start);
  loop.slots = slots;
  loop.slots_stride = tape_.slots_stride;
  loop.keep = true;
  loop.state_stride = state_stride_;
  loop.projection_panels = panels.projection;
  if (block_gates_.hidden) loop.hidden = block_gates_.hidden + from * wide;
  if (optional_) loop.options = &options;
  loop.normalised = normalised;
  loop.a = a;
  loop.to = c;
  loop.row_scratch = scratch.row.template as<T>();
  loop.known_h = known_h;
  loop.known_c = known_c;
  kernels_.weights[kFull].forward[spec_.cell][optional_](loop);
}

template <class T>
const T* BackwardRun<T>::c_before(int64_t layer, int64_t k, int64_t s, int64_t r) {
  const Direction& d = direction(layer, k);
  const int64_t* offsets = sequences_.offsets();
  if (d.options.fresh && d.options.fresh[offsets[s] + r]) return zeros_.template as<T>();
  if (s == 0) return d.c_initial.template as<T>() + r * state_stride_;
  const T* kept = tape_of(layer, k).c.template as<T>();
  return kept + (offsets[s - 1] + r) * padded(spec_.hidden_size);
}

template class BackwardRun<float>;
template class BackwardRun<double>;

}  // namespace rnncore
