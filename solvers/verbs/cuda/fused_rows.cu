// w_j = FFT along x of overlap P_j O_j (WITH_MODEL) + wave psi_j (WITH_WAVE), without scale. w, psi (frame, wave, y, x), which may be the
// same. Blocks (tiles of LINES rows, groups of ``frames_of_block`` frames, waves): the probe's rows are read once for a group.
// table: see stockham.cuh
#include "model_row.cuh"
#include "psi.cuh"
#include "stockham.cuh"

#ifndef WITH_MODEL
#define WITH_MODEL 1
#define WITH_WAVE 1
#endif

typedef Passes<R0, R1, R2, 1, 1, true> Rows;

extern "C" __global__ void AT_ONCE
fused_rows(float2* w, const Psi* psi, const float2* __restrict__ table, float overlap, float wave_weight, int count, int frames_of_block,
           MODEL_PARAMETERS) {
    extern __shared__ float2 shared[];
    const Model model = MODEL;
    const int f = threadIdx.x / GROUP, g = threadIdx.x % GROUP, y = blockIdx.x * LINES + f, wave = blockIdx.z;
    float2* const line = shared + f * Rows::LENGTH;
    const bool inside = y < OTHER;
    const float weight = WITH_MODEL ? overlap * model.weight() : 0.f;
    const ModelRows model_rows(model, wave, y);
    const int first = blockIdx.y * frames_of_block, end = min(count, first + frames_of_block);
    for (int j = first; j < end; ++j) {
        const long long row = (((long long)j * gridDim.z + wave) * OTHER + y) * SIDE;
        const ModelRow of = WITH_MODEL && inside ? model_rows.of(model, j) : ModelRow{};
        Rows::first(g, line, [&](int x) {
            float2 value = make_float2(0.f, 0.f);
            if (inside) {
                if (WITH_WAVE) value = scale(wave_weight, wide(streamed(psi + row + x)));
                if (WITH_MODEL) value = add(value, scale(weight, of(x)));
            }
            return value;
        });
        Rows::rest(g, line, table, [&](int x, float2 value) {
            if (inside) w[row + x] = value;
        });
        Rows::wait();  // all have read the line before the next one comes
    }
}
