// Sizes, dtypes and cells, as every part of rnncore names them.
#pragma once

#include <cstdint>

namespace rnncore {

enum class CellKind { rnn_tanh, rnn_relu, lstm, gru };
enum class Dtype { float32, float64 };
// How packed weights are held. Reduced ones serve inference in float32.
enum class Weights { full, bfloat16, int8 };

// A stack of equal recurrent layers in one or two directions.
//
// T steps, N batch rows, D input_size, H hidden_size, L num_layers, K num_directions,
// P outputs(): proj_size where there is one, else H; G gates(): 1 (RNN), 3 (GRU), 4 (LSTM).
struct StackSpec {
  CellKind cell = CellKind::lstm;
  Dtype dtype = Dtype::float32;
  int64_t input_size = 1;
  int64_t hidden_size = 1;
  int64_t num_layers = 1;
  int64_t num_directions = 1;
  int64_t proj_size = 0;
  bool bias = true;
  Weights weights = Weights::full;

  int64_t gates() const { return cell == CellKind::lstm ? 4 : cell == CellKind::gru ? 3 : 1; }
  int64_t outputs() const { return proj_size ? proj_size : hidden_size; }
  int64_t layer_inputs(int64_t layer) const {
    return layer ? num_directions * outputs() : input_size;
  }
  bool carries_c() const { return cell == CellKind::lstm; }
  int64_t item_size() const { return dtype == Dtype::float32 ? 4 : 8; }
  // Sums of products of 8-bit numbers must stay below 2^31.
  static constexpr int64_t kLongestInt8 = 1 << 17;
};

// An array (T, N, features) in memory: strides in values, features side by side.
template <class Pointer>
struct SequenceOf {
  Pointer data = nullptr;
  int64_t time_stride = 0;
  int64_t row_stride = 0;
};
using Sequence = SequenceOf<const void*>;
using MutableSequence = SequenceOf<void*>;

// One layer and direction's parameters, each contiguous in PyTorch's shape and gate order. Those
// that the spec does not have are null.
template <class Pointer>
struct LayerArrays {
  Pointer weight_ih = nullptr;  // (G*H, D)
  Pointer weight_hh = nullptr;  // (G*H, P)
  Pointer bias_ih = nullptr;    // (G*H,)
  Pointer bias_hh = nullptr;    // (G*H,)
  Pointer weight_hr = nullptr;  // (P, H)
};
using LayerWeights = LayerArrays<const void*>;
using LayerGradients = LayerArrays<void*>;

// Called about every 50 ms on the calling thread; true asks the call to stop.
struct Interrupt {
  bool (*requested)(void*) = nullptr;
  void* context = nullptr;
};

}  // namespace rnncore
