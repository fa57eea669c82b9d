// w_j = overlap P_j O_j + wave psi_j; w, psi (frame, wave, y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
// w and psi may be the same memory. What has the factor 0 is not read.
#include "model.cuh"
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256) reflect(float2* w, const Psi* psi, float overlap, float factor, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p >= model.pixels()) return;
    model.over_waves(j, p, [&](int wave, float2 value) {
        const long long i = model.index(j, wave, p);
        const float2 overlapping = scale(overlap, value);
        w[i] = factor != 0 ? add(overlapping, scale(factor, wide(psi[i]))) : overlapping;
    });
}
