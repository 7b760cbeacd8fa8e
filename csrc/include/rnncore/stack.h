// The C++ API: pack a stack's weights, run it over whole sequences, and go back through time.
//
// Nothing here owns a caller's array. Weights are packed once (PackedStack) and any number of
// calls, from any number of threads, may use them. forward() throws Interrupted when its interrupt
// asks to stop, std::bad_alloc when memory runs out, and never leaves a thread behind.
#pragma once

#include <memory>
#include <stdexcept>
#include <vector>

#include "rnncore/types.h"

namespace rnncore {

struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("the call was interrupted") {}
};

// A stack's weights in the layout that the kernels of one instruction set read.
class PackedStack {
 public:
  // `weights` is layer-major, forward direction first; the arrays must outlive this object and hold
  // the same values when backward() runs.
  PackedStack(const StackSpec& spec, std::vector<LayerWeights> weights, int num_threads);
  ~PackedStack();
  PackedStack(const PackedStack&) = delete;
  PackedStack& operator=(const PackedStack&) = delete;

  const StackSpec& spec() const;
  int64_t nbytes() const;

  struct Content;
  Content& content() const { return *content_; }

 private:
  std::unique_ptr<Content> content_;
};

// Memory that a caller may put a tape into, from the store that keeps freed blocks.
class TapeMemory {
 public:
  explicit TapeMemory(int64_t bytes);
  ~TapeMemory();
  TapeMemory(const TapeMemory&) = delete;
  TapeMemory& operator=(const TapeMemory&) = delete;

  void* data() const;

  struct Content;

 private:
  std::unique_ptr<Content> content_;
};

// What a forward pass keeps for backward: gates, c, inner layers' outputs, the order of rows.
class Tape {
 public:
  Tape();
  // In memory of the caller's, 64-byte aligned, that outlives this object; see tape_width().
  Tape(void* memory, int64_t bytes);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  int64_t nbytes() const;
  bool spent() const;

  struct Content;
  Content& content() const { return *content_; }

 private:
  std::unique_ptr<Content> content_;
};

// What a call drops or keeps at random. Each list is empty, or has an entry for each layer, or for
// each layer and direction, whose data may be null. Times are the caller's in both directions.
struct Masks {
  std::vector<Sequence> inputs;        // L: (T, N, F), what multiplies a layer's input
  std::vector<const void*> recurrent;  // L*K: (N, P), what multiplies h[t-1] before U
  // L*K: (T, N, P) and (T, N, H), contiguous; where not 0, the old h or c is kept
  std::vector<const unsigned char*> kept_h, kept_c;
};

struct ForwardCall {
  int64_t steps = 0, batch = 0;
  const int64_t* lengths = nullptr;       // (N,), each 0..T; null: all T
  const unsigned char* resets = nullptr;  // (T, N): where not 0, a segment starts from zeros
  Sequence x;                             // (T, N, D)
  const void* h0 = nullptr;               // (L*K, N, P) contiguous; null: zero
  const void* c0 = nullptr;               // (L*K, N, H)
  Masks masks;
  MutableSequence y;   // (T, N, K*P), written in full
  void* hn = nullptr;  // as h0
  void* cn = nullptr;
  bool recompute = false;  // with a tape: keep states alone, and make gates again in backward
  int num_threads = 1;
  Interrupt interrupt;
};

// Who is told of a layer's gradients as soon as they are known, before the call has ended.
struct LayerReport {
  // Called on the calling thread, for the last layer first; true asks the call to stop.
  bool (*finished)(void* context, int64_t layer) = nullptr;
  void* context = nullptr;
  // L*K: where, just before, the layer's gradients so far plus this call's part of them are
  // written. Not those of vectors that belong to options, which are null here.
  std::vector<LayerGradients> totals;
};

struct BackwardCall {
  ForwardCall forward;        // as it was; y holds the results
  Sequence dy;                // (T, N, K*P); data null: zero
  const void* dhn = nullptr;  // (L*K, N, P); null: zero
  const void* dcn = nullptr;
  MutableSequence dx;   // (T, N, D), written in full; data null: not wanted
  void* dh0 = nullptr;  // written
  void* dc0 = nullptr;
  std::vector<LayerGradients> gradients;  // added to, once all else is done
  bool overwrite = false;                 // write the gradients instead: their memory may be fresh
  bool retain = false;                    // leave the tape as it is
  LayerReport report;
};

void forward(const PackedStack& packed, const ForwardCall& call, Tape* tape);
void backward(const PackedStack& packed, Tape& tape, const BackwardCall& call);

// Numbers of the stack's dtype that a tape takes of a caller's memory, at most, for each of a
// call's steps * batch places; `masked` says which layers' inputs have a mask (empty: none).
int64_t tape_width(const StackSpec& spec, const std::vector<bool>& masked, bool recompute);

// Finds in a new Tape's memory what forward() left there. `call` is that one; of its arrays only
// lengths, resets and which masks there are count.
void find_again(const PackedStack& packed, const ForwardCall& call, Tape& tape);

}  // namespace rnncore
