// partials[j, part] = the part's share of the sums over good pixels of y y, x x, y x, y r, x r, r r:
// r = sqrt(I) - m,  y = dm / dy = s_j sum_n Re A_n* Ay_n / (c m),  x likewise. A, Ay, Ax (frame, wave, y, x).
// A thread is every so many-th pixel of a frame: blocks (parts, frames).
#include "detector.cuh"

extern "C" __global__ void __launch_bounds__(256)
position_gradient(double* __restrict__ partials, const float2* __restrict__ A, const float2* __restrict__ Ay,
                  const float2* __restrict__ Ax, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int j = blockIdx.y;
    double yy = 0, xx = 0, yx = 0, yr = 0, xr = 0, rr = 0;
    for (int p = blockIdx.x * 256 + threadIdx.x; p < pixels; p += gridDim.x * 256) {
        if (!good[p]) continue;
        float power = 0, y = 0, x = 0;
        for (int wave = 0; wave < waves; ++wave) {
            const long long i = detector.index(j, wave, p);
            const float2 value = A[i];
            power += abs2(value), y += dot(value, Ay[i]), x += dot(value, Ax[i]);
        }
        const float modulus = sqrtf(detector.light(j) * power + detector.behind(p));
        const float weight = detector.light(j) / (modulus + TINY_MODULUS), r = sqrtf(detector.count(j, p)) - modulus;
        y *= weight, x *= weight;
        yy += y * y, xx += x * x, yx += y * x, yr += y * r, xr += x * r, rr += r * r;
    }
    yy = block_sum(yy), xx = block_sum(xx), yx = block_sum(yx), yr = block_sum(yr), xr = block_sum(xr), rr = block_sum(rr);
    if (threadIdx.x == 0) {
        double* const mine = partials + 6 * ((long long)j * gridDim.x + blockIdx.x);
        mine[0] = yy, mine[1] = xx, mine[2] = yx, mine[3] = yr, mine[4] = xr, mine[5] = rr;
    }
}
