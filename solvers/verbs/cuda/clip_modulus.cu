// X <- X min(1, largest / |X|); X (count,) complex
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) clip_modulus(float2* __restrict__ X, long long count, float largest) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= count) return;
    const float intensity = abs2(X[i]);
    if (intensity > largest * largest) X[i] = scale(largest / sqrtf(intensity), X[i]);
}
