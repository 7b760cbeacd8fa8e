// Streams: a prepared forward pass of one step, run again and again.
#include "rnncore/stream.h"

#include <optional>

#include "core/forward_run.h"

namespace rnncore {

struct Stream::Content {
  const PackedStack& packed;
  ForwardCall shape;
  std::optional<ForwardRun<float>> single;
  std::optional<ForwardRun<double>> twice;
};

namespace {

// A step may find the team taken: what it needs to go on alone is there beforehand.
template <class T>
void prepare(ForwardRun<T>& run, const ForwardCall& shape) {
  run.bind(shape);
  run.prepare_alone();
}

template <class T>
void step_run(ForwardRun<T>& run, const void* x, int64_t x_row_stride, void* y,
              int64_t y_row_stride) {
  run.point_at(static_cast<const T*>(x), x_row_stride, static_cast<T*>(y), y_row_stride);
  Lease lease(run.wanted());
  run.fit(lease.size());
  run.run(lease, Interrupt());
  run.carry_states();
}

}  // namespace

Stream::Stream(const PackedStack& packed, int64_t batch, int num_threads)
    : content_(new Content{packed, {}, {}, {}}) {
  Content& c = *content_;
  c.shape.steps = 1;
  c.shape.batch = batch;
  if (spec().dtype == Dtype::float32) {
    prepare(c.single.emplace(packed, c.shape, nullptr, num_threads), c.shape);
  } else {
    prepare(c.twice.emplace(packed, c.shape, nullptr, num_threads), c.shape);
  }
}

Stream::~Stream() = default;
const StackSpec& Stream::spec() const { return content_->packed.spec(); }
int64_t Stream::batch() const { return content_->shape.batch; }

void Stream::step(const void* x, int64_t x_row_stride, void* y, int64_t y_row_stride) {
  Content& c = *content_;
  if (c.single) {
    step_run(*c.single, x, x_row_stride, y, y_row_stride);
  } else {
    step_run(*c.twice, x, x_row_stride, y, y_row_stride);
  }
}

void Stream::reset(const unsigned char* rows) {
  Content& c = *content_;
  c.single ? c.single->clear_states(rows) : c.twice->clear_states(rows);
}

void Stream::get_state(void* h, void* cell) const {
  const Content& c = *content_;
  if (c.single) {
    c.single->get_states(static_cast<float*>(h), static_cast<float*>(cell));
  } else {
    c.twice->get_states(static_cast<double*>(h), static_cast<double*>(cell));
  }
}

void Stream::set_state(const void* h, const void* cell) {
  Content& c = *content_;
  if (c.single) {
    c.single->set_states(static_cast<const float*>(h), static_cast<const float*>(cell));
  } else {
    c.twice->set_states(static_cast<const double*>(h), static_cast<const double*>(cell));
  }
}

}  // namespace rnncore
