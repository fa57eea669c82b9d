// What the detector sees: m^2 = s_j sum_n |A_n|^2 / c + B, with c folded into ``norm`` = owed^2 / c where waves A are owed a factor.
// counts (place, y, x), uint16 or float32 (COUNTS_FLOAT), of frame j at place rows[j]; good (y, x); background (y, x) or null; intensities by
// the frame's number, or null.
#pragma once
#include "common.cuh"

#if COUNTS_FLOAT
typedef float Count;
#else
typedef unsigned short Count;
#endif

#define DETECTOR_PARAMETERS                                                                                                          \
    int waves, int pixels, float norm, const int *__restrict__ frames, const int *__restrict__ rows, const Count *__restrict__ counts, \
        const unsigned char *__restrict__ good, const float *__restrict__ background, const float *__restrict__ intensities

#define DETECTOR Detector { frames, rows, counts, good, background, intensities, waves, pixels, norm }

// The smallest modulus that is divided by: sqrt of the smallest normal float32.
#define TINY_MODULUS 1.0842022e-19f

struct Detector {
    const int* frames;
    const int* rows;
    const Count* counts;
    const unsigned char* good;
    const float* background;
    const float* intensities;
    int waves, pixels;
    float norm;

    __device__ __forceinline__ long long index(int j, int wave, int p) const { return ((long long)j * waves + wave) * pixels + p; }
    // s_j / c
    __device__ __forceinline__ float light(int j) const { return intensities ? norm * intensities[frames[j]] : norm; }
    __device__ __forceinline__ float count(int j, int p) const { return (float)counts[(long long)rows[j] * pixels + p]; }
    __device__ __forceinline__ float behind(int p) const { return background ? background[p] : 0.f; }
    // s_j sum_n |A_n|^2 / c, without the background
    __device__ __forceinline__ float signal(const float2* A, int j, int p) const {
        float power = 0;
        for (int wave = 0; wave < waves; ++wave) power += abs2(A[index(j, wave, p)]);
        return light(j) * power;
    }
    __device__ __forceinline__ float modulus(const float2* A, int j, int p) const { return sqrtf(signal(A, j, p) + behind(p)); }
    __device__ __forceinline__ void multiply_by(float2* A, int j, int p, float factor) const {
        for (int wave = 0; wave < waves; ++wave) A[index(j, wave, p)] = scale(factor, A[index(j, wave, p)]);
    }
};
