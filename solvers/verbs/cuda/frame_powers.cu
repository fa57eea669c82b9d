// partials[j, part] = the part's share of sum |psi_j|^2; psi (frame, numbers of a frame).
// A thread is every so many-th number of a frame: blocks (parts, frames).
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256)
frame_powers(double* __restrict__ partials, const Psi* __restrict__ psi, long long count) {
    const int j = blockIdx.y;
    double sum = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) sum += abs2(wide(psi[j * count + i]));
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[(long long)j * gridDim.x + blockIdx.x] = sum;
}
