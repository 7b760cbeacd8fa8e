// Every cell: its name, its equations, its default candidate activation, and whether it is compiled
// a second time without options. That one costs compile time and is a little faster.
#pragma once

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"

#define RNNCORE_CELLS(X)                       \
  X(rnn_tanh, RnnCell, Tanh, true)             \
  X(rnn_relu, RnnCell, Relu, true)             \
  X(lstm, LstmCell<false>, Tanh, true)         \
  X(lstm_coupled, LstmCell<true>, Tanh, false) \
  X(gru, GruCell, Tanh, true)                  \
  X(gru_reset_before, ResetBeforeGruCell, Tanh, false)
