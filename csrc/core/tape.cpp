// The tape: what it takes, where it lies, and who may use it.
#include "core/tape.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace rnncore {
namespace {

constexpr int64_t kAlignment = 64;

// Numbers that a packed row of one layer and direction takes.
struct Widths {
  int64_t slots = 0, c = 0, hidden = 0, norm_input = 0, norm_recurrent = 0, inverse = 0;
  int64_t all() const { return slots + c + hidden + norm_input + norm_recurrent + padded(inverse); }
};

template <class T>
Widths widths_of(const StackSpec& spec, bool recompute) {
  const CellShape& shape = spec.shape();
  const int64_t wide = padded(spec.hidden_size);
  Widths w;
  if (spec.carries_c()) w.c = wide;
  if (recompute) return w;
  w.slots = slots_stride_of<T>(shape.slots * wide);
  if (spec.has_hidden()) w.hidden = wide;
  if (!spec.layer_norm) return w;
  w.norm_input = shape.input_gates * wide;
  w.norm_recurrent = shape.recurrent_gates * wide;
  w.inverse = kInverses;
  return w;
}

template <class T>
int64_t tape_width_as(const StackSpec& spec, const std::vector<bool>& masked, bool recompute) {
  const int64_t outputs = padded(spec.num_directions * spec.outputs());
  int64_t width = spec.num_layers * spec.num_directions * widths_of<T>(spec, recompute).all();
  width += (spec.num_layers - 1) * outputs;
  for (size_t layer = 0; layer < masked.size(); ++layer) {
    if (masked[layer]) width += padded(spec.layer_inputs(static_cast<int64_t>(layer)));
  }
  return width;
}

}  // namespace

int64_t tape_width(const StackSpec& spec, const std::vector<bool>& masked, bool recompute) {
  return spec.dtype == Dtype::float32 ? tape_width_as<float>(spec, masked, recompute)
                                      : tape_width_as<double>(spec, masked, recompute);
}

// Pieces of given memory keep the alignment of its start; rows as wide as tape_width() says leave
// room for that.
template <class T>
Buffer Tape::Content::take(int64_t count) {
  if (!given) return Buffer::of<T>(count);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  const int64_t piece = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (piece > given_bytes) {
    throw std::invalid_argument("memory: expected " + std::to_string(piece - given_bytes) +
                                " bytes more");
  }
  Buffer buffer = Buffer::at(given, static_cast<size_t>(bytes));
  std::memset(given + bytes, 0, static_cast<size_t>(piece - bytes));
  given += piece;
  given_bytes -= piece;
  return buffer;
}

template <class T>
void Tape::Content::lay_out(const PackedStack::Content& packed, const ForwardCall& call) {
  spec = packed.spec;
  recompute = call.recompute;
  sequences = Sequences(call.steps, call.batch, call.lengths, call.resets);
  const Widths widths = widths_of<T>(spec, recompute);
  const int64_t live = sequences.live();
  slots_stride = slots_stride_of<T>(packed.slot_row());
  layers.resize(static_cast<size_t>(spec.num_layers * spec.num_directions));
  const auto rows = [&](int64_t width) { return width ? take<T>(live * width) : Buffer(); };
  for (LayerTape& layer : layers) {
    layer.c = rows(widths.c);
    layer.slots = rows(widths.slots);
    layer.hidden = rows(widths.hidden);
    layer.norm_input = rows(widths.norm_input);
    layer.norm_recurrent = rows(widths.norm_recurrent);
    layer.inverse = rows(widths.inverse);
  }
  const int64_t places = sequences.steps() * sequences.batch();
  for (int64_t i = 0; i + 1 < spec.num_layers; ++i) {
    outputs.push_back(take<T>(places * spec.num_directions * spec.outputs()));
  }
  for (int64_t i = 0; i < spec.num_layers; ++i) {
    const size_t at = static_cast<size_t>(i);
    const bool has = at < call.masks.inputs.size() && call.masks.inputs[at].data;
    masked.push_back(has ? take<T>(places * spec.layer_inputs(i)) : Buffer());
  }
}
template void Tape::Content::lay_out<float>(const PackedStack::Content&, const ForwardCall&);
template void Tape::Content::lay_out<double>(const PackedStack::Content&, const ForwardCall&);

template <class T>
void Tape::Content::clear_unused(const PackedStack::Content& packed) {
  if (!given) return;
  std::memset(given, 0, static_cast<size_t>(given_bytes));
  const int64_t row = packed.slot_row(), rest = slots_stride - row;
  for (LayerTape& layer : layers) {
    for (int64_t r = 0; rest && layer.slots && r < sequences.live(); ++r) {
      std::fill_n(layer.slots.as<T>() + r * slots_stride + row, rest, T(0));
    }
    if (layer.inverse) layer.inverse.clear();  // of which no cell uses all
  }
  const auto clear_dead = [&](const Buffer& buffer, int64_t width) {
    for (int64_t s = 0; buffer && s < sequences.steps(); ++s) {
      const int64_t alive = sequences.alive(s), dead = sequences.batch() - alive;
      std::fill_n(buffer.as<T>() + (s * sequences.batch() + alive) * width, dead * width, T(0));
    }
  };
  for (const Buffer& buffer : outputs) clear_dead(buffer, spec.num_directions * spec.outputs());
  for (size_t i = 0; i < masked.size(); ++i) {
    clear_dead(masked[i], spec.layer_inputs(static_cast<int64_t>(i)));
  }
}
template void Tape::Content::clear_unused<float>(const PackedStack::Content&);
template void Tape::Content::clear_unused<double>(const PackedStack::Content&);

void find_again(const PackedStack& packed, const ForwardCall& call, Tape& tape) {
  if (packed.spec().dtype == Dtype::float32) {
    tape.content().lay_out<float>(packed.content(), call);
  } else {
    tape.content().lay_out<double>(packed.content(), call);
  }
}

struct TapeMemory::Content {
  Buffer buffer;
};

TapeMemory::TapeMemory(int64_t bytes)
    : content_(std::make_unique<Content>(Content{Buffer::of<char>(bytes)})) {}
TapeMemory::~TapeMemory() = default;
void* TapeMemory::data() const { return content_->buffer.as<void>(); }

Tape::Tape() : content_(std::make_unique<Content>()) {}
Tape::Tape(void* memory, int64_t bytes) : Tape() {
  if (reinterpret_cast<uintptr_t>(memory) % kAlignment) {
    throw std::invalid_argument("memory: expected an address that 64 divides");
  }
  content_->given = static_cast<char*>(memory);
  content_->given_bytes = bytes;
}
Tape::~Tape() = default;
bool Tape::spent() const { return content_->readers.load() == Content::kSpent; }

void Tape::Content::claim(bool retain) {
  int now = readers.load();
  do {
    if (now == kSpent) throw std::runtime_error("tape: it was consumed by an earlier backward");
    if (now > 0 && !retain) throw std::runtime_error("tape: another thread is reading it");
  } while (!readers.compare_exchange_weak(now, retain ? now + 1 : kSpent));
}

void Tape::Content::release(bool retain, bool overwritten) {
  if (retain) {
    readers.fetch_sub(1);
  } else if (!overwritten) {
    readers.store(0);
  }
}

int64_t Tape::nbytes() const {
  size_t bytes = 0;
  for (const LayerTape& layer : content_->layers) {
    bytes += layer.slots.size() + layer.c.size() + layer.hidden.size();
    bytes += layer.norm_input.size() + layer.norm_recurrent.size() + layer.inverse.size();
  }
  for (const Buffer& buffer : content_->outputs) bytes += buffer.size();
  for (const Buffer& buffer : content_->masked) bytes += buffer.size();
  return static_cast<int64_t>(bytes);
}

}  // namespace rnncore
