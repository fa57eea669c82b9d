// X[n, r, c] = before[n, r - down, c - right], cyclic; X, before (layer, rows, columns); 0 <= down < rows, 0 <= right < columns.
// A thread is a pixel of a layer: blocks (pixels / 256, layers).
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256)
roll(Psi* __restrict__ X, const Psi* __restrict__ before, int rows, int columns, int down, int right) {
    const long long pixels = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x, layer = blockIdx.y * pixels;
    if (p >= pixels) return;
    const int row = (int)(p / columns), column = (int)(p % columns);
    const long long from = (row - down + (row < down ? rows : 0)) * (long long)columns + column - right + (column < right ? columns : 0);
    X[layer + p] = before[layer + from];
}
