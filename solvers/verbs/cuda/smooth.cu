// spectrum <- factor exp(-2 (pi width f)^2) spectrum: between the transforms of what is convolved with a Gaussian of standard deviation
// ``width`` px; f: frequencies of the FFT, cycles per px. spectrum (mode, rows, columns). A thread is a pixel: blocks (pixels / 256, modes).
#include "ramp.cuh"

extern "C" __global__ void __launch_bounds__(256) smooth(float2* __restrict__ spectrum, int rows, int columns, float width, float factor) {
    const long long n = (long long)rows * columns, p = blockIdx.x * 256LL + threadIdx.x;
    if (p >= n) return;
    const float y = frequency((int)(p / columns), rows), x = frequency((int)(p % columns), columns), pi = 3.14159265f;
    float2* const number = spectrum + blockIdx.y * n + p;
    *number = scale(factor * expf(-2.f * pi * pi * width * width * (y * y + x * x)), *number);
}
