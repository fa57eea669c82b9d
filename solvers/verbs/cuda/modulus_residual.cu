// partials[j, block] = sum over good pixels of (sqrt(I) - m)^2. A (frame, wave, y, x) stays as it is.
// A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
modulus_residual(const float2* __restrict__ A, double* __restrict__ partials, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    double residual = 0;
    if (p < pixels && good[p]) {
        const float deviation = detector.modulus(A, j, p) - sqrtf(detector.count(j, p));
        residual = deviation * deviation;
    }
    residual = block_sum(residual);
    if (threadIdx.x == 0) partials[(long long)j * gridDim.x + blockIdx.x] = residual;
}
