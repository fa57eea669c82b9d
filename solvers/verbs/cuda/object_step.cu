// O += step change / ((1 - damping) S + damping max S), in place; O, change (object mode, y, x), S (y, x); partials (256,): the largest numbers
// of parts of S. A thread is a pixel: blocks (pixels / 256, object modes).
#include "model.cuh"

extern "C" __global__ void __launch_bounds__(256)
object_step(float2* __restrict__ O, const float2* __restrict__ change, const float* __restrict__ S, const float* __restrict__ partials,
            long long pixels, const float* __restrict__ step, float damping) {
    const float largest = fmaxf(block_max(partials[threadIdx.x]), 1.1754944e-38f);
    const long long p = blockIdx.x * 256LL + threadIdx.x;
    if (p >= pixels) return;
    const float weight = *step / fmaxf((1.f - damping) * S[p] + damping * largest, 1.1754944e-38f);
    float2* const o = O + blockIdx.y * pixels + p;
    *o = add(*o, scale(weight, change[blockIdx.y * pixels + p]));
}

// Of one frame without sub-steps: O_q[corner + p] += step factor sum_m conj(P_m) w_mq / ((1 - damping) S + damping max S), S = sum_m |P_m|^2 on
// the patch; partials (256,): the largest numbers of parts of S, by patch_light. w (1, wave, y, x). A thread is a pixel of the frame.
extern "C" __global__ void __launch_bounds__(256)
patch_step(float2* __restrict__ changed, const float2* __restrict__ w, const float* __restrict__ partials,
           const float* __restrict__ step, float factor, float damping, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const float largest = fmaxf(block_max(partials[threadIdx.x]), 1.1754944e-38f);
    const int p = blockIdx.x * 256 + threadIdx.x;
    if (p >= model.pixels()) return;
    float light = 0;
    for (int m = 0; m < probe_modes; ++m) light += abs2(model.probe(0, m, 0, p));
    const float weight = factor * *step / fmaxf((1.f - damping) * light + damping * largest, 1.1754944e-38f);
    const long long at = model.place(0, 0, p);
    for (int q = 0; q < object_modes; ++q) {
        float2 onto = make_float2(0.f, 0.f);
        for (int m = 0; m < probe_modes; ++m)
            onto = add(onto, conjugate_multiply(model.probe(0, m, 0, p), w[model.index(0, m * object_modes + q, p)]));
        float2* const o = changed + (long long)q * rows * columns + at;
        *o = add(*o, scale(weight, onto));
    }
}

// partials[block] = the largest sum_m |P_m|^2 of the block's share of the pixels, of the first frame of the batch; 256 blocks
extern "C" __global__ void __launch_bounds__(256)
patch_light(float* __restrict__ partials, const float2* __restrict__ P, long long p_mode, int probe_modes, int pixels) {
    float found = 0;
    for (int p = blockIdx.x * 256 + threadIdx.x; p < pixels; p += gridDim.x * 256) {
        float light = 0;
        for (int m = 0; m < probe_modes; ++m) light += abs2(P[m * p_mode + p]);
        found = fmaxf(found, light);
    }
    found = block_max(found);
    if (threadIdx.x == 0) partials[blockIdx.x] = found;
}
