// moved[j, m, k] = factor spectrum[m] exp(-2 pi i (rest_y f_y + rest_x f_x)): the transform of a probe that is moved by the rest of
// frame j, sub-step k; f = frequencies of the FFT, cycles per px. moved (frame, probe mode, substep, y, x); spectrum (probe mode, y, x);
// rests (frame, substep, yx) px by the frame's number. A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "ramp.cuh"

extern "C" __global__ void __launch_bounds__(256)
ramps(float2* __restrict__ moved, const float2* __restrict__ spectrum, const int* __restrict__ frames, const float2* __restrict__ rests,
      int substeps, int probe_modes, int frame_rows, int frame_columns, float factor) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    for (int k = 0; k < substeps; ++k) {
        const float2 turn = scale(factor, ramp(rests[(long long)frames[j] * substeps + k], p, frame_rows, frame_columns));
        for (int m = 0; m < probe_modes; ++m)
            moved[(((long long)j * probe_modes + m) * substeps + k) * n + p] = multiply(turn, spectrum[(long long)m * n + p]);
    }
}
