// num[q, corner_jk + p] += factor weights_j K^-1/2 sum_m conj(P_jmk) psi_jmqk,   den[corner_jk + p] += 1/K sum_m |P_jmk|^2
// K sub-steps; psi (frame, wave, y, x); num (object mode, rows, columns); den (rows, columns); weights (frame of the batch,) or null: 1.
// num may be null (then psi too): only the light; den may be null: only the waves. P as in model.cuh.
// A thread is a pixel of the object: blocks (tiles of 32 columns, tiles of 8 rows, object modes), the first tile at (first_row, first_column).
#include "gather.cuh"
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256)
object_sums(float2* __restrict__ num, float* __restrict__ den, const Psi* __restrict__ psi, float factor,
            const float2* __restrict__ weights, int object_modes, int rows, int columns, const float2* __restrict__ P, long long p_frame,
            long long p_mode, long long p_step, int probe_modes, int count, const int* __restrict__ frames,
            const int2* __restrict__ corners, int substeps, int frame_rows, int frame_columns, int first_row, int first_column) {
    const int tile_row = first_row + blockIdx.y * TILE_ROWS, tile_column = first_column + blockIdx.x * TILE_COLUMNS, q = blockIdx.z;
    const int row = tile_row + threadIdx.x / TILE_COLUMNS, column = tile_column + threadIdx.x % TILE_COLUMNS;
    const long long n = (long long)frame_rows * frame_columns;
    float2 sum = make_float2(0.f, 0.f);
    float light = 0;
    over_patches(count, frames, corners, substeps, frame_rows, frame_columns, tile_row, tile_column, row, column,
                 [&](int j, int k, int p) {
                     float2 onto = make_float2(0.f, 0.f);
                     for (int m = 0; m < probe_modes; ++m) {
                         const float2 probe = P[j * p_frame + m * p_mode + k * p_step + p];
                         if (den) light += abs2(probe);
                         if (num) {
                             const long long wave = (((long long)j * probe_modes + m) * object_modes + q) * substeps + k;
                             onto = add(onto, conjugate_multiply(probe, wide(psi[wave * n + p])));
                         }
                     }
                     sum = add(sum, weights ? multiply(weights[j], onto) : onto);
                 });
    if (row >= rows || column >= columns) return;
    const long long at = (long long)row * columns + column;
    const float share = 1.f / (float)substeps;
    if (num) {
        float2* const there = num + (long long)q * rows * columns + at;
        *there = add(*there, scale(factor * sqrtf(share), sum));
    }
    if (den && q == 0) den[at] += share * light;
}
