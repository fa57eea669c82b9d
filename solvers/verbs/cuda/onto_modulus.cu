// A <- factor (slack + (1 - slack) sqrt(I) / m) A where good, factor A elsewhere, in place; partials[j, block] = sum over good of (sqrt(I) - m)^2.
// A (frame, wave, y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
onto_modulus(float2* __restrict__ A, double* __restrict__ partials, float slack, float factor, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    double residual = 0;
    if (p < pixels) {
        float change = factor;
        if (good[p]) {
            const float modulus = detector.modulus(A, j, p), amplitude = sqrtf(detector.count(j, p)), deviation = modulus - amplitude;
            residual = deviation * deviation;
            change *= slack + (1.f - slack) * amplitude / (modulus + TINY_MODULUS);
        }
        if (change != 1.f) detector.multiply_by(A, j, p, change);
    }
    residual = block_sum(residual);
    if (threadIdx.x == 0) partials[(long long)j * gridDim.x + blockIdx.x] = residual;
}
