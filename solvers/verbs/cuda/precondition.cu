// num <- num / ((1 - damping) den + damping max den), in place; num (mode, y, x), den (y, x); partials (256,): the largest numbers of parts of
// den. A thread is a pixel: blocks (pixels / 256, modes).
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
precondition(float2* __restrict__ num, const float* __restrict__ den, const float* __restrict__ partials, long long pixels, float damping) {
    const float largest = fmaxf(block_max(partials[threadIdx.x]), 1.1754944e-38f);
    const long long p = blockIdx.x * 256LL + threadIdx.x;
    if (p >= pixels) return;
    const float below = fmaxf((1.f - damping) * den[p] + damping * largest, 1.1754944e-38f);
    float2* const x = num + blockIdx.y * pixels + p;
    *x = make_float2(x->x / below, x->y / below);
}
