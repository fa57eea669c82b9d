// partial[g, m] = factor K^-1/2 sum over the frames j of group g, and q, k, of conj(O_jqk) psi_jmqk
// K sub-steps, Q object modes; psi (frame, wave, y, x); partial (group, probe mode, y, x). A group is a stretch of the batch's frames.
// A thread is a pixel of a frame: blocks (pixels / 256, groups).
#include "psi.cuh"

#define PATCH_PARAMETERS                                                                                                       \
    const float2 *__restrict__ O, int object_modes, int rows, int columns, int probe_modes, int count, const int *__restrict__ frames, \
        const int2 *__restrict__ corners, int substeps, int frame_rows, int frame_columns

__device__ __forceinline__ long long place(const int* frames, const int2* corners, int substeps, int columns, int frame_columns, int j,
                                           int k, int p) {
    const int2 corner = corners[(long long)frames[j] * substeps + k];
    return (long long)(corner.x + p / frame_columns) * columns + corner.y + p % frame_columns;
}

extern "C" __global__ void __launch_bounds__(256)
probe_sums(float2* __restrict__ partial, const Psi* __restrict__ psi, float factor, PATCH_PARAMETERS) {
    const int p = blockIdx.x * 256 + threadIdx.x, group = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    const int each = (count + gridDim.y - 1) / gridDim.y, first = group * each, last = min(count, first + each);
    const float share = factor * rsqrtf((float)substeps);
    for (int m = 0; m < probe_modes; ++m) {
        float2 sum = make_float2(0.f, 0.f);
        for (int j = first; j < last; ++j)
            for (int k = 0; k < substeps; ++k) {
                const long long at = place(frames, corners, substeps, columns, frame_columns, j, k, p);
                for (int q = 0; q < object_modes; ++q) {
                    const long long wave = (((long long)j * probe_modes + m) * object_modes + q) * substeps + k;
                    sum = add(sum, conjugate_multiply(O[(long long)q * rows * columns + at], wide(psi[wave * n + p])));
                }
            }
        partial[((long long)group * probe_modes + m) * n + p] = scale(share, sum);
    }
}

// light[g] = 1/K sum over the frames of group g, k and q of |O_jqk|^2
extern "C" __global__ void __launch_bounds__(256) transmissions(float* __restrict__ light, PATCH_PARAMETERS) {
    const int p = blockIdx.x * 256 + threadIdx.x, group = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    const int each = (count + gridDim.y - 1) / gridDim.y, first = group * each, last = min(count, first + each);
    float sum = 0;
    for (int j = first; j < last; ++j)
        for (int k = 0; k < substeps; ++k) {
            const long long at = place(frames, corners, substeps, columns, frame_columns, j, k, p);
            for (int q = 0; q < object_modes; ++q) sum += abs2(O[(long long)q * rows * columns + at]);
        }
    light[(long long)group * n + p] = sum / (float)substeps;
}

// onto[j, m, k] = factor K^-1/2 sum_q conj(O_jqk) psi_jmqk (frame, probe mode, substep, y, x): blocks (pixels / 256, frames)
// 4 blocks on a multiprocessor leave 64 registers to a thread: left to itself, the compiler takes half of them and spills.
extern "C" __global__ void __launch_bounds__(256, 4)
onto_probe(float2* __restrict__ onto, const Psi* __restrict__ psi, float factor, PATCH_PARAMETERS) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    const float share = factor * rsqrtf((float)substeps);
    for (int k = 0; k < substeps; ++k) {
        const long long at = place(frames, corners, substeps, columns, frame_columns, j, k, p);
        for (int m = 0; m < probe_modes; ++m) {
            float2 sum = make_float2(0.f, 0.f);
            for (int q = 0; q < object_modes; ++q) {
                const long long wave = (((long long)j * probe_modes + m) * object_modes + q) * substeps + k;
                sum = add(sum, conjugate_multiply(O[(long long)q * rows * columns + at], wide(psi[wave * n + p])));
            }
            onto[(((long long)j * probe_modes + m) * substeps + k) * n + p] = scale(share, sum);
        }
    }
}
