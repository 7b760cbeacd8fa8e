#include "core/cuda_member.h"

namespace rnncore {

cuda::CopyStates CudaMember::state_copy(int64_t width, const void* from, void* to) const {
  cuda::CopyStates copy = {};
  copy.rows = sequence_.call().batch;
  copy.units = width;
  copy.order = sequence_.rows().order();
  copy.from = from;
  copy.to = to;
  return copy;
}

void CudaMember::take_state(int64_t width, const void* all, void* to, void* entering) const {
  auto copy = state_copy(width, part_of_state(all, width), to);
  copy.entering = entering;
  if (entering) copy.mask = sequence_.steps_of(which_).entering_mask;
  device_.stride_over(CudaKernel::copy_states, copy.rows * width, copy);
}

void CudaMember::give_state(int64_t width, const void* from, void* all) const {
  auto copy = state_copy(width, from, part_of_state(all, width));
  copy.scatter = 1;
  device_.stride_over(CudaKernel::copy_states, copy.rows * width, copy);
}

CudaProduct CudaMember::product_of(Size size, CudaMatrix a, CudaMatrix b, void* c,
                                   int64_t c_stride) const {
  CudaProduct product = {};
  product.factors = sequence_.stack().type();
  product.result = real_of(product.factors);
  product.m = size.m;
  product.n = size.n;
  product.k = size.k;
  product.a = a.data;
  product.a_stride = a.stride;
  product.b = b.data;
  product.b_stride = b.stride;
  product.c = c;
  product.c_stride = c_stride;
  return product;
}

}  // namespace rnncore
