// v sum |grad O|^2 by differences of neighbours, along a line too, and its gradient; v = weight mean(den). O, dO, num (mode, rows, columns).
#include "common.cuh"

// lights[block] = sum of the block's share of den (count,); 256 blocks
extern "C" __global__ void __launch_bounds__(256) light_of(double* __restrict__ lights, const float* __restrict__ den, long long count) {
    double sum = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL) sum += den[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) lights[blockIdx.x] = sum;
}

// num += v Laplacian O;  partials[mode, block] = v sum |grad O|^2 of the block's pixels, to their right and down.
// A thread is a pixel: blocks (pixels / 256, modes); lights (256,).
extern "C" __global__ void __launch_bounds__(256)
roughness(float2* __restrict__ num, double* __restrict__ partials, const float2* __restrict__ O, const double* __restrict__ lights,
          int rows, int columns, double weight) {
    const long long n = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x, i = blockIdx.y * n + p;
    const double share = weight * block_sum(lights[threadIdx.x]) / n;
    double sum = 0;
    if (p < n) {
        const int row = (int)(p / columns), column = (int)(p % columns);
        const float2 here = O[i], none = make_float2(0.f, 0.f);
        const float2 right = column + 1 < columns ? subtract(O[i + 1], here) : none, left = column ? subtract(here, O[i - 1]) : none;
        const float2 down = row + 1 < rows ? subtract(O[i + columns], here) : none, up = row ? subtract(here, O[i - columns]) : none;
        num[i] = add(num[i], scale((float)share, add(subtract(right, left), subtract(down, up))));
        sum = abs2(right) + abs2(down);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[(long long)blockIdx.y * gridDim.x + blockIdx.x] = share * sum;
}

// partials[mode, block] = (v sum |grad O|^2, then for each length t: that of O + t dO less that of O): (.., 1 + trials); lengths (trial,).
// A thread is a pixel: blocks (pixels / 256, modes); lights (256,).
// 4 blocks on a multiprocessor leave 64 registers to a thread: left to itself, the compiler takes half of them and spills.
extern "C" __global__ void __launch_bounds__(256, 4)
line_roughness(double* __restrict__ partials, const float2* __restrict__ O, const float2* __restrict__ dO,
               const double* __restrict__ lights, const double* __restrict__ lengths, int trials, int rows, int columns, double weight) {
    const long long n = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x, i = blockIdx.y * n + p;
    const double share = weight * block_sum(lights[threadIdx.x]) / n;
    double nn = 0, nc = 0, cc = 0;
    for (int axis = 0; axis < 2 && p < n; ++axis) {
        const long long next = axis ? columns : 1;
        if (axis ? p / columns + 1 >= rows : p % columns + 1 >= columns) continue;
        const float2 now = subtract(O[i + next], O[i]), change = subtract(dO[i + next], dO[i]);
        nn += abs2(now), nc += dot(now, change), cc += abs2(change);
    }
    nn = block_sum(nn), nc = block_sum(nc), cc = block_sum(cc);
    if (threadIdx.x) return;
    double* const mine = partials + ((long long)blockIdx.y * gridDim.x + blockIdx.x) * (1 + trials);
    mine[0] = share * nn;
    for (int trial = 0; trial < trials; ++trial) {
        const double t = lengths[trial];
        mine[1 + trial] = share * t * (2 * nc + t * cc);
    }
}
