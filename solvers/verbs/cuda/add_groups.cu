// total[i] += factor sum over groups, in their order, of partial[group, i]; float32, total (count,), partial (group, count)
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
add_groups(float* __restrict__ total, const float* __restrict__ partial, int groups, long long count, float factor) {
    const long long i = blockIdx.x * 256LL + threadIdx.x;
    if (i >= count) return;
    float sum = 0;
    for (int group = 0; group < groups; ++group) sum += partial[group * count + i];
    total[i] += factor * sum;
}
