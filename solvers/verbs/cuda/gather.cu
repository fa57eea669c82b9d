// partials[j, part] = (Re, Im) of the part's share of sum_n conj(psi_jn) (P_j O_j)_n; psi (frame, wave, y, x).
// A thread is every so many-th pixel of a frame: blocks (parts, frames).
#include "model.cuh"
#include "psi.cuh"

// 4 blocks on a multiprocessor leave 64 registers to a thread: left to itself, the compiler takes half of them and spills.
extern "C" __global__ void __launch_bounds__(256, 4) gather(double* __restrict__ partials, const Psi* __restrict__ psi, MODEL_PARAMETERS) {
    const Model model = MODEL;
    const int j = blockIdx.y;
    double real = 0, imaginary = 0;
    for (int p = blockIdx.x * 256 + threadIdx.x; p < model.pixels(); p += gridDim.x * 256)
        model.over_waves(j, p, [&](int wave, float2 value) {
            const float2 product = conjugate_multiply(wide(psi[model.index(j, wave, p)]), value);
            real += product.x, imaginary += product.y;
        });
    real = block_sum(real), imaginary = block_sum(imaginary);
    if (threadIdx.x == 0) {
        double* const mine = partials + 2 * ((long long)j * gridDim.x + blockIdx.x);
        mine[0] = real, mine[1] = imaginary;
    }
}
