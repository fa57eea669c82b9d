// X <- factor X; X (count,) complex
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) rescale(float2* __restrict__ X, long long count, float factor) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < count) X[i] = scale(factor, X[i]);
}
