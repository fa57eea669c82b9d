// X <- (num + i X) / (den + i), i = inertia max(den), in place. X (mode, rows, columns), which may be a view: strides in elements; num like it
// and den (rows, columns) contiguous; partials (256,): the largest numbers of parts of den.
// A thread is a pixel: blocks (pixels / 256, modes).
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
quotient(float2* __restrict__ X, int modes, int rows, int columns, long long mode_stride, long long row_stride,
         const float2* __restrict__ num, const float* __restrict__ den, const float* __restrict__ partials, float inertia) {
    const float floor = inertia * block_max(partials[threadIdx.x]);
    const long long n = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x;
    if (p >= n) return;
    float2* const x = X + blockIdx.y * mode_stride + p / columns * row_stride + p % columns;
    const float2 sum = add(scale(floor, *x), num[blockIdx.y * n + p]);
    const float below = fmaxf(den[p] + floor, 1.1754944e-38f);
    *x = make_float2(sum.x / below, sum.y / below);
}
