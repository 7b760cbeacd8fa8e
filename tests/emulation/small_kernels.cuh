// Kernels that try the words of cuda/device.cuh, right and wrong, each in a few lines.
#pragma once

#include "cuda/values.cuh"

namespace rnncore {
namespace cuda {

struct Arrays {
  const void* in;
  void* out;
  long long count;
};

template <class Value>
RNNCORE_DEVICE const Value* in_of(const Arrays& arrays) {
  return static_cast<const Value*>(arrays.in);
}
template <class Value>
RNNCORE_DEVICE Value* out_of(const Arrays& arrays) {
  return static_cast<Value*>(arrays.out);
}
RNNCORE_DEVICE int grid_thread() {
  return (block_y() * blocks_x() + block_x()) * thread_count() + thread_index();
}

enum class LeftOut { nothing, barrier_after_write, barrier_after_read };

// out[block] = sum of the block's share of in: twice over, so that shared memory is used again.
template <class Real, LeftOut kLeftOut>
RNNCORE_DEVICE void sum_block(const Arrays& arrays) {
  Real* const parts = reinterpret_cast<Real*>(shared_memory());
  const int lane = thread_index() % 32, warp = thread_index() / 32, warps = thread_count() / 32;
  for (int round = 0; round < 2; ++round) {
    Real sum = grid_thread() < arrays.count ? read(in_of<Real>(arrays) + grid_thread()) : Real(0);
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane == 0) write(parts + warp, sum);
    if (kLeftOut != LeftOut::barrier_after_write) block_barrier();
    sum = Real(0);
    for (int i = 0; i < warps; ++i) sum += read(parts + i);
    if (thread_index() == 0) write(out_of<Real>(arrays) + block_x(), sum);
    if (kLeftOut != LeftOut::barrier_after_read) block_barrier();
  }
}

// out[i] = 100 times the number of the lane that mask 3 leads to, plus that of mask 1.
RNNCORE_DEVICE void exchange(const Arrays& arrays) {
  const int lane = thread_index();
  const float of_one = shuffle_xor(static_cast<float>(lane), 1);
  const double of_two = shuffle_xor(static_cast<double>(lane), 3);
  write(out_of<double>(arrays) + lane, of_two * 100 + static_cast<double>(of_one));
}

// --- what cannot go on --------------------------------------------------------------------------

RNNCORE_DEVICE void barrier_without_some(const Arrays& arrays) {
  if (thread_index() >= arrays.count) block_barrier();
}
RNNCORE_DEVICE void two_barriers(const Arrays& arrays) {
  if (thread_index() < arrays.count) {
    block_barrier();
  } else {
    block_barrier();
  }
}
RNNCORE_DEVICE void shuffle_without_some(const Arrays& arrays) {
  if (thread_index() >= arrays.count) shuffle_xor(1.0f, 1);
}
RNNCORE_DEVICE void two_shuffles(const Arrays& arrays) {
  if (thread_index() < arrays.count) {
    shuffle_xor(1.0f, 1);
  } else {
    shuffle_xor(1.0f, 1);
  }
}
RNNCORE_DEVICE void barrier_or_shuffle(const Arrays& arrays) {
  if (thread_index() < arrays.count) {
    block_barrier();
  } else {
    shuffle_xor(1.0f, 1);
  }
}

// --- memory -------------------------------------------------------------------------------------

// out[i + count] = in[i + count]: count is where it begins, and may be wrong.
template <class Value>
RNNCORE_DEVICE void copy_from(const Arrays& arrays) {
  const long long i = grid_thread() + arrays.count;
  write(out_of<Value>(arrays) + i, read(in_of<Value>(arrays) + i));
}
RNNCORE_DEVICE void look_at(const char* at) { read(reinterpret_cast<const float*>(at)); }
// Every thread reads a float that begins `count` bytes after its own.
RNNCORE_DEVICE void read_askew(const Arrays& arrays) {
  const char* const at = static_cast<const char*>(arrays.in) + arrays.count;
  look_at(at + 4 * thread_index());
}
// Reads the byte of shared memory that `count` names; the first sixteen are written.
RNNCORE_DEVICE void read_shared(const Arrays& arrays) {
  if (thread_index() < 16) write(shared_memory() + thread_index(), 'x');
  block_barrier();
  read(shared_memory() + arrays.count);
}
// All threads of the grid write the same place: the number of the last one stays.
RNNCORE_DEVICE void write_together(const Arrays& arrays) {
  write(out_of<int>(arrays), grid_thread());
}
RNNCORE_DEVICE void write_the_same(const Arrays& arrays) { write(out_of<int>(arrays), 7); }
// One block writes what the other reads, with all the barriers that there are.
RNNCORE_DEVICE void hand_over(const Arrays& arrays) {
  if (block_x() == 0 && thread_index() == 0) write(out_of<int>(arrays), 7);
  block_barrier();
  if (block_x() == 1 && thread_index() == 0) read(static_cast<const int*>(arrays.out));
}
// Thread 0 writes a whole word, thread 1 the byte of it that `count` names.
RNNCORE_DEVICE void write_word_and_byte(const Arrays& arrays) {
  if (thread_index() == 0) write(out_of<int>(arrays), 7);
  if (thread_index() == 1) write(out_of<char>(arrays) + arrays.count, 'x');
}

// in: for each of `count` lines and each thread 2 w + 1, to read word w of out, 2 w + 2, to write
// it, or 0, to do neither. A barrier ends every other line.
RNNCORE_DEVICE void follow_script(const Arrays& arrays) {
  const int threads = blocks_y() * blocks_x() * thread_count();
  for (int line = 0; line < arrays.count; ++line) {
    const int what = read(in_of<int>(arrays) + line * threads + grid_thread());
    int* const word = out_of<int>(arrays) + (what - 1) / 2;
    if (what > 0 && what % 2 == 1) read(static_cast<const int*>(word));
    if (what > 0 && what % 2 == 0) write(word, line);
    if (line % 2 == 1) block_barrier();
  }
}

// --- numbers ------------------------------------------------------------------------------------

template <class Short>
RNNCORE_DEVICE void widen_all(const Arrays& arrays) {
  const int i = grid_thread();
  if (i < arrays.count) write(out_of<float>(arrays) + i, widen(read(in_of<Short>(arrays) + i)));
}
template <class Short>
RNNCORE_DEVICE void narrow_all(const Arrays& arrays) {
  for (long long i = grid_thread(); i < arrays.count; i += blocks_x() * thread_count()) {
    Short narrowed;
    narrow(read(in_of<float>(arrays) + i), narrowed);
    write(out_of<Short>(arrays) + i, narrowed);
  }
}
RNNCORE_DEVICE void multiply_all(const Arrays& arrays) {
  using Number = unsigned long long;
  const Number* const in = in_of<Number>(arrays) + 2 * grid_thread();
  write(out_of<Number>(arrays) + grid_thread(), multiply_high(read(in), read(in + 1)));
}

template <class Real>
RNNCORE_DEVICE void functions(const Arrays& arrays) {
  const int i = grid_thread();
  if (i >= arrays.count) return;
  const Real x = read(in_of<Real>(arrays) + i), below = x < 0 ? x : -x;
  const Real values[] = {tanh(x),
                         sigmoid(x),
                         exp_negative(below),
                         exp_minus_one(below),
                         log_one_plus(exp_negative(below)),
                         square_root(-below),
                         fma(x, x, Real(1))};
  for (int j = 0; j < 7; ++j) write(out_of<Real>(arrays) + i * 7 + j, values[j]);
}

// in: i f g o c of each thread; out: h and c after a step of the LSTM.
template <class Real>
RNNCORE_DEVICE void lstm_step(const Arrays& arrays) {
  Real slots[4];
  StepState<Real> state = {};
  const UnitWeights<Real> own = {};
  const Real* const in = in_of<Real>(arrays) + 5 * thread_index();
  for (int gate = 0; gate < 4; ++gate) slots[gate] = read(in + gate);
  state.c_before = read(in + 4);
  const PlainOptions<Tanh> options;
  LstmCell<false>::forward<0>(options, own, slots, state);
  Real* const out = out_of<Real>(arrays) + 2 * thread_index();
  write(out, LstmCell<false>::output(options, state.output_gate, state.c));
  write(out + 1, state.c);
}

}  // namespace cuda
}  // namespace rnncore
