// s <- s - O max(0, Re O* s / |O|^2) where |O| is larger than ``limit``: what makes O longer there is left out; s, O (count,) complex
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
inward(float2* __restrict__ s, const float2* __restrict__ O, long long count, float limit) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= count) return;
    const float2 o = O[i];
    const float power = abs2(o), outward = dot(o, s[i]);
    if (power > limit * limit && outward > 0) s[i] = subtract(s[i], scale(outward / power, o));
}
