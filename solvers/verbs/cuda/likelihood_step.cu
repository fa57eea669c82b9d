// A <- factor f A where good, 0 elsewhere, in place; partials[j, block] = sum over good of (sqrt(I) - m)^2 before it.
// gaussian: f = sqrt(I) / m - 1; poisson: f = (I / m^2 - 1) / 2, but never more than gaussian's: with g the gaussian's,
// g + min(g, 0)^2 / 2. A (frame, wave, y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
likelihood_step(float2* __restrict__ A, double* __restrict__ partials, int poisson, float factor, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    double residual = 0;
    if (p < pixels) {
        float change = 0;
        if (good[p]) {
            const float modulus = detector.modulus(A, j, p), amplitude = sqrtf(detector.count(j, p)), deviation = modulus - amplitude;
            residual = deviation * deviation;
            change = amplitude / (modulus + TINY_MODULUS) - 1.f;
            if (poisson && change < 0) change += change * change / 2;
        }
        detector.multiply_by(A, j, p, factor * change);
    }
    residual = block_sum(residual);
    if (threadIdx.x == 0) partials[(long long)j * gridDim.x + blockIdx.x] = residual;
}
