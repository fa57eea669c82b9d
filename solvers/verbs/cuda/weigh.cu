// den = weight, but nowhere below a millionth of its largest;  num = den X. X (mode, rows, columns) may be a view: strides in elements; num
// like X, den and weight (rows, columns), which may be the same, are contiguous; partials (256,): the largest numbers of parts of the weight.
// A thread is a pixel: blocks (pixels / 256, modes).
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
weigh(float2* __restrict__ num, float* den, const float2* __restrict__ X, int modes, int rows, int columns, long long mode_stride,
      long long row_stride, const float* weight, const float* __restrict__ partials) {
    const float least = 1e-6f * fmaxf(block_max(partials[threadIdx.x]), 1.1754944e-38f);
    const long long n = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x;
    if (p >= n) return;
    const float light = fmaxf(weight[p], least);
    num[blockIdx.y * n + p] = scale(light, X[blockIdx.y * mode_stride + p / columns * row_stride + p % columns]);
    if (blockIdx.y == 0) den[p] = light;
}
