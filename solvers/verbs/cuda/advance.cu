// psi_j <- wave psi_j + data w_j + overlap P_j O_j, in place; psi, w (frame, wave, y, x), which may be the same memory.
// A thread is a pixel of a frame: blocks (pixels / 256, frames). What has the factor 0 is not read: it may be anything.
#include "model.cuh"
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256)
advance(Psi* psi, const float2* w, float factor, float data, float overlap, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p >= model.pixels()) return;
    const auto step = [&](int wave, float2 value) {
        const long long i = model.index(j, wave, p);
        float2 sum = factor != 0 ? scale(factor, wide(psi[i])) : make_float2(0.f, 0.f);
        if (data != 0) sum = add(sum, scale(data, w[i]));
        psi[i] = narrow(overlap != 0 ? add(sum, scale(overlap, value)) : sum);
    };
    if (overlap != 0) model.over_waves(j, p, step);
    else
        for (int wave = 0; wave < model.waves(); ++wave) step(wave, make_float2(0.f, 0.f));
}
