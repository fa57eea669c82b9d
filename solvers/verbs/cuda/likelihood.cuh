// Minus the logarithm of the likelihood of a count where the model has m^2 counts, up to a constant, and what it changes by with the model.
// Alike near the solution: amplitude (m - sqrt(I))^2; gaussian (m^2 - I)^2 / (4 (I + 1)); poisson (m^2 - I + I log(I / m^2)) / 2.
#pragma once
#include "detector.cuh"

#define AMPLITUDE 0
#define GAUSSIAN 1
#define POISSON 2

// artanh(y) - y, |y| < 1/4
__device__ __forceinline__ float artanh_beyond(float y) {
    const float t = y * y;
    return y * t * (1.f / 3 + t * (1.f / 5 + t * (1.f / 7 + t * (1.f / 9 + t * (1.f / 11)))));
}

// ``dark``: the least count that a logarithm is taken of, where there are none it has the factor 0
__device__ __forceinline__ float likelihood_of(float model, float count, int noise, float dark) {
    if (noise == AMPLITUDE) {
        const float deviation = sqrtf(model) - sqrtf(count);
        return deviation * deviation;
    }
    const float difference = model - count;
    if (noise == GAUSSIAN) return difference * difference / (4.f * (count + 1.f));
    // log(m^2 / I) = 2 artanh(y): near the solution the terms that cancel are left out
    const float y = difference / (model + count);
    if (fabsf(y) < 0.25f) return y * difference / 2 - count * artanh_beyond(y);
    return (difference - count * logf(model / fmaxf(count, dark))) / 2;
}

// likelihood_of(model + change) - likelihood_of(model), not from the difference of two large numbers
__device__ __forceinline__ float gain_of(float model, float change, float count, int noise, float dark) {
    if (noise == AMPLITUDE) {
        const float moduli = sqrtf(model) + sqrtf(model + change);
        return change * (1.f - 2.f * sqrtf(count) / (moduli < TINY_MODULUS ? TINY_MODULUS : moduli));
    }
    if (noise == GAUSSIAN) return change * (change + 2.f * (model - count)) / (4.f * (count + 1.f));
    const float share = change / model;
    const float logarithm = share > -0.5f ? log1pf(share) : logf(fmaxf(model + change, dark) / model);
    return (change - count * logarithm) / 2;
}
