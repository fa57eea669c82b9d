// A <- -factor s_j dl/dm^2 A where good, 0 elsewhere, in place; likelihoods[j, block] = sum over good of l(m^2, I) before it, residuals[j, block] =
// sum over good of (sqrt(I) - m)^2. l as in likelihood.cuh; with poisson noise m^2 is ``dark`` counts more. A (frame, wave, y, x).
// A thread is a pixel of a frame: blocks (pixels / 256, frames).
#include "likelihood.cuh"

extern "C" __global__ void __launch_bounds__(256)
likelihood_gradient(float2* __restrict__ A, double* __restrict__ residuals, double* __restrict__ likelihoods, int noise, float dark,
                    float factor, DETECTOR_PARAMETERS) {
    const Detector detector = DETECTOR;
    const int p = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    double likelihood = 0, residual = 0;
    if (p < pixels) {
        float change = 0;
        if (good[p]) {
            const float count = detector.count(j, p), seen = detector.signal(A, j, p) + detector.behind(p);
            const float model = noise == POISSON ? seen + dark : seen, amplitude = sqrtf(count), modulus = sqrtf(seen);
            residual = (modulus - amplitude) * (modulus - amplitude);
            likelihood = likelihood_of(model, count, noise, dark);
            if (noise == AMPLITUDE) change = amplitude / (modulus + TINY_MODULUS) - 1.f;
            else if (noise == GAUSSIAN) change = (count - model) / (2.f * (count + 1.f));
            else change = (count / model - 1.f) / 2;
            if (intensities) change *= intensities[frames[j]];
        }
        detector.multiply_by(A, j, p, factor * change);
    }
    likelihood = block_sum(likelihood), residual = block_sum(residual);
    if (threadIdx.x == 0) {
        const long long block = (long long)j * gridDim.x + blockIdx.x;
        likelihoods[block] = likelihood, residuals[block] = residual;
    }
}
