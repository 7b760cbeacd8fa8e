# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
"""Short frozen calls: the way into the engine for arrays that need no conversion.

What a call costs apart from its arithmetic shows when it is one step of a small cell. Here arrays
that are plainly what the engine takes are handed to it as they are; anything else, and anything
that may run long enough for a signal to matter, is left to the caller's general way, which also
says what is wrong.
"""

include "common.pxi"

from rnncore.cyapi cimport rnncore_sequences

cdef int64_t LONG = 1 << 28  # as WORTH_RELEASING: a few ms


@cython.final
cdef class ShortCalls:
    """Run short sequences whose arrays need no conversion.

    Parameters
    ----------
    packed : rnncore._rnncore.Packed
        Weights.
    batch_first : bool
        Whether x is ``(N, T, D)``.
    """

    cdef rnncore_sizes sizes
    cdef const void* weights
    cdef int64_t places_at_most  # steps times rows of what is short
    cdef object packed
    cdef object dtype
    cdef PyObject* descr
    cdef bint batch_first

    def __cinit__(self, packed, bint batch_first):
        self.packed = packed
        capsule = packed._capsule
        self.weights = PyCapsule_GetPointer(capsule, RNNCORE_PACKED_CAPSULE)
        table.packed_sizes(self.weights, &self.sizes)
        self.places_at_most = LONG // self.sizes.nbytes
        self.dtype = np.dtype("float32" if self.sizes.item_size == 4 else "float64")
        self.descr = <PyObject*>self.dtype
        self.batch_first = batch_first

    def run(self, x, state, out):
        """Return (y, state), or None for what needs the general way."""
        cdef rnncore_sequences call
        cdef rnncore_array* array = <rnncore_array*>x
        cdef int64_t features = self.sizes.num_directions * self.sizes.output_size
        cdef int64_t rows = self.sizes.num_layers * self.sizes.num_directions
        cdef int64_t item = self.sizes.item_size
        cdef int time_axis = 1 if self.batch_first else 0
        cdef bint carries_c = self.sizes.carries_c
        if not self._plain(x) or array.nd != 3:
            return None
        if array.dimensions[2] != self.sizes.input_size or not self._in_rows(array):
            return None
        call.lengths = NULL
        call.steps = array.dimensions[time_axis]
        call.batch = array.dimensions[1 - time_axis]
        # Strides of zero make arrays of any size: the product may be more than an integer holds.
        if call.steps == 0 or call.batch == 0 or call.batch > self.places_at_most // call.steps:
            return None
        call.x = array.data
        call.x_time_stride = array.strides[time_axis] // item
        call.x_row_stride = array.strides[1 - time_axis] // item
        call.h0 = NULL
        call.c0 = NULL
        if state is not None:
            h = state
            if carries_c:
                if type(state) is not tuple or len(state) != 2:
                    return None
                h, c = state
                if not self._is_state(c, rows, call.batch, self.sizes.hidden_size):
                    return None
                call.c0 = (<rnncore_array*>c).data
            if not self._is_state(h, rows, call.batch, self.sizes.output_size):
                return None
            call.h0 = (<rnncore_array*>h).data
        y = out
        if out is None:
            if self.batch_first:
                y = empty((call.batch, call.steps, features), self.dtype)
            else:
                y = empty((call.steps, call.batch, features), self.dtype)
        elif not self._takes_y(out, array, &call, features):
            return None
        call.y = (<rnncore_array*>y).data
        call.y_time_stride = call.batch * features
        call.y_row_stride = features
        if self.batch_first:
            call.y_time_stride, call.y_row_stride = features, call.steps * features
        hn = empty((rows, call.batch, self.sizes.output_size), self.dtype)
        call.hn = (<rnncore_array*>hn).data
        call.cn = NULL
        cn = None
        if carries_c:
            cn = empty((rows, call.batch, self.sizes.hidden_size), self.dtype)
            call.cn = (<rnncore_array*>cn).data
        call.num_threads = get_num_threads()
        cdef int failed
        if call.steps * call.batch * self.sizes.nbytes < WORTH_RELEASING:
            failed = table.forward(self.weights, &call)
        else:
            with nogil:
                failed = table.forward(self.weights, &call)
        if failed:
            raise MemoryError("no memory for a call")
        return y, ((hn, cn) if carries_c else hn)

    cdef bint _takes_y(
        self, object out, rnncore_array* x, rnncore_sequences* call, int64_t features
    ) noexcept:
        """Tell whether y may be written into `out`: contiguous, in memory apart from all inputs."""
        if not self._plain(out):
            return False
        cdef rnncore_array* array = <rnncore_array*>out
        cdef int flags = RNNCORE_CONTIGUOUS | RNNCORE_WRITEABLE
        if array.nd != 3 or array.flags & flags != flags or array.dimensions[2] != features:
            return False
        if array.dimensions[0] != x.dimensions[0] or array.dimensions[1] != x.dimensions[1]:
            return False
        cdef int64_t item = self.sizes.item_size, places = call.steps * call.batch
        cdef int64_t rows = self.sizes.num_layers * self.sizes.num_directions * call.batch * item
        cdef char* begin = array.data
        cdef char* end = begin + places * features * item
        cdef char* x_begin = x.data
        cdef char* x_end = x.data + self.sizes.input_size * item
        cdef int axis
        for axis in range(2):
            if x.strides[axis] < 0:
                x_begin += (x.dimensions[axis] - 1) * x.strides[axis]
            else:
                x_end += (x.dimensions[axis] - 1) * x.strides[axis]
        if begin < x_end and x_begin < end:
            return False
        cdef char* h0 = <char*>call.h0
        cdef char* c0 = <char*>call.c0
        if h0 != NULL and begin < h0 + rows * self.sizes.output_size and h0 < end:
            return False
        return c0 == NULL or begin >= c0 + rows * self.sizes.hidden_size or c0 >= end

    cdef bint _plain(self, object value) noexcept:
        """Tell whether a value is an aligned array of the engine's dtype."""
        if <PyObject*>Py_TYPE(value) != <PyObject*>ndarray:
            return False
        cdef rnncore_array* array = <rnncore_array*>value
        return array.descr == self.descr and array.flags & RNNCORE_ALIGNED

    cdef bint _in_rows(self, rnncore_array* array) noexcept:
        """Tell whether features lie side by side, and all strides are whole values."""
        cdef Py_ssize_t item = self.sizes.item_size
        if array.dimensions[2] > 1 and array.strides[2] != item:
            return False
        return array.strides[0] % item == 0 and array.strides[1] % item == 0

    cdef bint _is_state(self, object value, int64_t rows, int64_t batch, int64_t units) noexcept:
        """Tell whether a value is a contiguous state."""
        if not self._plain(value):
            return False
        cdef rnncore_array* array = <rnncore_array*>value
        return (
            array.nd == 3
            and array.dimensions[0] == rows
            and array.dimensions[1] == batch
            and array.dimensions[2] == units
            and array.flags & RNNCORE_CONTIGUOUS
        )
