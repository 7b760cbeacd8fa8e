// What the host hands to kernels: plain structs that both compilers read alike, so no header is
// included and sizes have one type.
//
// Sizes are T N D H P as everywhere. A row is one sequence of a batch; rows are counted in the
// order of `order`, longest first where lengths are known on the host. A step s of row r is at time
// t = s, or in the reverse direction at t = length - 1 - s.
//
// `Real` is the type of sums, states and gradients of parameters: float for sequences of float16,
// bfloat16 and float32, double for those of float64. `T` is that of sequences and of what products
// multiply.
#pragma once

namespace rnncore {
namespace cuda {

using Index = long long;

// Rows of values side by side, one for every time and row.
struct Rows {
  void* data;
  Index time_stride, row_stride;  // in values
  const Index* offsets;           // by time: counts in the place of t; null: t itself
  const int* order;               // by row: counts in the place of r; null: r itself
};

// One of ONNX' activations, numbered as ActivationKind in csrc/cells/activations.h.
struct Choice {
  int kind;
  double alpha, beta;
};

struct Options {
  Choice gate, candidate, output;
  int peephole;
  int keeps_inputs;  // slots keep what went into activations
  double clip;       // 0: none
};

// How a state is mixed with the old one: where a flag is not 0 the old value stays; without flags,
// as much of it as the rate says.
struct Zoneout {
  double rate;
  Rows kept;  // unsigned char; no data: none
};

// What the steps of one direction of one layer have in common.
struct Steps {
  Index steps, rows, units, outputs;  // T, N, H and P
  int reverse;
  const int* lengths;      // by row; null: all T. Values beyond 0 .. T are clamped
  Rows resets;             // unsigned char, one by time and row; no data: none
  Rows entering_mask;      // T [P], at time 0: what h[t-1] is multiplied by before U
  const void* bias;        // Real [slots][H]
  const void* peephole;    // Real [3][H]
  const void* norm_input;  // Real [gates][H]: gains of W x, and so on; null: no layer norm
  const void* norm_recurrent;
  const void *norm_c, *norm_c_bias;
  Options options;
  Zoneout zoneout_h, zoneout_c;
};

// One step forward: from products to gates to states. What is written for backward has no data
// where nothing is kept.
struct ForwardStep {
  Steps common;
  Index s;
  Index count;            // rows that may be alive: the first ones
  int keep;               // whether backward will follow
  int projects;           // whether W_hr makes h of hidden
  Rows slots;             // Real [slots][H]: W x, then what backward needs
  void* product;          // Real [count][gates of the phase][H]: U h; [count][P]: W_hr hidden
  void* h;                // Real [N][P]
  void* c;                // Real [N][H]
  void* entering;         // T [N][P]: h as it enters U
  void* hidden;           // T [N][H]: what the step's second product multiplies
  Rows y;                 // T
  Rows c_kept;            // Real
  Rows hidden_kept;       // T
  Rows normalised_input;  // Real [gates][H]: W x, normalised
  Rows normalised_recurrent;
  Rows inverse;  // Real [4]: 1 / deviation of W x, and of U h's first and second product
};

// One step backward: from the gradient of h to those of the gates' sums.
struct BackwardStep {
  Steps common;
  Index s;
  Index count;          // rows that may be alive at s: the first ones
  Rows slots;           // Real: what forward left, then gradients
  Rows gradients_kept;  // T: the same gradients for products of 16-bit numbers; else no data
  int projects;         // whether W_hr makes h of hidden
  const void* carry;    // Real [rows alive at s + 1][P]: gradients of step s + 1 times U
  const void* product;  // Real [count][H]: gradient of hidden, from the step's second product
  void* dh;             // Real [N][P]: in: dL/dh after each row's end; out: before its start
  void* dc;             // Real [N][H]
  void* direct;         // Real [N][P]: what of dL/dh[t-1] goes past the product U h
  void* gradients;      // T [count][gates of the phase][H]: what the next product multiplies
  void* doutput;        // T [count][P]: dL/dy in full, before W_hr
  Rows doutput_kept;    // T
  Rows dy;              // T, or Real where dy_is_real; no data: zero
  int dy_is_real;
  Rows y;                             // T
  const void *h_initial, *c_initial;  // Real [N][P] and [N][H]
  Rows c_kept;                        // Real
  Rows normalised_input, normalised_recurrent, inverse;
  Rows input_gradients, recurrent_gradients;  // T, of products that were normalised; else no data
  void* row_scratch;                          // Real [N][3][H], with layer norm
  void* unit_gradients;                       // Real [N][unit_stride]: sums over t
  Index unit_stride;
  int clears;  // whether memory has slots past rows' ends, which become zero
  Index peephole_at, norm_input_at, norm_recurrent_at, norm_c_at, norm_c_bias_at;
};

// All steps of one direction of one layer: the same, with U itself.
struct PersistentForward {
  ForwardStep step;
  const void* recurrent;  // T [gates][H][H]
};
struct PersistentBackward {
  BackwardStep step;
  const void* recurrent;
};

// out[t, r, :] = in[t, r, :] * mask[t, r, :] up to a row's length. Types are the kernel's.
struct CopyRows {
  Index steps, rows, features;
  const int* lengths;
  Rows in, out;
  Rows mask;   // no data: none
  int clears;  // zeros past a length
};

// before[t, r, :] = what entered U at time t: y of the step before, or h_initial, times the mask.
struct GatherEntering {
  Steps common;
  Rows y;                 // T
  const void* h_initial;  // Real [N][P]
  Rows before;            // T
  int clears;             // zeros past a length
};

// to[r] = from[order[r]], or with `scatter` to[order[r]] = from[r]; and to entering, times the
// mask.
struct CopyStates {
  Index rows, units;
  const int* order;  // null: as they are
  const void* from;  // Real; null: zeros
  void* to;          // Real
  void* entering;    // T; null: not wanted
  Rows mask;         // T, at time 0, by row
  int scatter;
};

// taken[n] = lengths[n], brought into 0 .. T; marks *beyond where that changed any.
struct TakeLengths {
  Index steps, rows;
  const Index* lengths;
  int* taken;
  int* beyond;  // in the host's memory
};

// Rows of weights by gate: to[g * units + u] = from[order[g] * units + u], or, where gradients are
// added, to[order[g] * units + u] += from[g * units + u]; `columns` values each.
struct MoveGates {
  Index units, columns;
  int gates;
  int order[4];
  const void* from;
  void* to;
};

// bias[slot][u] = b_ih + b_hh of the gates that meet in it.
struct PackBias {
  Index units;
  int slots;
  int input[4], recurrent[4];  // by slot: the gate of the parameters, or -1
  const void *bias_ih, *bias_hh;
  void* bias;
};

// Normalises the rows of W x in place, all times at once.
struct NormaliseRows {
  Index steps, rows, width;
  const int* lengths;
  Rows values;   // Real [width]
  Rows inverse;  // Real [4], the first of which is set
};

// parts[i][j] = sum of in[row][j] over the i-th `height` rows.
struct SumRows {
  Index rows, columns, stride, height;
  const void* in;
  void* parts;  // Real [ceil(rows / height)][columns]
};

}  // namespace cuda
}  // namespace rnncore
