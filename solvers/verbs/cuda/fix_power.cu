// P <- s P, O <- O / s with s such that sum |P|^2 = power. First partials, then one launch for each of the two arrays.
#include "common.cuh"

// partials[block] = sum of |X|^2 of the block's share; X (count,) complex; 256 blocks
extern "C" __global__ void __launch_bounds__(256) power_of(double* __restrict__ partials, const float2* __restrict__ X, long long count) {
    double sum = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) sum += abs2(X[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// X <- s X, or X / s (divide); partials (256,) of P
extern "C" __global__ void __launch_bounds__(256)
fix_power(float2* __restrict__ X, long long count, const double* __restrict__ partials, double power, int divide) {
    const double there = fmax(block_sum(partials[threadIdx.x]), 1.1754943508222875e-38);
    const float s = (float)(divide ? sqrt(there / power) : sqrt(power / there));
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < count) X[i] = scale(s, X[i]);
}
