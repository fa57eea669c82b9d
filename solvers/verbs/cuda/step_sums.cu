// partials[block] = (<u, u>, <v, v>, Re <u, v>, Re <u, w>, Re <v, w>) of the block's share, w being factor times what is given;
// w, u, v (count,) complex; partials (block, 5) float64
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
step_sums(double* __restrict__ partials, const float2* __restrict__ w, const float2* __restrict__ u, const float2* __restrict__ v,
          long long count, float factor) {
    double uu = 0, vv = 0, uv = 0, uw = 0, vw = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) {
        const float2 a = u[i], b = v[i], c = scale(factor, w[i]);
        uu += abs2(a), vv += abs2(b), uv += dot(a, b), uw += dot(a, c), vw += dot(b, c);
    }
    uu = block_sum(uu), vv = block_sum(vv), uv = block_sum(uv), uw = block_sum(uw), vw = block_sum(vw);
    if (threadIdx.x == 0) {
        double* const mine = partials + blockIdx.x * 5;
        mine[0] = uu, mine[1] = vv, mine[2] = uv, mine[3] = uw, mine[4] = vw;
    }
}
