// The forward pass as callers see it.
#include "core/forward_run.h"
#include "rnncore/stack.h"

namespace rnncore {
namespace {

template <class T>
void forward_as(const PackedStack& packed, const ForwardCall& call, Tape::Content* tape) {
  ForwardRun<T> run(packed, call, tape, call.num_threads);
  Lease lease(run.wanted());
  run.fit(lease.size());
  run.bind(call);
  if (!run.run(lease, call.interrupt)) throw Interrupted();
  run.write_states(call.hn, call.cn);
}

}  // namespace

Tape::Tape() : content_(std::make_unique<Content>()) {}
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

void forward(const PackedStack& packed, const ForwardCall& call, Tape* tape) {
  if (tape && packed.spec().weights != Weights::full) {
    throw std::invalid_argument("tape: reduced weights are for inference");
  }
  Tape::Content* content = tape ? &tape->content() : nullptr;
  if (packed.spec().dtype == Dtype::float32) {
    forward_as<float>(packed, call, content);
  } else {
    forward_as<double>(packed, call, content);
  }
}

}  // namespace rnncore
