// along_y = dX / dy, along_x = dX / dx per px, by central differences of fourth order; 0 in the two outermost lines.
// X, along_y, along_x (mode, rows, columns). A thread is a pixel: blocks (pixels / 256, modes).
#include "common.cuh"

__device__ __forceinline__ float2 derivative(const float2* x, long long step) {
    const float2 near = subtract(x[step], x[-step]), far = subtract(x[2 * step], x[-2 * step]);
    return scale(1.f / 12.f, subtract(scale(8.f, near), far));
}

extern "C" __global__ void __launch_bounds__(256)
derivatives(float2* __restrict__ along_y, float2* __restrict__ along_x, const float2* __restrict__ X, int rows, int columns) {
    const long long n = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x, i = blockIdx.y * n + p;
    if (p >= n) return;
    const int row = (int)(p / columns), column = (int)(p % columns);
    const float2 none = make_float2(0.f, 0.f);
    along_y[i] = row >= 2 && row < rows - 2 ? derivative(X + i, columns) : none;
    along_x[i] = column >= 2 && column < columns - 2 ? derivative(X + i, 1) : none;
}
