// partials[j, part] = the part's share of the sums over good pixels of (I - m^2) a / v and of a^2 / v;  a = m^2 - B, v = m^2 + floor.
// A (frame, wave, y, x). A thread is every so many-th pixel of a frame: blocks (parts, frames).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
intensity_sums(double* __restrict__ partials, const float2* __restrict__ A, float floor, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int j = blockIdx.y;
    double above = 0, below = 0;
    for (int p = blockIdx.x * 256 + threadIdx.x; p < pixels; p += gridDim.x * 256) {
        if (!good[p]) continue;
        const float signal = detector.signal(A, j, p), model = signal + detector.behind(p), weighted = signal / (model + floor);
        above += weighted * (detector.count(j, p) - model), below += weighted * signal;
    }
    above = block_sum(above), below = block_sum(below);
    if (threadIdx.x == 0) {
        double* const mine = partials + 2 * ((long long)j * gridDim.x + blockIdx.x);
        mine[0] = above, mine[1] = below;
    }
}
