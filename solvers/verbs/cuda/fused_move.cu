// moved[j, m, k] = inverse FFT along y of spectrum[m] exp(-2 pi i (rest_y f_y + rest_x f_x)), times ``factor``: what fused_finish makes P
// moved by the rest of frame j, sub-step k. moved (frame, probe mode, sub-step, y, x); spectrum (probe mode, y, x): FFT of P; rests (frame,
// sub-step, yx) px by the frame's number. Blocks (tiles of LINES columns, frames, sub-steps). table: see stockham.cuh
#include "ramp.cuh"
#include "stockham.cuh"

typedef Passes<R0, R1, R2, -1, LINES, (LINES < 16)> Columns;

// exp(-2 pi i cycles)
__device__ __forceinline__ float2 turn(float cycles) {
    float sine, cosine;
    sincospif(-2.f * cycles, &sine, &cosine);
    return make_float2(cosine, sine);
}

extern "C" __global__ void AT_ONCE
fused_move(float2* __restrict__ moved, const float2* __restrict__ spectrum, const float2* __restrict__ table, int probe_modes, float factor,
           const int* __restrict__ frames, const float2* __restrict__ rests, int substeps) {
    extern __shared__ float2 shared[];
    float2* const ramp = shared + LINES * Columns::LENGTH;
    const int f = threadIdx.x % LINES, g = threadIdx.x / LINES, x = blockIdx.x * LINES + f, j = blockIdx.y, k = blockIdx.z;
    const bool inside = x < OTHER;
    const float2 rest = rests[(long long)frames[j] * substeps + k];
    for (int y = threadIdx.x; y < SIDE; y += THREADS) ramp[y] = turn(rest.x * frequency(y, SIDE));
    const float2 along_x = scale(factor, turn(rest.y * frequency(x, OTHER)));
    float2* const line = shared + f;
    for (int m = 0; m < probe_modes; ++m) {
        const float2* const from = spectrum + (long long)m * SIDE * OTHER + x;
        float2* const to = moved + (((long long)j * probe_modes + m) * substeps + k) * SIDE * OTHER + x;
        __syncthreads();  // the ramp is there, and the line before has been read
        Columns::first(g, line, [&](int y) {
            return inside ? multiply(multiply(ramp[y], along_x), from[y * OTHER]) : make_float2(0.f, 0.f);
        });
        Columns::rest(g, line, table, [&](int y, float2 value) {
            if (inside) to[y * OTHER] = value;
        });
    }
}
