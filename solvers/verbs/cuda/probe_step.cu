// The step of the probe, the mean over the frames of a batch:
// P_m += step / B sum_jqk weight_j conj(O_jqk) w_jmqk K^-1/2,   weight_j = 1 / ((1 - damping) T_j + damping max T_j),  T_j = 1/K sum_qk |O_jqk|^2
// patches O_jqk (frame, substep, object mode, y, x); w (frame, wave, y, x).
#include "common.cuh"

// T[j] (frame, y, x), and largest[j, block]: the largest of the block's share. Blocks (up to 32, frames).
extern "C" __global__ void __launch_bounds__(256)
transmission(float* __restrict__ T, float* __restrict__ largest, const float2* __restrict__ patches, int layers, int substeps, int pixels) {
    const int j = blockIdx.y;
    float found = 0;
    for (int p = blockIdx.x * 256 + threadIdx.x; p < pixels; p += gridDim.x * 256) {
        float sum = 0;
        for (int layer = 0; layer < layers; ++layer) sum += abs2(patches[((long long)j * layers + layer) * pixels + p]);
        sum /= (float)substeps;
        T[(long long)j * pixels + p] = sum;
        found = fmaxf(found, sum);
    }
    found = block_max(found);
    if (threadIdx.x == 0) largest[j * gridDim.x + blockIdx.x] = found;
}

__device__ __forceinline__ float weight(const float* T, const float* largest, int parts, int j, int p, int pixels, float damping) {
    float most = 1.1754944e-38f;
    for (int part = 0; part < parts; ++part) most = fmaxf(most, largest[j * parts + part]);
    return 1.f / ((1.f - damping) * T[(long long)j * pixels + p] + damping * most);
}

// P_m += step factor sum over all frames of the batch; for probes that are not moved. A thread is a pixel of the probe: blocks (pixels / 256, modes).
// 4 blocks on a multiprocessor leave 64 registers to a thread: left to itself, the compiler takes half of them and spills.
extern "C" __global__ void __launch_bounds__(256, 4)
probe_step(float2* __restrict__ P, const float2* __restrict__ patches, const float2* __restrict__ w, const float* __restrict__ T,
           const float* __restrict__ largest, int parts, int count, int probe_modes, int object_modes, int substeps, int pixels,
           const float* __restrict__ step, float factor, float damping) {
    const int p = blockIdx.x * 256 + threadIdx.x, m = blockIdx.y;
    if (p >= pixels) return;
    float2 sum = make_float2(0.f, 0.f);
    for (int j = 0; j < count; ++j) {
        float2 onto = make_float2(0.f, 0.f);
        for (int k = 0; k < substeps; ++k)
            for (int q = 0; q < object_modes; ++q) {
                const long long patch = ((long long)j * substeps + k) * object_modes + q;
                const long long wave = (((long long)j * probe_modes + m) * object_modes + q) * substeps + k;
                onto = add(onto, conjugate_multiply(patches[patch * pixels + p], w[wave * pixels + p]));
            }
        sum = add(sum, scale(weight(T, largest, parts, j, p, pixels, damping), onto));
    }
    P[(long long)m * pixels + p] = add(P[(long long)m * pixels + p], scale(factor * *step, sum));
}

// onto[j, m, k] = step factor weight_j sum_q conj(O_jqk) w_jmqk (frame, probe mode, substep, y, x): what is moved back and added up.
// A thread is a pixel of a frame: blocks (pixels / 256, frames).
// 4 blocks on a multiprocessor leave 64 registers to a thread: left to itself, the compiler takes half of them and spills.
extern "C" __global__ void __launch_bounds__(256, 4)
weighted_onto_probe(float2* __restrict__ onto, const float2* __restrict__ patches, const float2* __restrict__ w, const float* __restrict__ T,
                    const float* __restrict__ largest, int parts, int probe_modes, int object_modes, int substeps, int pixels,
                    const float* __restrict__ step, float factor, float damping) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (p >= pixels) return;
    const float share = factor * *step * weight(T, largest, parts, j, p, pixels, damping);
    for (int m = 0; m < probe_modes; ++m)
        for (int k = 0; k < substeps; ++k) {
            float2 sum = make_float2(0.f, 0.f);
            for (int q = 0; q < object_modes; ++q) {
                const long long patch = ((long long)j * substeps + k) * object_modes + q;
                const long long wave = (((long long)j * probe_modes + m) * object_modes + q) * substeps + k;
                sum = add(sum, conjugate_multiply(patches[patch * pixels + p], w[wave * pixels + p]));
            }
            onto[(((long long)j * probe_modes + m) * substeps + k) * pixels + p] = scale(share, sum);
        }
}
