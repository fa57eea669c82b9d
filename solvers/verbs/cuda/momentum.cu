// velocity <- friction velocity + (X - before);  X <- X + friction velocity;  before <- X; all (count,) complex
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
momentum(float2* __restrict__ X, float2* __restrict__ before, float2* __restrict__ velocity, long long count, float friction) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= count) return;
    const float2 now = X[i], v = add(scale(friction, velocity[i]), subtract(now, before[i]));
    velocity[i] = v;
    X[i] = before[i] = add(now, scale(friction, v));
}
