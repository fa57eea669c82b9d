// psi_j <- phases_j psi_j; psi (frame, numbers of a frame), phases (frame,). A thread is a number of a frame: blocks (numbers / 256, frames).
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256)
frame_phases(Psi* __restrict__ psi, const float2* __restrict__ phases, long long count) {
    const long long i = blockIdx.x * 256LL + threadIdx.x, j = blockIdx.y;
    if (i < count) psi[j * count + i] = narrow(multiply(phases[j], wide(psi[j * count + i])));
}
