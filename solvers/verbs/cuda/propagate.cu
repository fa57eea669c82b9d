// spectra[j, .., k] <- factor H spectra, moved by the rest of frame j, sub-step k, or moved back: the near field between its two transforms.
// to the detector: H, moved back (sign -1 of the rest); to the sample: H*, moved (sign 1). spectra (frame, wave, y, x), sub-step last in wave;
// transfer H (y, x). A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "ramp.cuh"

extern "C" __global__ void __launch_bounds__(256)
propagate(float2* __restrict__ spectra, const float2* __restrict__ transfer, int waves, int forward, int moves, float factor,
          const int* __restrict__ frames, const float2* __restrict__ rests, int substeps, int frame_rows, int frame_columns) {
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y, n = frame_rows * frame_columns;
    if (p >= n) return;
    const float2 here = scale(factor, transfer[p]), H = make_float2(here.x, forward ? here.y : -here.y);
    for (int wave = 0; wave < waves; ++wave) {
        float2 turn = H;
        if (moves) {
            const float2 rest = rests[(long long)frames[j] * substeps + wave % substeps];
            turn = multiply(H, ramp(forward ? scale(-1.f, rest) : rest, p, frame_rows, frame_columns));
        }
        const long long i = ((long long)j * waves + wave) * n + p;
        spectra[i] = multiply(turn, spectra[i]);
    }
}
