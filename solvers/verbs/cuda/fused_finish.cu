// target_j <- wave target_j (WITH_WAVE) + data w'_j + overlap P_j O_j (WITH_MODEL), w' = inverse FFT along x of w, without scale.
// w, target (frame, wave, y, x), which may be the same. Blocks as in fused_rows.cu. table: see stockham.cuh
#include "model_row.cuh"
#include "psi.cuh"
#include "stockham.cuh"

#ifndef WITH_MODEL
#define WITH_MODEL 1
#define WITH_WAVE 1
#endif

typedef Passes<R0, R1, R2, -1, 1, true> Rows;

extern "C" __global__ void AT_ONCE
fused_finish(Psi* target, const float2* w, const float2* __restrict__ table, float wave_weight, float data, float overlap, int count,
             int frames_of_block, MODEL_PARAMETERS) {
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
        Rows::first(g, line, [&](int x) { return inside ? streamed(w + row + x) : make_float2(0.f, 0.f); });
        Rows::wait();
        if constexpr (Rows::THREE) {
            Rows::middle(g, line, table);
            Rows::wait();
        }
        Rows::butterflies<Rows::LAST>(g, [&](int, int i) {
            float2 value[Rows::LAST], beside[Rows::LAST];
            // On its way while the line is transformed.
#pragma unroll
            for (int r = 0; r < Rows::LAST; ++r) {
                const int x = i + r * Rows::BEFORE_LAST;
                beside[r] = make_float2(0.f, 0.f);
                if (inside && WITH_WAVE) beside[r] = scale(wave_weight, wide(streamed(target + row + x)));
                if (inside && WITH_MODEL) beside[r] = add(beside[r], scale(weight, of(x)));
            }
            Rows::last_of(value, i, line, table);
#pragma unroll
            for (int r = 0; r < Rows::LAST; ++r)
                if (inside) target[row + i + r * Rows::BEFORE_LAST] = narrow(add(scale(data, value[r]), beside[r]));
        });
        Rows::wait();  // all have read the line before the next one comes
    }
}
