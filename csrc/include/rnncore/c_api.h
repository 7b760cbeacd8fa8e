/* The engine's functions for C, Cython and other languages, as one table.
 *
 * Python holds it as the capsule "rnncore._rnncore._C_API" (PyCapsule_Import). Later versions only
 * append to the table: check `version` against the one compiled with. Functions neither throw nor
 * touch Python; those that allocate return NULL or nonzero when memory runs out. */
#ifndef RNNCORE_C_API_H
#define RNNCORE_C_API_H

#include <stdint.h>

#define RNNCORE_C_API_VERSION 2
#define RNNCORE_C_API_CAPSULE "rnncore._rnncore._C_API"
#define RNNCORE_PACKED_CAPSULE "rnncore.PackedStack" /* Packed._capsule: a `packed` below */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rnncore_stream rnncore_stream;

typedef struct rnncore_sizes {
  int64_t input_size, hidden_size, num_layers, num_directions, output_size;
  int64_t item_size; /* 4: float, 8: double */
  int64_t carries_c; /* an LSTM's second state */
  int64_t nbytes;    /* of the packed weights */
} rnncore_sizes;

/* Whole sequences, as rnncore::ForwardCall; strides in values, null pointers for what is absent. */
typedef struct rnncore_sequences {
  int64_t steps, batch;
  const int64_t* lengths; /* (batch,), each 0 to steps; null: all of them */
  const void* x;          /* (steps, batch, input_size) */
  int64_t x_time_stride, x_row_stride;
  const void *h0, *c0; /* (layers * directions, batch, output_size or hidden_size) contiguous */
  void* y;             /* (steps, batch, directions * output_size) */
  int64_t y_time_stride, y_row_stride;
  void *hn, *cn;
  int num_threads;
} rnncore_sequences;

typedef struct rnncore_c_api {
  int version;
  const char* (*isa)(void); /* NULL where RNNCORE_ISA names none */
  int (*get_num_threads)(void);
  void (*set_num_threads)(int n);
  void (*packed_sizes)(const void* packed, rnncore_sizes* sizes);
  /* The packed weights must outlive the stream. */
  rnncore_stream* (*stream_create)(const void* packed, int64_t batch, int num_threads);
  void (*stream_destroy)(rnncore_stream* stream);
  /* x (batch, input_size), y (batch, output_size); strides between rows in values. 0: done. */
  int (*stream_step)(rnncore_stream* stream, const void* x, int64_t x_row_stride, void* y,
                     int64_t y_row_stride);
  void (*stream_reset)(rnncore_stream* stream, const unsigned char* rows);
  void (*stream_get_state)(const rnncore_stream* stream, void* h, void* c);
  void (*stream_set_state)(rnncore_stream* stream, const void* h, const void* c);
  /* Since version 2. 0: done. */
  int (*forward)(const void* packed, const rnncore_sequences* call);
} rnncore_c_api;

/* For programs that link the engine instead of importing it. */
const rnncore_c_api* rnncore_get_c_api(void);

#ifdef __cplusplus
}
#endif

#endif
