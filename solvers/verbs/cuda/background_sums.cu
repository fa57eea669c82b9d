// num += sum_j (I - m^2) / v,   den += sum_j 1 / v,   where good;  v = m^2 + floor; num, den (y, x), A (frame, wave, y, x).
// A thread is a pixel of the detector: blocks (pixels / 256).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
background_sums(float* __restrict__ num, float* __restrict__ den, const float2* __restrict__ A, int count, float floor,
                DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x;
    if (p >= pixels || !good[p]) return;
    double above = 0, below = 0;
    for (int j = 0; j < count; ++j) {
        const float model = detector.signal(A, j, p) + detector.behind(p), weight = 1.f / (model + floor);
        above += (detector.count(j, p) - model) * weight, below += weight;
    }
    num[p] += (float)above, den[p] += (float)below;
}
