// w <- inverse FFT along y of f A, A = FFT along y of w, in place, times 1 / pixels of a frame; w (frame, wave, y, x), transformed along x.
// f and the numbers whose sums over good pixels go to residuals[j, block] and likelihoods[j, block] (gradients only), by VERB:
//   0 onto_modulus: f = slack + (1 - slack) sqrt(I) / m where good, 1 elsewhere
//   1, 2 likelihood_step: f = sqrt(I) / m - 1 (gaussian); (I / m^2 - 1) / 2, but never more than that (poisson); 0 where not good
//   3, 4, 5 likelihood_gradient: f = -s dl / dr, 0 where not good, of l(r, I) = (sqrt(r) - sqrt(I))^2 (amplitude), (r - I)^2 / (4 (I + 1))
//   (gaussian), (r - I + I log(I / r)) / 2 (poisson, with ``dark`` counts more in r)
// residual: (m - sqrt(I))^2. m^2 = r = s_j sum_n |A_jn|^2 / c + B as in detector.cuh. Blocks (tiles of LINES columns, frames).
// HELD: where spectra wait until the sum over waves is known: 0 registers (one wave), 1 shared memory, 2 w itself.
#include "likelihood.cuh"
#include "stockham.cuh"

#ifndef VERB
#define VERB 0
#endif
#ifndef HELD
#define HELD 0
#endif
// What is divided by is the root of no less: near the smallest normal number.
#define DARKEST 1.2e-38f

typedef Passes<R0, R1, R2, 1, LINES, (LINES < 16)> Forward;
#if R2 > 1
typedef Passes<R2, R1, R0, -1, LINES, (LINES < 16)> Inverse;
#else
typedef Passes<R1, R0, 1, -1, LINES, (LINES < 16)> Inverse;
#endif
#define SPACE (Forward::LENGTH > Inverse::LENGTH ? Forward::LENGTH : Inverse::LENGTH)
#define RADIX Forward::LAST
#define STEP Forward::BEFORE_LAST

struct Sums {
    float residual, likelihood;
};

// f / s of a good pixel, and what is added to the sums. Roots are those that the hardware has, good to two units in the last place.
__device__ __forceinline__ float change(float model, float count, float slack, float dark, Sums& sums) {
    const float inverse = rsqrtf(fmaxf(model, DARKEST)), amplitude = count * rsqrtf(fmaxf(count, DARKEST)), ratio = amplitude * inverse;
    const float deviation = model * inverse - amplitude;
    sums.residual += deviation * deviation;
    if (VERB == 0) return slack + (1.f - slack) * ratio;
    if (VERB == 5) model += dark;
    if (VERB > 2) sums.likelihood += likelihood_of(model, count, VERB - 3, dark);
    if (VERB == 4) return (count - model) / (2.f * (count + 1.f));
    if (VERB == 5) return (count / model - 1.f) / 2.f;
    const float step = ratio - 1.f;
    return VERB == 2 && step < 0 ? step + step * step / 2.f : step;
}

extern "C" __global__ void AT_ONCE
fused_columns(float2* w, double* __restrict__ residuals, double* __restrict__ likelihoods, const float2* __restrict__ table,
              const float2* __restrict__ back_table, float slack, float dark, DETECTOR_PARAMETERS) {
    extern __shared__ float2 shared[];
    const Detector detector = DETECTOR;
    const int f = threadIdx.x % LINES, g = threadIdx.x / LINES, x = blockIdx.x * LINES + f, j = blockIdx.y;
    const bool inside = x < OTHER;
    Sums sums = {0.f, 0.f};
    float power[Forward::LASTS][RADIX] = {};
#if HELD == 0
    float2 kept[Forward::LASTS][RADIX];
#endif

    // The column of a wave in memory, and in shared memory
    const auto column = [&](int wave) { return w + detector.index(j, wave, x); };
    const auto line = [&](int wave) { return shared + (HELD == 1 ? wave * LINES * SPACE : 0) + f; };
    const auto load = [&](int wave) {
        const float2* from = column(wave);
        Forward::first(g, line(wave), [&](int y) { return inside ? streamed(from + y * OTHER) : make_float2(0.f, 0.f); });
    };
    const auto transform = [&](int wave) {
        Forward::butterflies<RADIX>(g, [&](int c, int i) {
            float2 v[RADIX];
            Forward::last_of(v, i, line(wave), table);
#pragma unroll
            for (int r = 0; r < RADIX; ++r) {
                power[c][r] += abs2(v[r]);
#if HELD == 0
                kept[c][r] = v[r];
#elif HELD == 1
                line(wave)[Forward::at_last(i, r)] = v[r];
#else
                if (inside) column(wave)[(i + r * STEP) * OTHER] = v[r];
#endif
            }
        });
    };
    const auto factors = [&]() {
        const float light = detector.light(j), scale_back = norm * (VERB > 2 && intensities ? intensities[frames[j]] : 1.f);
        Forward::butterflies<RADIX>(g, [&](int c, int i) {
            float count[RADIX];
            bool believed[RADIX];
            // All that is read is on its way before the first of it is looked at.
#pragma unroll
            for (int r = 0; r < RADIX; ++r) {
                const int p = (i + r * STEP) * OTHER + (inside ? x : 0);
                count[r] = detector.count(j, p);
                believed[r] = inside && good[p];
                power[c][r] = light * power[c][r] + detector.behind(p);
            }
#pragma unroll
            for (int r = 0; r < RADIX; ++r) {
                const float f = believed[r] ? change(power[c][r], count[r], slack, dark, sums) : VERB ? 0.f : 1.f;
                power[c][r] = f * scale_back;
            }
        });
    };
    const auto transform_back = [&](int wave) {
        float2 v[Forward::LASTS][RADIX];
        Forward::butterflies<RADIX>(g, [&](int c, int i) {
#pragma unroll
            for (int r = 0; r < RADIX; ++r) {
#if HELD == 0
                v[c][r] = kept[c][r];
#elif HELD == 1
                v[c][r] = line(wave)[Forward::at_last(i, r)];
#else
                v[c][r] = inside ? column(wave)[(i + r * STEP) * OTHER] : make_float2(0.f, 0.f);
#endif
                v[c][r] = scale(power[c][r], v[c][r]);
            }
        });
        if (HELD != 2) __syncthreads();  // all have read this line: it is used again
        Forward::butterflies<RADIX>(g, [&](int c, int i) { Inverse::first_of(v[c], i, line(wave)); });
    };
    const auto store = [&](int wave) {
        float2* to = column(wave);
        Inverse::last(g, line(wave), back_table, [&](int y, float2 value) {
            if (inside) to[y * OTHER] = value;
        });
    };

    // Spectra that wait in memory share one line in shared memory: one wave after the other.
    const int at_once = HELD == 1 ? waves : 1, all = HELD == 2 ? waves : 1;
    for (int n = 0; n < all; ++n) {
        const int end = n + at_once;
        for (int wave = n; wave < end; ++wave) load(wave);
        __syncthreads();
        if constexpr (Forward::THREE) {
            for (int wave = n; wave < end; ++wave) Forward::middle(g, line(wave), table);
            __syncthreads();
        }
        for (int wave = n; wave < end; ++wave) transform(wave);
        if (HELD == 2) __syncthreads();
    }
    factors();
    for (int n = 0; n < all; ++n) {
        const int end = n + at_once;
        for (int wave = n; wave < end; ++wave) transform_back(wave);
        __syncthreads();
        if constexpr (Inverse::THREE) {
            for (int wave = n; wave < end; ++wave) Inverse::middle(g, line(wave), back_table);
            __syncthreads();
        }
        for (int wave = n; wave < end; ++wave) store(wave);
        if (HELD == 2) __syncthreads();
    }
    const double residual = block_sum((double)sums.residual);
    if (threadIdx.x == 0) residuals[(long long)j * gridDim.x + blockIdx.x] = residual;
    if (VERB > 2) {
        const double likelihood = block_sum((double)sums.likelihood);
        if (threadIdx.x == 0) likelihoods[(long long)j * gridDim.x + blockIdx.x] = likelihood;
    }
}
