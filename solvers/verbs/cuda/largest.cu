// partials[block] = the largest of the block's share of X (count,); 0 where it has none
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) largest(float* __restrict__ partials, const float* __restrict__ X, long long count) {
    float found = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) found = fmaxf(found, X[i]);
    found = block_max(found);
    if (threadIdx.x == 0) partials[blockIdx.x] = found;
}
