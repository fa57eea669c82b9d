// X <- mine X + other Y; X, Y (count,) complex. X is not read where it has the factor 0: it may be anything.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
combine(float2* __restrict__ X, const float2* __restrict__ Y, long long count, float mine, float other) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= count) return;
    const float2 y = scale(other, Y[i]);
    X[i] = mine != 0 ? add(scale(mine, X[i]), y) : y;
}
