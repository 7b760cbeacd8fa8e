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
