// Between the stored waves, which may be in half precision, and complex64: psi, w (count,). A thread is a number: blocks (count / 256).
#include "psi.cuh"

// w = psi
extern "C" __global__ void __launch_bounds__(256) widen(float2* __restrict__ w, const Psi* __restrict__ psi, long long count) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < count) w[i] = wide(psi[i]);
}

// psi = w
extern "C" __global__ void __launch_bounds__(256) narrow_again(Psi* __restrict__ psi, const float2* __restrict__ w, long long count) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i < count) psi[i] = narrow(w[i]);
}
