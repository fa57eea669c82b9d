// sums[k] += sum_i parts[i, k]; one block for each k, always in the same order
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
add_up(double* __restrict__ sums, const double* __restrict__ parts, long long count, int numbers) {
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += 256) sum += parts[i * numbers + blockIdx.x];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] += sum;
}
