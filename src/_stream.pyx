# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
"""One step a call: the low-latency way into the engine.

An array's address, shape and strides are read from NumPy's own struct, so that a step costs its
arithmetic and one call: no buffer request, no memoryview, no allocation when ``out`` is given.
"""

include "common.pxi"

from rnncore.cyapi cimport rnncore_stream

from rnncore.checks import any_array, array as checked_array, overlap, step_rows


cdef extern from *:
    """
    static inline int rnncore_take(int* flag) {
      return !__atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE);
    }
    static inline void rnncore_give(int* flag) { __atomic_store_n(flag, 0, __ATOMIC_RELEASE); }
    """
    bint rnncore_take(int* flag) nogil
    void rnncore_give(int* flag) nogil


cdef struct Rows:
    char* data
    int64_t row_stride


@cython.final
cdef class Stream:
    """Run a recurrent stack a step a call, keeping its state inside.

    Parameters
    ----------
    packed : rnncore._rnncore.Packed
        Weights of a stack in one direction.
    batch : int
        Rows of every step.
    h0, c0 : ndarray, optional
        Initial state, ``(L, batch, P)`` and, for an LSTM, ``(L, batch, H)``; zero by default.

    Raises
    ------
    ValueError
        If the stack has two directions or `batch` is below 1.
    """

    cdef rnncore_stream* stream
    cdef rnncore_sizes sizes
    cdef int64_t batch_rows
    cdef int busy
    cdef object packed
    cdef object dtype
    cdef PyObject* descr

    def __cinit__(self, packed, batch, h0=None, c0=None):
        self.stream = NULL
        self.packed = packed
        if isinstance(batch, bool) or not hasattr(type(batch), "__index__"):
            raise TypeError(f"batch: expected an int, got {type(batch).__name__}")
        if batch < 1:
            raise ValueError(f"batch: expected 1 or more, got {batch}")
        cdef object capsule = packed._capsule
        cdef const void* weights = PyCapsule_GetPointer(capsule, RNNCORE_PACKED_CAPSULE)
        table.packed_sizes(weights, &self.sizes)
        if self.sizes.num_directions != 1:
            raise ValueError("stream: a bidirectional layer cannot run a step at a time")
        self.batch_rows = batch
        self.dtype = np.dtype("float32" if self.sizes.item_size == 4 else "float64")
        self.descr = <PyObject*>self.dtype
        self.stream = table.stream_create(weights, batch, get_num_threads())
        if self.stream == NULL:
            raise MemoryError(f"stream: no memory for {batch} rows")
        if h0 is not None or c0 is not None:
            self._set_state(h0, c0)

    def __dealloc__(self):
        if self.stream != NULL:
            table.stream_destroy(self.stream)

    def step(self, x_t, out=None):
        """Run one step.

        Parameters
        ----------
        x_t : array
            ``(batch, D)``, or ``(D,)`` where the batch is 1; read, not kept. Anything with DLPack
            is taken; rows that are not whole are copied.
        out : ndarray, optional
            Where to write y: ``(batch, P)`` or ``(P,)`` as `x_t`, writable, apart from `x_t`.

        Returns
        -------
        ndarray
            y of this step; `out` itself if it was given.

        Raises
        ------
        TypeError
            If an array is not a NumPy array of the layer's dtype.
        ValueError
            If a shape is wrong, or `out` is read-only or overlaps `x_t`.
        RuntimeError
            If another thread is stepping this stream.
        """
        source = x_t
        if not self._whole_rows(x_t):
            x_t = step_rows("x_t", x_t, self.dtype)
        cdef Rows x = self._rows("x_t", x_t, self.sizes.input_size, False)
        cdef bint flat = (<rnncore_array*>x_t).nd == 1
        if out is None:
            if flat:
                out = empty(self.sizes.output_size, self.dtype)
            else:
                out = empty((self.batch_rows, self.sizes.output_size), self.dtype)
        cdef Rows y = self._rows("out", out, self.sizes.output_size, True)
        if ((<rnncore_array*>out).nd == 1) != flat:
            raise ValueError(f"out: expected as many axes as x_t, got shape {out.shape}")
        if self._meet(x, y) and overlap(x_t, out):
            raise ValueError("out: overlaps x_t in memory")
        if source is not x_t and overlap(any_array("x_t", source), out):  # which was copied
            raise ValueError("out: overlaps x_t in memory")
        self._take()
        cdef int failed
        if self.sizes.nbytes * self.batch_rows < WORTH_RELEASING:
            failed = table.stream_step(self.stream, x.data, x.row_stride, y.data, y.row_stride)
        else:
            with nogil:
                failed = table.stream_step(self.stream, x.data, x.row_stride, y.data, y.row_stride)
        rnncore_give(&self.busy)
        if failed:
            raise MemoryError("stream: no memory for a step")
        return out

    def reset(self, rows=None):
        """Set the state to zero: of all rows, or of those that `rows` names.

        Parameters
        ----------
        rows : array of bool (batch,) or of int, optional
            Which rows; all by default.
        """
        if rows is None:
            self._take()
            table.stream_reset(self.stream, NULL)
            rnncore_give(&self.busy)
            return
        chosen = np.asarray(rows)
        flags = np.zeros(self.batch_rows, np.uint8)
        if chosen.dtype == np.bool_:
            if chosen.shape != (self.batch_rows,):
                raise ValueError(f"rows: expected ({self.batch_rows},), got {chosen.shape}")
            flags[chosen] = 1
        elif chosen.size == 0:
            return
        elif chosen.dtype.kind in "iu":
            if chosen.min() < -self.batch_rows or chosen.max() >= self.batch_rows:
                raise ValueError(f"rows: expected indices of {self.batch_rows} rows, got {rows}")
            flags[chosen] = 1
        else:
            raise TypeError(f"rows: expected bools or ints, got {chosen.dtype}")
        cdef rnncore_array* array = <rnncore_array*>flags
        self._take()
        table.stream_reset(self.stream, <const unsigned char*>array.data)
        rnncore_give(&self.busy)

    @property
    def batch(self):
        """Rows of every step."""
        return self.batch_rows

    @property
    def state(self):
        """A copy of the state: h ``(L, batch, P)``, or for an LSTM the pair (h, c)."""
        h = np.empty((self.sizes.num_layers, self.batch_rows, self.sizes.output_size), self.dtype)
        c = None
        cdef void* c_data = NULL
        if self.sizes.carries_c:
            shape = (self.sizes.num_layers, self.batch_rows, self.sizes.hidden_size)
            c = np.empty(shape, self.dtype)
            c_data = (<rnncore_array*>c).data
        self._take()
        table.stream_get_state(self.stream, (<rnncore_array*>h).data, c_data)
        rnncore_give(&self.busy)
        return h if c is None else (h, c)

    @state.setter
    def state(self, value):
        if not self.sizes.carries_c:
            self._set_state(value, None)
            return
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError("state: expected a pair (h, c)")
        self._set_state(value[0], value[1])

    cdef _take(self):
        """Keep other threads out until `busy` is given back."""
        if not rnncore_take(&self.busy):
            raise RuntimeError("stream: another thread is using it")

    cdef _set_state(self, h, c):
        layers, rows = self.sizes.num_layers, self.batch_rows
        h = self._whole("h", h, (layers, rows, self.sizes.output_size))
        if self.sizes.carries_c:
            c = self._whole("c", c, (layers, rows, self.sizes.hidden_size))
        elif c is not None:
            raise ValueError("c: only an LSTM has a second state")
        cdef void* h_data = NULL if h is None else (<rnncore_array*>h).data
        cdef void* c_data = NULL if c is None else (<rnncore_array*>c).data
        self._take()
        table.stream_set_state(self.stream, h_data, c_data)
        rnncore_give(&self.busy)

    cdef _whole(self, name, value, shape):
        if value is None:
            return None
        value = checked_array(name, value, self.dtype)
        if value.shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {value.shape}")
        return np.ascontiguousarray(value)

    cdef bint _whole_rows(self, object value) noexcept:
        """Tell whether a value is an aligned array whose rows need no copy."""
        if <PyObject*>Py_TYPE(value) != <PyObject*>ndarray:
            return False
        cdef rnncore_array* array = <rnncore_array*>value
        cdef Py_ssize_t item = self.sizes.item_size
        if array.descr != self.descr or not array.flags & RNNCORE_ALIGNED or array.nd < 1:
            return False
        return array.strides[array.nd - 1] == item and array.strides[0] % item == 0

    cdef Rows _rows(self, str name, object value, int64_t size, bint written) except *:
        """Check one step's array and return where its rows are."""
        cdef Rows rows
        cdef rnncore_array* array
        cdef Py_ssize_t item = self.sizes.item_size
        if <PyObject*>Py_TYPE(value) != <PyObject*>ndarray:
            raise TypeError(f"{name}: expected a NumPy array, got {type(value).__name__}")
        array = <rnncore_array*>value
        if array.descr != self.descr and value.dtype != self.dtype:
            raise TypeError(f"{name}: expected {self.dtype}, got {value.dtype}")
        if array.nd == 2:
            rows.row_stride = array.strides[0] // item
        else:
            rows.row_stride = 0
        if not (
            (array.nd == 2 and array.dimensions[0] == self.batch_rows)
            or (array.nd == 1 and self.batch_rows == 1)
        ) or array.dimensions[array.nd - 1] != size:
            raise ValueError(f"{name}: expected ({self.batch_rows}, {size}), got {value.shape}")
        if written and not array.flags & RNNCORE_WRITEABLE:
            raise ValueError(f"{name}: is read-only")
        if (
            (size > 1 and array.strides[array.nd - 1] != item)
            or (array.nd == 2 and self.batch_rows > 1 and array.strides[0] % item)
            or not array.flags & RNNCORE_ALIGNED
        ):
            raise ValueError(f"{name}: expected aligned rows of adjacent values")
        if written and self.batch_rows > 1 and -size < rows.row_stride < size:
            raise ValueError(f"{name}: its rows overlap")
        rows.data = array.data
        return rows

    cdef bint _meet(self, Rows x, Rows y) noexcept:
        """Tell whether the ranges of memory meet that the rows lie in."""
        cdef int64_t item = self.sizes.item_size
        cdef int64_t last_x = (self.batch_rows - 1) * x.row_stride * item
        cdef int64_t last_y = (self.batch_rows - 1) * y.row_stride * item
        cdef char* x_begin = x.data + (last_x if last_x < 0 else 0)
        cdef char* y_begin = y.data + (last_y if last_y < 0 else 0)
        cdef char* x_end = x.data + (last_x if last_x > 0 else 0) + self.sizes.input_size * item
        cdef char* y_end = y.data + (last_y if last_y > 0 else 0) + self.sizes.output_size * item
        return x_begin < y_end and y_begin < x_end
