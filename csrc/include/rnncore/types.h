// Sizes, dtypes and cells, as every part of rnncore names them.
#pragma once

#include <cstdint>

namespace rnncore {

// What is known of a cell from outside: see csrc/cells/cell.h, where its equations are.
struct CellShape {
  const char* name;
  int parameter_gates;  // G: blocks of H rows in its weights
  int slots;            // values that a unit and step keeps
  int input_gates, input_slot;
  const int* input_order;
  int recurrent_gates, recurrent_slot, first_gates;
  const int* recurrent_order;
  int candidate;  // its default activation
  bool carries_c, reads_h, has_plain;

  int second_gates() const { return recurrent_gates - first_gates; }
};

// Cells and ONNX' activations have numbers; -1 for a name that is none of theirs.
int cell_named(const char* name);
int num_cells();
const CellShape& cell_shape(int cell);
int activation_named(const char* name);

enum class Dtype { float32, float64 };
// How packed weights are held. Reduced ones serve inference in float32.
enum class Weights { full, bfloat16, int8 };

// One of ONNX' activations with its parameters.
struct Activation {
  int kind = 0;
  double alpha = 0, beta = 0;

  bool operator==(const Activation& other) const {
    return kind == other.kind && alpha == other.alpha && beta == other.beta;
  }
};

// A stack of equal recurrent layers in one or two directions.
//
// T steps, N batch rows, D input_size, H hidden_size, L num_layers, K num_directions,
// P outputs(): proj_size where there is one, else H; G gates(): 1 (RNN), 3 (GRU), 4 (LSTM).
struct StackSpec {
  int cell = 0;
  Dtype dtype = Dtype::float32;
  int64_t input_size = 1;
  int64_t hidden_size = 1;
  int64_t num_layers = 1;
  int64_t num_directions = 1;
  int64_t proj_size = 0;
  bool bias = true;
  Weights weights = Weights::full;
  bool peephole = false, layer_norm = false;
  double zoneout_h = 0, zoneout_c = 0;  // rates
  double clip = 0;                      // of what goes into activations; 0: none
  bool default_activations = true;      // or these, of gates, candidate and output
  Activation gate, candidate, output;

  const CellShape& shape() const { return cell_shape(cell); }
  int64_t gates() const { return shape().parameter_gates; }
  int64_t outputs() const { return proj_size ? proj_size : hidden_size; }
  int64_t layer_inputs(int64_t layer) const {
    return layer ? num_directions * outputs() : input_size;
  }
  bool carries_c() const { return shape().carries_c; }
  // Whether a second product in a step is of what the first one made: W_hr's, or U's of some gates.
  bool has_hidden() const { return proj_size || shape().second_gates(); }
  bool has_options() const {
    return peephole || layer_norm || zoneout_h > 0 || zoneout_c > 0 || clip > 0 ||
           !default_activations || !shape().has_plain;
  }
  // All but how weights are held.
  bool same_recurrence(const StackSpec& s) const {
    return cell == s.cell && dtype == s.dtype && input_size == s.input_size &&
           hidden_size == s.hidden_size && num_layers == s.num_layers &&
           num_directions == s.num_directions && proj_size == s.proj_size && bias == s.bias &&
           peephole == s.peephole && layer_norm == s.layer_norm && zoneout_h == s.zoneout_h &&
           zoneout_c == s.zoneout_c && clip == s.clip &&
           default_activations == s.default_activations && gate == s.gate &&
           candidate == s.candidate && output == s.output;
  }
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
  Pointer peephole = nullptr;   // (3*H,): of i, f, o
  Pointer norm_ih = nullptr;    // (G*H,): gains of layer norm
  Pointer norm_hh = nullptr;    // (G*H,)
  Pointer norm_c = nullptr;     // (H,)
  Pointer norm_c_bias = nullptr;
};
using LayerWeights = LayerArrays<const void*>;
using LayerGradients = LayerArrays<void*>;

// Called about every 50 ms on the calling thread; true asks the call to stop.
struct Interrupt {
  bool (*requested)(void*) = nullptr;
  void* context = nullptr;
};

}  // namespace rnncore
