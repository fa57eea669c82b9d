// partials[j, block] = (sum over good of l(r(0), I), then sum of l(r(t), I) - l(r(0), I) for each length t): (frame, block, 1 + trials).
// r(t) = s_j / c sum_n |A_n + t dA_n + t^2 ddA_n|^2 + B, a polynomial of fourth degree in each pixel, nowhere less than ``dark`` with poisson
// noise (0 else). l as in likelihood.cuh; lengths (trial,); A, dA, ddA (frame, wave, y, x).
// A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "likelihood.cuh"

extern "C" __global__ void __launch_bounds__(256)
line_likelihoods(double* __restrict__ partials, const float2* __restrict__ A, const float2* __restrict__ dA,
                 const float2* __restrict__ ddA, const float* __restrict__ lengths, int trials, int noise, float dark,
                 DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    const bool counts_here = p < pixels && good[p];
    double* const mine = partials + ((long long)j * gridDim.x + blockIdx.x) * (1 + trials);
    float model = 0, first = 0, second = 0, third = 0, fourth = 0, count = 0;
    if (counts_here) {
        for (int wave = 0; wave < waves; ++wave) {
            const long long i = detector.index(j, wave, p);
            const float2 a = A[i], b = dA[i], c = ddA[i];
            model += abs2(a), first += 2 * dot(a, b), second += abs2(b) + 2 * dot(a, c), third += 2 * dot(b, c), fourth += abs2(c);
        }
        const float light = detector.light(j);
        model = light * model + detector.behind(p) + (noise == POISSON ? dark : 0.f);
        first *= light, second *= light, third *= light, fourth *= light;
        count = detector.count(j, p);
    }
    const float least = (noise == POISSON ? dark : 0.f) - model;
    for (int trial = -1; trial < trials; ++trial) {
        double term = 0;
        if (counts_here && trial < 0) term = likelihood_of(model, count, noise, dark);
        if (counts_here && trial >= 0) {
            const float t = lengths[trial], change = t * (first + t * (second + t * (third + t * fourth)));
            term = gain_of(model, change < least ? least : change, count, noise, dark);
        }
        term = block_sum(term);
        if (threadIdx.x == 0) mine[1 + trial] = term;
    }
}
