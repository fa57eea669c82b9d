// spectra[j, n] <- factor spectra[j, n] exp(-2 pi i (shift_y f_y + shift_x f_x)): between the transforms of waves that are moved by
// shifts[j, n] (frame, wave, yx) px. spectra (frame, wave, y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "ramp.cuh"

extern "C" __global__ void __launch_bounds__(256)
move_waves(float2* __restrict__ spectra, const float2* __restrict__ shifts, int waves, int frame_rows, int frame_columns, float factor) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    for (int wave = 0; wave < waves; ++wave) {
        const long long layer = (long long)j * waves + wave, i = layer * n + p;
        spectra[i] = multiply(scale(factor, ramp(shifts[layer], p, frame_rows, frame_columns)), spectra[i]);
    }
}
