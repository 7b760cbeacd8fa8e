// The seam between core (which plans, owns memory and threads) and kernels (one build for each
// instruction set): plain structs of addresses and sizes, and a table of functions for each dtype.
//
// Layouts, on every instruction set and in both dtypes:
//   slot row   [group of 16 units][slot][16], a step's gates of one batch row, zero-padded
//   panels     [block of lanes][k][gate][lane], zero-padded; a block is one vector of columns.
//              Reduced weights have several k in a word: see weights.inl
//   packed row of step s and batch row r: offsets[s] + r. Rows are ordered by falling length, so
//   step s runs the first offsets[s + 1] - offsets[s] of them.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace rnncore {

constexpr int kGroup = 16;

constexpr int64_t padded(int64_t units) { return (units + kGroup - 1) / kGroup * kGroup; }

// Where an array keeps the rows of one direction: row r of step s is first[r] + (s - origin) *
// step. A reversed direction has a negative step and starts at each sequence's own end; a buffer
// for a chunk of steps has the chunk's first step as its origin.
template <class T>
struct SequenceRows {
  T* const* first = nullptr;
  ptrdiff_t step = 0;
  int64_t origin = 0;
  T* at(int64_t s, int64_t r) const { return first[r] + (s - origin) * step; }
};

// What one thread does of a recurrence: steps [step_begin, step_end), groups of units
// [group_begin, group_end) and of a projection's outputs, batch rows row_begin, row_begin +
// row_stride, ... Of the rows, every `members`-th from `member` on is its own where a row is
// handled whole. `proceed` is called between steps and their phases: it waits for the threads that
// share the units, answers false when the call is cancelled.
struct Share {
  int64_t step_begin = 0, step_end = 0;
  int64_t group_begin = 0, group_end = 0;
  int64_t output_group_begin = 0, output_group_end = 0;
  int64_t row_begin = 0, row_stride = 1;
  int64_t member = 0, members = 1;
  const int64_t* offsets = nullptr;
  bool (*proceed)(void*) = nullptr;
  void* context = nullptr;
};

// One of ONNX' activations, numbered as ActivationKind in csrc/cells/activations.h.
struct ActivationChoice {
  int kind = 0;
  double alpha = 0, beta = 0;
};

// How a state is mixed with the old one: where a flag is not 0 the old value stays; without flags,
// as much of it as the rate says.
template <class T>
struct Zoneout {
  T rate = 0;
  SequenceRows<const unsigned char> kept;  // features side by side

  bool acts() const { return kept.first || rate != T(0); }
};

// What a layer and direction does beyond its cell's plain equations. Vectors of H values are padded
// to whole groups; those of gates are in the order of their product's slots.
template <class T>
struct CellOptions {
  ActivationChoice gate, candidate, output;
  bool keeps_inputs = false;    // slots keep what went into activations
  double clip = 0;              // 0: none
  const T* peephole = nullptr;  // [3][padded H]: of i, f, o
  Zoneout<T> zoneout_h, zoneout_c;
  const T* const* entering_mask = nullptr;  // by row: what h[t-1] is multiplied by before U
  const unsigned char* fresh = nullptr;     // by packed row: a segment starts, from zeros
  const T* zeros = nullptr;                 // as many as a row of any state has
  // Layer norm: gains of W x and U h, [group][gate][16], and of c with its bias. Null: none.
  const T *norm_input = nullptr, *norm_recurrent = nullptr, *norm_c = nullptr;
  const T* norm_c_bias = nullptr;
};

constexpr int kInverses = 4;  // of a row

// Layer norm's products by row: raw, then normalised, then what backward makes of them. Slot rows
// with as many slots as the product has gates.
template <class T>
struct NormalisedRows {
  T *input = nullptr, *recurrent = nullptr;
  ptrdiff_t input_stride = 0, recurrent_stride = 0;
  T* inverse = nullptr;  // 1 / deviation of W x, of U h's first product and of its second, by row

  NormalisedRows from(int64_t row) const {
    if (!input) return {};
    return {input + row * input_stride, recurrent + row * recurrent_stride, input_stride,
            recurrent_stride, inverse + row * kInverses};
  }
};

template <class T>
struct ForwardLoop {
  Share share;
  int64_t units = 0, outputs = 0;       // H and P; projected when they may differ
  const void* panels = nullptr;         // U: [block of units][k < P][gate][lane]
  const void* second_panels = nullptr;  // U of the gates made of `hidden`, where there are any
  const T* bias = nullptr;              // slot row: what the sums start from
  T* slots = nullptr;       // slot rows; in: W x + biases unless x is given; out: kept gates
  SequenceRows<const T> x;  // given where W x is made in the loop: few inputs, or one step
  int64_t inputs = 0;
  const void* input_panels = nullptr;  // W: [block of units][k < inputs][gate][lane]
  ptrdiff_t slots_stride = 0;          // between slot rows
  int64_t dense = 0;    // not kept: slots and `normalised` start at step_begin, N rows a step
  bool keep = false;    // for backward: gates, c and hidden by packed row
  bool keep_c = false;  // c alone
  T* h[2] = {nullptr, nullptr};  // step s reads h[s % 2], writes the other: [N][state_stride]
  bool from_zeros = false;       // h before step 0 is zero, and U finite: U h is not made there
  T* entering[2] = {nullptr, nullptr};  // the same of h times its mask, where it has one
  T* c = nullptr;       // [N][state_stride]: c before the first step, and after unless kept
  T* c_kept = nullptr;  // by packed row, [padded H]
  ptrdiff_t state_stride = 0;
  SequenceRows<T> y;
  const void* projection_panels = nullptr;  // W_hr: [block of outputs][k < H][lane], or null
  // What a second product multiplies: o tanh(c) before W_hr, or r h. [padded H] by packed row if
  // kept, else by row.
  T* hidden = nullptr;
  // 8-bit weights: this member's own records of x's rows of a step and of h's or hidden's
  char *x_records = nullptr, *h_records = nullptr;
  const CellOptions<T>* options = nullptr;  // null: none
  NormalisedRows<T> normalised;             // by packed row if kept, else as `dense`
  const T** a = nullptr;  // this member's scratch: addresses of a step's rows, 2 N with x, else N
  T** to = nullptr;       // layer norm: N more
  T* row_scratch = nullptr;  // [padded H]
  // A pass over rows whose states are known, which makes their slots and hidden again. Each has
  // the addresses of its h[t-1] as it enters U, and of its c[t-1]; steps are batches of rows.
  const T* const* known_h = nullptr;
  const T* const* known_c = nullptr;
};

// Where a row of unit_gradients has the gradients of a layer's vectors; -1: nowhere.
struct UnitGradients {
  ptrdiff_t peephole = -1;                         // [3][padded H]
  ptrdiff_t norm_input = -1, norm_recurrent = -1;  // [group][gate][16]
  ptrdiff_t norm_c = -1, norm_c_bias = -1;         // [padded H]
  ptrdiff_t size = 0;

  UnitGradients() = default;
  UnitGradients(bool has_peephole, bool has_norm, bool carries_c, int64_t wide, int input_gates,
                int recurrent_gates) {
    const auto take = [&](bool wanted, ptrdiff_t& at, int64_t count) {
      if (!wanted) return;
      at = size;
      size += static_cast<ptrdiff_t>(count);
    };
    take(has_peephole, peephole, 3 * wide);
    take(has_norm, norm_input, input_gates * wide);
    take(has_norm, norm_recurrent, recurrent_gates * wide);
    take(has_norm && carries_c, norm_c, wide);
    take(has_norm && carries_c, norm_c_bias, wide);
  }
};

template <class T>
struct BackwardLoop {
  Share share;
  int64_t steps = 0;  // of the whole call
  int64_t units = 0, outputs = 0;
  const T* panels = nullptr;         // U by columns: [block of outputs][k in slot order][lane]
  const T* second_panels = nullptr;  // of the gates made of hidden: [block of units][k][lane]
  T* slots = nullptr;                // gates, overwritten by their gradients
  ptrdiff_t slots_stride = 0;
  int64_t first_row = 0;  // packed, of `slots` and `normalised`
  const T* c_kept = nullptr;
  const T* c_initial = nullptr;  // [N][state_stride]
  const T* h_initial = nullptr;
  SequenceRows<const T> y, dy;  // dy.first is null where dy is zero
  T* dh = nullptr;  // [N][state_stride]: in: dL/dh after each row's end; out: before its start
  T* dc = nullptr;
  T* direct = nullptr;  // [N][state_stride]: what of dL/dh[t-1] goes past U; null: nothing does
  ptrdiff_t state_stride = 0;
  const T* projection_panels = nullptr;  // W_hr by columns: [block of units][k < P][lane], or null
  T* doutput = nullptr;                  // projection: dL/dy in full, [padded P] by packed row
  const CellOptions<T>* options = nullptr;
  NormalisedRows<T> normalised;
  T* row_gradients = nullptr;   // layer norm: dL/dh or dL/dhidden, [N][state_stride]
  T* row_scratch = nullptr;     // [3][padded H], this member's
  T* unit_gradients = nullptr;  // [N][unit_stride]: sums over t
  ptrdiff_t unit_stride = 0;
  UnitGradients unit_places;
};

// c[i] = start + sum over k of a[i][k] * panels, for rows given by address. k runs in `segments`
// runs of segment_length values, segment_stride apart. The result has `gates` slots from first_slot
// on of rows of `slots` slots; with one gate of one slot it is a plain row of `columns` values.
template <class T>
struct RowsProduct {
  int64_t rows = 0;
  const T* const* a = nullptr;
  T* const* c = nullptr;
  int64_t segments = 1, segment_length = 0;
  ptrdiff_t segment_stride = 0;
  const void* panels = nullptr;
  int64_t group_begin = 0, group_end = 0;  // of columns
  int64_t columns = 0;                     // that exist, of one gate
  int gates = 1, slots = 1, first_slot = 0;
  const T* start = nullptr;  // a row as c's that sums start from; null: zero
  char* records = nullptr;   // 8-bit weights: kRecordsAtOnce of them
};
constexpr int64_t kRecordsAtOnce = 96;

// Blocks of an outer product, and the values of scratch that it needs: two strips of b, one of da,
// of a sum of some length and factors of some width.
constexpr int64_t kOuterDepth = 1024, kOuterHeight = 96, kOuterWidth = 768;
constexpr int64_t outer_depth_of(int64_t length) {
  return length < kOuterDepth ? length : kOuterDepth;
}
constexpr int64_t outer_strip(int64_t length, int64_t width) {
  const int64_t wide = padded(width) < kOuterWidth ? padded(width) : kOuterWidth;
  return outer_depth_of(length) * (wide + kGroup);
}
constexpr int64_t outer_scratch(int64_t length, int64_t width) {
  return 2 * outer_strip(length, width) + outer_depth_of(length) * (kOuterHeight + kGroup);
}

// c[i][j] = sum over k of gradients[k][column(i)] * b[k][j], for i in [begin, end): the gradient of
// a weight. Row i = gate * units + unit of c is found in slot rows at the gate's slot. Two weights
// that meet the same gradients are made together.
template <class T>
struct OuterFactor {
  const T* const* b = nullptr;  // a row address for each k
  int64_t columns = 0;
  T* c = nullptr;       // where the sum waits between blocks of k, and stays without add_to
  T* add_to = nullptr;  // as c: what a finished sum is added to
  ptrdiff_t c_stride = 0;
};
template <class T>
struct OuterProduct {
  int64_t length = 0;  // of the sum
  const T* gradients = nullptr;
  ptrdiff_t gradients_stride = 0;
  const int64_t* gradient_columns = nullptr;
  int factors = 1;
  OuterFactor<T> factor[2];
  int64_t begin = 0, end = 0;
  bool accumulate = false;  // the sum goes on from c
  bool finished = true;     // these are the last values of k
  T* scratch = nullptr;     // outer_scratch() values
  int64_t strip = 0;        // outer_strip(), which may be that of longer sums and wider factors
};

// panels[block][k][gate][lane] = w[source[gate] * units + block * lanes + lane][k]
template <class T>
struct PackGates {
  void* panels = nullptr;
  const T* w = nullptr;
  ptrdiff_t w_stride = 0;
  int64_t units = 0, length = 0;
  int gates = 1;
  const int* source = nullptr;
  int64_t group_begin = 0, group_end = 0;
};

// panels[block][k][lane] = w[row of k][block * lanes + lane], where k counts slot order over
// `gates` gates of packed_units units each; those beyond `units` give zeros.
template <class T>
struct PackColumns {
  T* panels = nullptr;
  const T* w = nullptr;
  ptrdiff_t w_stride = 0;
  int64_t units = 0, packed_units = 0, columns = 0;
  int gates = 1;
  const int* source = nullptr;
  int64_t group_begin = 0, group_end = 0;  // of columns
};

// Row by row: f (e / sum - onehot of the target) with e = exp(x - largest x), the gradient of f
// times the cross-entropy, where f = scale * weights[target]. Rows with a negative target get
// zeros. The loss of a row is log(sum) - shifted, where `shifted` is the target's x less the
// largest.
template <class T>
struct SoftmaxRows {
  const T* logits = nullptr;
  ptrdiff_t logits_stride = 0;
  const int64_t* targets = nullptr;
  int64_t row_begin = 0, row_end = 0, classes = 0;
  const T* weights = nullptr;  // [classes], or null for ones
  T scale = 1;
  T* dlogits = nullptr;          // [rows][dlogits_stride]; must not be null
  ptrdiff_t dlogits_stride = 0;  // 0: no gradient is wanted, and dlogits is scratch of one row
  T *sum = nullptr, *shifted = nullptr;
};

// d = g + penalty w, u = momentum u + d, w -= rate u, or with nesterov rate (d + momentum u); where
// velocity is null, w -= rate d
template <class T>
struct SgdStep {
  T *w = nullptr, *velocity = nullptr;
  const T* g = nullptr;
  int64_t begin = 0, end = 0;
  T rate = 0, momentum = 0, penalty = 0;
  bool nesterov = false;
};

// d = g + penalty w, m = keep1 m + new1 d, v = keep2 v + new2 d^2,
// w -= rate (m / correction1) / (sqrt(v / correction2) + epsilon) + rate decay w
template <class T>
struct AdamStep {
  T *w = nullptr, *m = nullptr, *v = nullptr;
  const T* g = nullptr;
  int64_t begin = 0, end = 0;
  T rate = 0, epsilon = 0, penalty = 0, decay = 0;
  T keep1 = 0, new1 = 0, correction1 = 0;  // beta1, 1 - beta1, 1 - beta1^step
  T keep2 = 0, new2 = 0, correction2 = 0;
};

// Cells, as the kernels number them: csrc/cells/list.h says which they are.
constexpr int kMostCells = 16;

// A row of 8-bit values has a record: its scale, and from kRecordHead on its values, each of
// `activation` bytes.
constexpr int64_t kRecordHead = 64;
constexpr int64_t record_bytes(int64_t length, int activation) {
  return kRecordHead + (padded(length) * activation + 63) / 64 * 64;
}

// How weights are held. A block's panel has `header` lines and one for every `pack` values of k,
// each of gates * lanes words of `word` bytes.
enum Weighting { kFull, kBfloat16, kInt8, kWeightings };

template <class T>
struct WeightKernels {
  int word, pack, header, activation;  // activation: bytes of a quantized value, else 0
  // Of each cell, plain and with options; null where a cell has no plain kernel.
  void (*forward[kMostCells][2])(const ForwardLoop<T>&);
  void (*rows_product)(const RowsProduct<T>&);
  bool (*pack_gates)(const PackGates<T>&);  // answers whether all weights are finite

  int64_t panel_bytes(int64_t units, int64_t gates, int64_t length) const {
    return padded(units) * gates * (header + (length + pack - 1) / pack) * word;
  }
  int64_t record_bytes(int64_t length) const {
    return activation ? rnncore::record_bytes(length, activation) : 0;
  }
};

template <class T>
struct Kernels {
  int lanes;
  WeightKernels<T> weights[kWeightings];  // double: full alone
  void (*backward[kMostCells][2])(const BackwardLoop<T>&);
  void (*outer_product)(const OuterProduct<T>&);
  void (*pack_columns)(const PackColumns<T>&);
  // sums[j] = sum over k ascending of rows[k][j], j in [begin, end); may go on from sums
  void (*sum_rows)(const T* rows, ptrdiff_t stride, int64_t length, int64_t begin, int64_t end,
                   bool accumulate, T* sums);
  void (*add)(T* to, const T* from, int64_t count);
  void (*multiply)(T* to, const T* a, const T* b, int64_t count);
  void (*activation[3])(const T* x, T* out, int64_t count);  // exp, tanh, sigmoid
  void (*softmax_rows)(const SoftmaxRows<T>&);
  void (*sgd)(const SgdStep<T>&);
  void (*adam)(const AdamStep<T>&);
};

struct KernelTable {
  const char* name;
  Kernels<float> f32;
  Kernels<double> f64;
  int accumulators;                      // of a tile, in vectors
  double (*fma_rounds)(int64_t rounds);  // see limits.inl
  double (*read_once)(const float* data, int64_t count);
};

const KernelTable* baseline_kernels();
const KernelTable* avx2_kernels();
const KernelTable* avx512_kernels();
const WeightKernels<float>* avx512vnni_int8();

}  // namespace rnncore
