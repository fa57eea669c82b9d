// w_j = P_j O_j; w (frame, wave, y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "model.cuh"

extern "C" __global__ void __launch_bounds__(256) exit_waves(float2* __restrict__ w, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p >= model.pixels()) return;
    for (int wave = 0; wave < model.waves(); ++wave) w[model.index(j, wave, p)] = model.wave(j, wave, p);
}
