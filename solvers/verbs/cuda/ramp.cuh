// The phase ramp that moves something: Fourier shift theorem.
#pragma once
#include "common.cuh"

// i / size, the frequency of place i of an FFT of this size, in cycles per px: -1/2 .. 1/2, the Nyquist frequency negative
__device__ __forceinline__ float frequency(int i, int size) { return (float)(2 * i < size ? i : i - size) / (float)size; }

// exp(-2 pi i (shift_y f_y + shift_x f_x)) at pixel p of a frame; shift.x is along rows (y), shift.y along columns (x), px
__device__ __forceinline__ float2 ramp(float2 shift, int p, int frame_rows, int frame_columns) {
    const float cycles = shift.x * frequency(p / frame_columns, frame_rows) + shift.y * frequency(p % frame_columns, frame_columns);
    float sine, cosine;
    sincospif(-2.f * (cycles - rintf(cycles)), &sine, &cosine);
    return make_float2(cosine, sine);
}
