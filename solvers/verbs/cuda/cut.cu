// patches[j, k, q] = O_q at the corner of frame j, sub-step k; patches (frame, substep, object mode, y, x).
// A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
cut(float2* __restrict__ patches, const float2* __restrict__ O, int object_modes, int rows, int columns, const int* __restrict__ frames,
    const int2* __restrict__ corners, int substeps, int frame_rows, int frame_columns) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    for (int k = 0; k < substeps; ++k) {
        const int2 corner = corners[(long long)frames[j] * substeps + k];
        const long long at = (long long)(corner.x + p / frame_columns) * columns + corner.y + p % frame_columns;
        for (int q = 0; q < object_modes; ++q)
            patches[(((long long)j * substeps + k) * object_modes + q) * n + p] = O[(long long)q * rows * columns + at];
    }
}
