// model[j] = m^2 (frame, y, x): the counts that waves A (frame, wave, y, x) make. A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
model_counts(float* __restrict__ model, const float2* __restrict__ A, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p < pixels) model[(long long)j * pixels + p] = detector.signal(A, j, p) + detector.behind(p);
}
