// w_j = P_j O_j; w (frame, wave, y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "model.cuh"

// 4 blocks on a multiprocessor leave 64 registers to a thread: left to itself, the compiler takes half of them and spills.
extern "C" __global__ void __launch_bounds__(256, 4) exit_waves(float2* __restrict__ w, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p >= model.pixels()) return;
    model.over_waves(j, p, [&](int wave, float2 value) { w[model.index(j, wave, p)] = value; });
}
