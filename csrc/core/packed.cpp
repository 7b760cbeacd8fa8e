#include "core/packed.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/plan.h"
#include "core/team.h"

namespace rnncore {
namespace {

constexpr int kIdentity[] = {0};

// Cuts one block into aligned pieces; the first pass, without a block, only measures.
struct Carver {
  char* base = nullptr;
  int64_t used = 0;

  void take(void*& piece, int64_t bytes) {
    piece = base ? base + used : nullptr;
    used += (bytes + 63) / 64 * 64;
  }
};

int64_t panel_bytes(const PackedStack::Content& c, int64_t units, int64_t gates, int64_t length) {
  const auto bytes = [&](const auto& kernels) { return kernels.panel_bytes(units, gates, length); };
  return c.spec.dtype == Dtype::float32 ? bytes(weight_kernels<float>(*c.table, c.spec.weights))
                                        : bytes(weight_kernels<double>(*c.table, c.spec.weights));
}

void carve_forward(PackedStack::Content& c, Carver& carver) {
  const StackSpec& s = c.spec;
  for (size_t i = 0; i < c.panels.size(); ++i) {
    const int64_t inputs = s.layer_inputs(static_cast<int64_t>(i) / s.num_directions);
    LayerPanels& p = c.panels[i];
    const int64_t units = s.hidden_size, vector = padded(units) * s.item_size();
    carver.take(p.input, panel_bytes(c, units, c.shape.input_gates, inputs));
    carver.take(p.recurrent, panel_bytes(c, units, c.shape.first_gates, s.outputs()));
    carver.take(p.start, c.slot_row() * s.item_size());
    if (c.shape.second_gates()) {
      carver.take(p.second, panel_bytes(c, units, c.shape.second_gates(), units));
    }
    if (s.proj_size) carver.take(p.projection, panel_bytes(c, s.outputs(), 1, units));
    if (s.peephole) carver.take(p.peephole, 3 * vector);
    if (!s.layer_norm) continue;
    carver.take(p.norm_input, c.shape.input_gates * vector);
    carver.take(p.norm_recurrent, c.shape.recurrent_gates * vector);
    if (!s.carries_c()) continue;
    carver.take(p.norm_c, vector);
    carver.take(p.norm_c_bias, vector);
  }
}

void carve_backward(PackedStack::Content& c, Carver& carver) {
  const StackSpec& s = c.spec;
  const int64_t item = s.item_size();
  const auto bytes = [&](int64_t columns, int64_t gates) {
    return padded(columns) * gates * padded(s.hidden_size) * item;
  };
  for (size_t i = 0; i < c.panels.size(); ++i) {
    const int64_t inputs = s.layer_inputs(static_cast<int64_t>(i) / s.num_directions);
    LayerPanels& p = c.panels[i];
    carver.take(p.input_columns, bytes(inputs, c.shape.input_gates));
    carver.take(p.recurrent_columns, bytes(s.outputs(), c.shape.first_gates));
    if (c.shape.second_gates()) {
      carver.take(p.second_columns, bytes(s.hidden_size, c.shape.second_gates()));
    }
    if (!s.proj_size) continue;
    carver.take(p.projection_columns, padded(s.hidden_size) * padded(s.outputs()) * item);
  }
}

Range share_of(int64_t columns, int part, int parts) {
  return part_of(padded(columns) / kGroup, part, parts);
}

// Answers whether all of these weights are finite.
template <class T>
bool pack_gates(const PackedStack::Content& c, void* panels, const void* w, int64_t units,
                int64_t length, int gates, const int* source, int part, int parts) {
  PackGates<T> p;
  p.panels = panels;
  p.w = static_cast<const T*>(w);
  p.w_stride = length;
  p.units = units;
  p.length = length;
  p.gates = gates;
  p.source = source;
  const Range range = share_of(units, part, parts);
  p.group_begin = range.begin;
  p.group_end = range.end;
  return weight_kernels<T>(*c.table, c.spec.weights).pack_gates(p);
}

template <class T>
void pack_columns(const PackedStack::Content& c, void* panels, const void* w, int64_t units,
                  int64_t columns, int gates, const int* source, int part, int parts) {
  PackColumns<T> p;
  p.panels = static_cast<T*>(panels);
  p.w = static_cast<const T*>(w);
  p.w_stride = columns;
  p.units = units;
  p.packed_units = padded(units);
  p.columns = columns;
  p.gates = gates;
  p.source = source;
  const Range range = share_of(columns, part, parts);
  p.group_begin = range.begin;
  p.group_end = range.end;
  kernels_of<T>(*c.table).pack_columns(p);
}

// The slot row that sums start from: both biases where both products reach a slot, else the one.
template <class T>
void fill_start(const PackedStack::Content& c, const LayerWeights& w, T* start) {
  const int64_t units = c.spec.hidden_size;
  std::fill(start, start + c.slot_row(), T(0));
  if (!c.spec.bias) return;
  const T* ih = static_cast<const T*>(w.bias_ih);
  const T* hh = static_cast<const T*>(w.bias_hh);
  for (int slot = 0; slot < c.shape.slots; ++slot) {
    const int in = slot - c.shape.input_slot, re = slot - c.shape.recurrent_slot;
    const bool from_in = in >= 0 && in < c.shape.input_gates;
    const bool from_re = re >= 0 && re < c.shape.recurrent_gates;
    for (int64_t u = 0; u < units; ++u) {
      T& to = start[(u / kGroup * c.shape.slots + slot) * kGroup + u % kGroup];
      if (from_in) to += ih[c.shape.input_order[in] * units + u];
      if (from_re) to += hh[c.shape.recurrent_order[re] * units + u];
    }
  }
}

// `gates` vectors of H values into [group][gate][16]: a plain padded vector where there is one.
template <class T>
void fill_vector(const PackedStack::Content& c, const void* from, int gates, const int* order,
                 void* to) {
  const int64_t units = c.spec.hidden_size;
  const T* values = static_cast<const T*>(from);
  T* vector = static_cast<T*>(to);
  std::fill(vector, vector + gates * padded(units), T(0));
  for (int g = 0; g < gates; ++g) {
    for (int64_t u = 0; u < units; ++u) {
      vector[(u / kGroup * gates + g) * kGroup + u % kGroup] = values[order[g] * units + u];
    }
  }
}

template <class T>
void fill_vectors(const PackedStack::Content& c, const LayerWeights& w, const LayerPanels& p) {
  fill_start(c, w, static_cast<T*>(p.start));
  for (int i = 0; i < 3 && p.peephole; ++i) {
    fill_vector<T>(c, w.peephole, 1, &i,
                   static_cast<T*>(p.peephole) + i * padded(c.spec.hidden_size));
  }
  if (!p.norm_input) return;
  const CellShape& shape = c.shape;
  fill_vector<T>(c, w.norm_ih, shape.input_gates, shape.input_order, p.norm_input);
  fill_vector<T>(c, w.norm_hh, shape.recurrent_gates, shape.recurrent_order, p.norm_recurrent);
  if (!p.norm_c) return;
  fill_vector<T>(c, w.norm_c, 1, kIdentity, p.norm_c);
  fill_vector<T>(c, w.norm_c_bias, 1, kIdentity, p.norm_c_bias);
}

template <class T>
void pack_forward(PackedStack::Content& c, int part, int parts) {
  const StackSpec& s = c.spec;
  const CellShape& shape = c.shape;
  for (size_t i = 0; i < c.panels.size(); ++i) {
    const LayerWeights& w = c.weights[i];
    const LayerPanels& p = c.panels[i];
    const int64_t inputs = s.layer_inputs(static_cast<int64_t>(i) / s.num_directions);
    pack_gates<T>(c, p.input, w.weight_ih, s.hidden_size, inputs, shape.input_gates,
                  shape.input_order, part, parts);
    bool finite = pack_gates<T>(c, p.recurrent, w.weight_hh, s.hidden_size, s.outputs(),
                                shape.first_gates, shape.recurrent_order, part, parts);
    if (p.second) {
      finite &= pack_gates<T>(c, p.second, w.weight_hh, s.hidden_size, s.hidden_size,
                              shape.second_gates(), shape.recurrent_order + shape.first_gates, part,
                              parts);
    }
    if (!finite) c.finite_recurrent = false;
    if (s.proj_size) {
      pack_gates<T>(c, p.projection, w.weight_hr, s.outputs(), s.hidden_size, 1, kIdentity, part,
                    parts);
    }
    if (part == 0) fill_vectors<T>(c, w, p);
  }
}

template <class T>
void pack_backward(PackedStack::Content& c, int part, int parts) {
  const StackSpec& s = c.spec;
  for (size_t i = 0; i < c.panels.size(); ++i) {
    const LayerWeights& w = c.weights[i];
    const LayerPanels& p = c.panels[i];
    const int64_t inputs = s.layer_inputs(static_cast<int64_t>(i) / s.num_directions);
    const CellShape& shape = c.shape;
    pack_columns<T>(c, p.input_columns, w.weight_ih, s.hidden_size, inputs, shape.input_gates,
                    shape.input_order, part, parts);
    pack_columns<T>(c, p.recurrent_columns, w.weight_hh, s.hidden_size, s.outputs(),
                    shape.first_gates, shape.recurrent_order, part, parts);
    if (p.second_columns) {
      pack_columns<T>(c, p.second_columns, w.weight_hh, s.hidden_size, s.hidden_size,
                      shape.second_gates(), shape.recurrent_order + shape.first_gates, part, parts);
    }
    if (!s.proj_size) continue;
    pack_columns<T>(c, p.projection_columns, w.weight_hr, s.outputs(), s.hidden_size, 1, kIdentity,
                    part, parts);
  }
}

void check_weights(const StackSpec& s) {
  if (s.weights == Weights::full) return;
  if (s.dtype != Dtype::float32)
    throw std::invalid_argument("weights: expected float32's to reduce");
  const int64_t longest = std::max({s.input_size, s.hidden_size, s.layer_inputs(1)});
  if (s.weights == Weights::int8 && longest > StackSpec::kLongestInt8) {
    throw std::invalid_argument("weights: int8 sums up to " +
                                std::to_string(StackSpec::kLongestInt8) + " products, got " +
                                std::to_string(longest));
  }
}

struct Packing {
  PackedStack::Content* content;
  bool backward;
  int parts;
};

void pack_part(void* context, Run&, int part) {
  const Packing& packing = *static_cast<Packing*>(context);
  PackedStack::Content& c = *packing.content;
  const bool single = c.spec.dtype == Dtype::float32;
  if (packing.backward) {
    single ? pack_backward<float>(c, part, packing.parts)
           : pack_backward<double>(c, part, packing.parts);
  } else {
    single ? pack_forward<float>(c, part, packing.parts)
           : pack_forward<double>(c, part, packing.parts);
  }
}

// Below a megabyte of weights, waking the team takes longer than it saves.
void pack_all(PackedStack::Content& c, bool backward, int64_t bytes, int num_threads) {
  constexpr int64_t kWorthwhile = 1 << 20;
  Lease lease(bytes < kWorthwhile ? 1 : num_threads);
  Packing packing = {&c, backward, lease.size()};
  lease.run(lease.size(), Interrupt(), pack_part, &packing);
}

}  // namespace

template <class T>
RowsProduct<T> input_product(const PackedStack::Content& packed, size_t which) {
  const StackSpec& spec = packed.spec;
  const CellShape& shape = packed.shape;
  const LayerPanels& panels = packed.panels[which];
  RowsProduct<T> product;
  product.segment_length = spec.layer_inputs(static_cast<int64_t>(which) / spec.num_directions);
  product.panels = panels.input;
  product.columns = padded(spec.hidden_size);
  product.group_end = product.columns / kGroup;
  product.gates = shape.input_gates;
  product.slots = spec.layer_norm ? shape.input_gates : shape.slots;
  product.first_slot = spec.layer_norm ? 0 : shape.input_slot;
  if (!spec.layer_norm) product.start = static_cast<const T*>(panels.start);
  return product;
}
template RowsProduct<float> input_product<float>(const PackedStack::Content&, size_t);
template RowsProduct<double> input_product<double>(const PackedStack::Content&, size_t);

void PackedStack::Content::need_backward(int num_threads) {
  if (has_backward.load(std::memory_order_acquire)) return;
  std::lock_guard<std::mutex> lock(backward_mutex);
  if (has_backward.load(std::memory_order_relaxed)) return;
  Carver measure;
  carve_backward(*this, measure);
  Carver carver;
  backward_block = Buffer(static_cast<size_t>(measure.used));
  carver.base = backward_block.as<char>();
  carve_backward(*this, carver);
  pack_all(*this, true, measure.used, num_threads);
  has_backward.store(true, std::memory_order_release);
}

PackedStack::PackedStack(const StackSpec& spec, std::vector<LayerWeights> weights, int num_threads)
    : content_(std::make_unique<Content>()) {
  check_weights(spec);
  Content& c = *content_;
  c.spec = spec;
  c.table = &chosen_kernels();
  c.shape = spec.shape();
  c.weights = std::move(weights);
  c.panels.resize(c.weights.size());
  Carver measure;
  carve_forward(c, measure);
  Carver carver;
  c.forward_block = Buffer(static_cast<size_t>(measure.used));
  carver.base = c.forward_block.as<char>();
  carve_forward(c, carver);
  pack_all(c, false, measure.used, num_threads);
}

PackedStack::~PackedStack() = default;
const StackSpec& PackedStack::spec() const { return content_->spec; }
int64_t PackedStack::nbytes() const {
  return static_cast<int64_t>(content_->forward_block.size() + content_->backward_block.size());
}

}  // namespace rnncore
