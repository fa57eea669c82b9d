// found[block] = 1 if any number of the block's share of X (count,) is infinite or none at all, else 0
#include "psi.cuh"

extern "C" __global__ void __launch_bounds__(256) all_finite(float* __restrict__ found, const PsiPart* __restrict__ X, long long count) {
    float here = 0;
    for (long long i = blockIdx.x * 256LL + threadIdx.x; i < count; i += gridDim.x * 256LL)
        if (!(fabsf(widened(X[i])) <= 3.4028235e38f)) here = 1;
    here = block_max(here);
    if (threadIdx.x == 0) found[blockIdx.x] = here;
}
