// partials[block] = (Re <z, g>, Re <z, before>, Re <g, s>) of the block's share; z, g, before, s (count,) complex; partials (block, 3)
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
products(double* __restrict__ partials, const float2* __restrict__ z, const float2* __restrict__ g, const float2* __restrict__ before,
         const float2* __restrict__ s, long long count) {
    double steep = 0, across = 0, along = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const float2 a = z[i], b = g[i];
        steep += dot(a, b), across += dot(a, before[i]), along += dot(b, s[i]);
    }
    steep = block_sum(steep), across = block_sum(across), along = block_sum(along);
    if (threadIdx.x == 0) {
        double* const mine = partials + blockIdx.x * 3;
        mine[0] = steep, mine[1] = across, mine[2] = along;
    }
}
