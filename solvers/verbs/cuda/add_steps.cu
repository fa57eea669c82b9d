// X += share length dX, X (count,) complex; length = alpha (of the object) or beta (of the probe) from step_sums (5,) float64:
// each the best alone, then both times the best common factor. A part that does not move (object_moves, probe_moves) has length 0.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
add_steps(float2* __restrict__ X, const float2* __restrict__ dX, long long count, const double* __restrict__ sums, int object_moves,
          int probe_moves, int of_probe, float share) {
    const double uu = sums[0], vv = sums[1], uv = sums[2], uw = sums[3], vw = sums[4];
    const double alpha = uu > 0 && object_moves ? fmax(uw / uu, 0.) : 0., beta = vv > 0 && probe_moves ? fmax(vw / vv, 0.) : 0.;
    const double square = alpha * alpha * uu + beta * beta * vv + 2 * alpha * beta * uv;
    const double common = square > 0 ? (alpha * uw + beta * vw) / square : 0.;
    const float length = (float)(share * common * (of_probe ? beta : alpha));
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < count) X[i] = add(X[i], scale(length, dX[i]));
}
