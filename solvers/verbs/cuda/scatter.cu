// num[q, corner_jk + p] += factor weights_j K^-1/2 sum_m conj(P_jmk) psi_jmqk,   den[corner_jk + p] += 1/K sum_m |P_jmk|^2
// What object_sums does, by atomic additions: psi is read once, but the order of the terms, and so the rounding, is another one each time.
// K sub-steps; psi (frame, wave, y, x); num (object mode, rows, columns); den (rows, columns); weights (frame of the batch,) or null: 1.
// num may be null (then psi too); den may be null. P as in model.cuh. A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256)
scatter(float2* __restrict__ num, float* __restrict__ den, const Psi* __restrict__ psi, float factor, const float2* __restrict__ weights,
        int object_modes, int rows, int columns, const float2* __restrict__ P, long long p_frame, long long p_mode, long long p_step,
        int probe_modes, const int* __restrict__ frames, const int2* __restrict__ corners, int substeps, int frame_rows,
        int frame_columns) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    const float share = 1.f / (float)substeps;
    for (int k = 0; k < substeps; ++k) {
        const int2 corner = corners[(long long)frames[j] * substeps + k];
        const long long at = (long long)(corner.x + p / frame_columns) * columns + corner.y + p % frame_columns;
        float light = 0;
        for (int m = 0; m < probe_modes; ++m) light += abs2(P[j * p_frame + m * p_mode + k * p_step + p]);
        if (den) atomicAdd(den + at, share * light);
        if (!num) continue;
        for (int q = 0; q < object_modes; ++q) {
            float2 onto = make_float2(0.f, 0.f);
            for (int m = 0; m < probe_modes; ++m) {
                const long long wave = (((long long)j * probe_modes + m) * object_modes + q) * substeps + k;
                onto = add(onto, conjugate_multiply(P[j * p_frame + m * p_mode + k * p_step + p], wide(psi[wave * n + p])));
            }
            onto = scale(factor * sqrtf(share), weights ? multiply(weights[j], onto) : onto);
            float2* const there = num + (long long)q * rows * columns + at;
            atomicAdd(&there->x, onto.x);
            atomicAdd(&there->y, onto.y);
        }
    }
}
