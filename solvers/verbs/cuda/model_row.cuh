// One row of a wave P_j O_j: what model.cuh gives pixel by pixel, for kernels that know the row.
#pragma once
#include "model.cuh"

struct ModelRow {
    const float2* P;
    const float2* O;

    __device__ __forceinline__ ModelRow() : P(nullptr), O(nullptr) {}
    __device__ __forceinline__ ModelRow(const Model& model, int j, int wave, int y) {
        const int k = wave % model.substeps, q = wave / model.substeps % model.object_modes, m = wave / (model.substeps * model.object_modes);
        const int2 corner = model.corners[(long long)model.frames[j] * model.substeps + k];
        P = model.P + j * model.p_frame + m * model.p_mode + k * model.p_step + (long long)y * model.frame_columns;
        O = model.O + ((long long)q * model.rows + corner.x + y) * model.columns + corner.y;
    }
    // without the weight of a sub-step
    __device__ __forceinline__ float2 operator()(int x) const { return multiply(P[x], O[x]); }
};
