// partial[g, m] = sum over the frames j of group g, and k, of conj(ramp of the rest of j, k) spectra[j, m, k]: transforms, moved back.
// spectra (frame, probe mode, substep, y, x); partial (group, probe mode, y, x). A thread is a pixel of a frame: blocks (pixels / 256, groups).
#include "ramp.cuh"

extern "C" __global__ void __launch_bounds__(256)
moved_back(float2* __restrict__ partial, const float2* __restrict__ spectra, int probe_modes, int count, const int* __restrict__ frames,
           const float2* __restrict__ rests, int substeps, int frame_rows, int frame_columns) {
    const int p = blockIdx.x * 256 + threadIdx.x, group = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    const int each = (count + gridDim.y - 1) / gridDim.y, first = group * each, last = min(count, first + each);
    for (int m = 0; m < probe_modes; ++m) {
        float2 sum = make_float2(0.f, 0.f);
        for (int j = first; j < last; ++j)
            for (int k = 0; k < substeps; ++k) {
                const float2 turn = ramp(rests[(long long)frames[j] * substeps + k], p, frame_rows, frame_columns);
                sum = add(sum, conjugate_multiply(turn, spectra[(((long long)j * probe_modes + m) * substeps + k) * n + p]));
            }
        partial[((long long)group * probe_modes + m) * n + p] = sum;
    }
}
