// One row of the waves P_j O_j: what model.cuh gives pixel by pixel, for kernels that stay in a row.
#pragma once
#include "model.cuh"

struct ModelRow {
    const float2* P;
    const float2* O;

    // without the weight of a sub-step
    __device__ __forceinline__ float2 operator()(int x) const { return multiply(P[x], O[x]); }
};

// Row y of a wave, of any frame
struct ModelRows {
    const float2* P;
    const float2* O;
    int k, y;

    __device__ __forceinline__ ModelRows(const Model& model, int wave, int y) : k(wave % model.substeps), y(y) {
        const int modes = wave / model.substeps, q = modes % model.object_modes, m = modes / model.object_modes;
        P = model.P + m * model.p_mode + k * model.p_step + (long long)y * model.frame_columns;
        O = model.O + (long long)q * model.rows * model.columns;
    }
    __device__ __forceinline__ ModelRow of(const Model& model, int j) const {
        const int2 corner = model.corners[(long long)model.frames[j] * model.substeps + k];
        return {P + j * model.p_frame, O + (long long)(corner.x + y) * model.columns + corner.y};
    }
};
