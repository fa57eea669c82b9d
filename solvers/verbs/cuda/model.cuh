// The exit waves P_j O_j of a batch as the kernels meet them: what they need as parameters, and one value of a wave.
// O (object mode, rows, columns); P in units of elements: frame j, probe mode m, sub-step k begin at j p_frame + m p_mode + k p_step (an unmoved
// probe is the same for all frames: p_frame = p_step = 0); corners (frame, substep, yx) by the frame's number in the rank, frames[j].
// wave = (probe mode * object modes + object mode) * sub-steps + sub-step; a sub-step has weight 1 / sub-steps.
#pragma once
#include "common.cuh"

#define MODEL_PARAMETERS                                                                                                             \
    const float2 *__restrict__ O, int object_modes, int rows, int columns, const float2 *__restrict__ P, long long p_frame,           \
        long long p_mode, long long p_step, int probe_modes, const int *__restrict__ frames, const int2 *__restrict__ corners,        \
        int substeps, int frame_rows, int frame_columns

#define MODEL                                                                                                                        \
    Model { O, P, frames, corners, p_frame, p_mode, p_step, object_modes, probe_modes, substeps, rows, columns, frame_rows, frame_columns }

struct Model {
    const float2* O;
    const float2* P;
    const int* frames;
    const int2* corners;
    long long p_frame, p_mode, p_step;
    int object_modes, probe_modes, substeps, rows, columns, frame_rows, frame_columns;

    __device__ __forceinline__ int waves() const { return probe_modes * object_modes * substeps; }
    __device__ __forceinline__ int pixels() const { return frame_rows * frame_columns; }
    __device__ __forceinline__ float2 probe(int j, int m, int k, int p) const { return P[j * p_frame + m * p_mode + k * p_step + p]; }
    // Where pixel p of the patch of frame j at sub-step k lies in a mode of the object.
    __device__ __forceinline__ long long place(int j, int k, int p) const {
        const int2 corner = corners[(long long)frames[j] * substeps + k];
        return (long long)(corner.x + p / frame_columns) * columns + corner.y + p % frame_columns;
    }
    __device__ __forceinline__ float2 object(int q, long long at) const { return O[(long long)q * rows * columns + at]; }
    __device__ __forceinline__ float weight() const { return substeps == 1 ? 1.f : rsqrtf((float)substeps); }
    // visit(wave, value) for all waves of frame j at pixel p, in their order. No division for each of them: one costs more than its memory.
    template <class Visit> __device__ __forceinline__ void over_waves(int j, int p, Visit visit) const {
        const int row = p / frame_columns, column = p - row * frame_columns;
        const int2* const corner = corners + (long long)frames[j] * substeps;
        const float share = weight();
        int wave = 0;
        for (int m = 0; m < probe_modes; ++m)
            for (int q = 0; q < object_modes; ++q)
                for (int k = 0; k < substeps; ++k, ++wave) {
                    const long long at = (long long)(corner[k].x + row) * columns + corner[k].y + column;
                    visit(wave, scale(share, multiply(probe(j, m, k, p), object(q, at))));
                }
    }
    __device__ __forceinline__ long long index(int j, int wave, int p) const { return ((long long)j * waves() + wave) * pixels() + p; }
};
