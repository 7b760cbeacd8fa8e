// The backward pass as callers see it.
#include "core/backward_run.h"
#include "rnncore/stack.h"

namespace rnncore {
namespace {

template <class T>
void backward_as(const PackedStack& packed, Tape::Content& tape, const BackwardCall& call,
                 bool& overwritten) {
  BackwardRun<T> run(packed, tape, call, call.forward.num_threads);
  packed.content().need_backward(call.forward.num_threads);
  Lease lease(run.members());
  run.fit(lease.size());
  overwritten = !call.retain;
  if (call.overwrite) run.clear_gradients();
  if (!run.run(lease)) throw Interrupted();
  run.write_states();
  run.add_gradients(lease);
}

// The tape is this pass's own until the end, unless nothing was written to it yet.
struct Claim {
  Tape::Content& tape;
  const bool retain;
  bool overwritten = false;

  Claim(Tape::Content& of, bool kept) : tape(of), retain(kept) { tape.claim(retain); }
  ~Claim() { tape.release(retain, overwritten); }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
};

}  // namespace

void backward(const PackedStack& packed, Tape& tape, const BackwardCall& call) {
  Tape::Content& content = tape.content();
  Claim claim(content, call.retain);
  if (!content.spec.same_recurrence(packed.spec())) {
    throw std::runtime_error("tape: it is of another stack");
  }
  if (packed.spec().dtype == Dtype::float32) {
    backward_as<float>(packed, content, call, claim.overwritten);
  } else {
    backward_as<double>(packed, content, call, claim.overwritten);
  }
  if (!call.retain) {
    content.layers.clear();
    content.outputs.clear();
    content.masked.clear();
  }
}

}  // namespace rnncore
