// The table of cells, read off their equations' headers: no equation is compiled here.
#include <cstring>

#include "rnncore/types.h"

#define RNNCORE_ISA cell_table
namespace rnncore {
namespace RNNCORE_ISA {
template <class Real>
Real constant(double x);
}  // namespace RNNCORE_ISA
}  // namespace rnncore
#include "cells/list.h"

namespace rnncore {
namespace {

template <class C>
constexpr CellShape shape_of(const char* name, cell_table::ActivationKind candidate, bool plain) {
  return {name,
          C::kParameterGates,
          C::kSlots,
          C::kInputGates,
          C::kInputSlot,
          &C::kInputOrder[0],
          C::kRecurrentGates,
          C::kRecurrentSlot,
          C::kFirstGates,
          &C::kRecurrentOrder[0],
          static_cast<int>(candidate),
          C::kCarriesC,
          C::kReadsH,
          plain};
}

using namespace cell_table;
#define RNNCORE_SHAPE(name, Equations, Candidate, has_plain) \
  shape_of<Equations>(#name, Candidate::kKind, has_plain),
constexpr CellShape kShapes[] = {RNNCORE_CELLS(RNNCORE_SHAPE)};
#undef RNNCORE_SHAPE

// In the order of ActivationKind.
constexpr const char* kActivations[] = {"Affine",   "Elu",        "HardSigmoid",    "LeakyRelu",
                                        "Relu",     "ScaledTanh", "Sigmoid",        "Softplus",
                                        "Softsign", "Tanh",       "ThresholdedRelu"};

}  // namespace

int cell_named(const char* name) {
  int cell = 0;
  for (const CellShape& shape : kShapes) {
    if (std::strcmp(shape.name, name) == 0) return cell;
    ++cell;
  }
  return -1;
}

int num_cells() { return static_cast<int>(sizeof kShapes / sizeof kShapes[0]); }

const CellShape& cell_shape(int cell) { return kShapes[cell]; }

int activation_named(const char* name) {
  int kind = 0;
  for (const char* known : kActivations) {
    if (std::strcmp(known, name) == 0) return kind;
    ++kind;
  }
  return -1;
}

}  // namespace rnncore
