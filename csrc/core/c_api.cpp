// The table of C functions: thin over the C++ API, exceptions stop here.
#include "rnncore/c_api.h"

#include <exception>

#include "rnncore/stream.h"
#include "rnncore/threads.h"

namespace {

using rnncore::PackedStack;
using rnncore::Stream;

Stream* of(rnncore_stream* stream) { return reinterpret_cast<Stream*>(stream); }
const Stream* of(const rnncore_stream* stream) { return reinterpret_cast<const Stream*>(stream); }

const char* isa() {
  try {
    return rnncore::isa();
  } catch (const std::exception&) {
    return nullptr;
  }
}

int get_num_threads() {
  try {
    return rnncore::get_num_threads();
  } catch (const std::exception&) {
    return 1;
  }
}

void packed_sizes(const void* packed, rnncore_sizes* sizes) {
  const PackedStack& stack = *static_cast<const PackedStack*>(packed);
  const rnncore::StackSpec& s = stack.spec();
  *sizes = {s.input_size, s.hidden_size, s.num_layers,  s.num_directions,
            s.outputs(),  s.item_size(), s.carries_c(), stack.nbytes()};
}

rnncore_stream* stream_create(const void* packed, int64_t batch, int num_threads) {
  try {
    const PackedStack& stack = *static_cast<const PackedStack*>(packed);
    if (stack.spec().num_directions != 1 || batch < 1) return nullptr;
    return reinterpret_cast<rnncore_stream*>(new Stream(stack, batch, num_threads));
  } catch (const std::exception&) {
    return nullptr;
  }
}

void stream_destroy(rnncore_stream* stream) { delete of(stream); }

int stream_step(rnncore_stream* stream, const void* x, int64_t x_row_stride, void* y,
                int64_t y_row_stride) {
  try {
    of(stream)->step(x, x_row_stride, y, y_row_stride);
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

void stream_reset(rnncore_stream* stream, const unsigned char* rows) { of(stream)->reset(rows); }
void stream_get_state(const rnncore_stream* stream, void* h, void* c) {
  of(stream)->get_state(h, c);
}
void stream_set_state(rnncore_stream* stream, const void* h, const void* c) {
  of(stream)->set_state(h, c);
}

int forward(const void* packed, const rnncore_sequences* of) {
  try {
    rnncore::ForwardCall call;
    call.steps = of->steps;
    call.batch = of->batch;
    call.lengths = of->lengths;
    call.x = {of->x, of->x_time_stride, of->x_row_stride};
    call.h0 = of->h0;
    call.c0 = of->c0;
    call.y = {of->y, of->y_time_stride, of->y_row_stride};
    call.hn = of->hn;
    call.cn = of->cn;
    call.num_threads = of->num_threads;
    rnncore::forward(*static_cast<const PackedStack*>(packed), call, nullptr);
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

constexpr rnncore_c_api kTable = {
    RNNCORE_C_API_VERSION, isa,
    get_num_threads,       rnncore::set_num_threads,
    packed_sizes,          stream_create,
    stream_destroy,        stream_step,
    stream_reset,          stream_get_state,
    stream_set_state,      forward,
};

}  // namespace

extern "C" const rnncore_c_api* rnncore_get_c_api(void) { return &kTable; }
