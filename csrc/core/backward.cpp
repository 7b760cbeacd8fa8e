// The backward pass as callers see it.
#include "core/backward_run.h"
#include "rnncore/stack.h"

namespace rnncore {
namespace {

template <class T>
void backward_as(const PackedStack& packed, Tape::Content& tape, const BackwardCall& call) {
  BackwardRun<T> run(packed, tape, call, call.forward.num_threads);
  packed.content().need_backward(call.forward.num_threads);
  Lease lease(run.members());
  run.fit(lease.size());
  tape.spent = !call.retain;
  if (!run.run(lease)) throw Interrupted();
  run.write_states();
  run.add_gradients(lease);
}

}  // namespace

void backward(const PackedStack& packed, Tape& tape, const BackwardCall& call) {
  Tape::Content& content = tape.content();
  if (content.spent) throw std::runtime_error("tape: it was consumed by an earlier backward");
  if (packed.spec().dtype == Dtype::float32) {
    backward_as<float>(packed, content, call);
  } else {
    backward_as<double>(packed, content, call);
  }
  if (!call.retain) {
    content.layers.clear();
    content.outputs.clear();
    content.masked.clear();
  }
}

}  // namespace rnncore
