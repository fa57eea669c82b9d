// Fourier transforms of lines of a frame in shared memory, by Stockham's passes: natural order in and out, no scale.
//
// A line of SIDE = R0 R1 R2 values is transformed by GROUP threads in passes of radices R0, R1 and R2 (1: there are two passes only).
// A butterfly of a pass of radix R is R values, SIDE / R apart, in the registers of a thread. The first pass takes them from wherever they
// come from, the last leaves them in registers, so that with two passes a line goes through shared memory once. What the last pass of a
// transform leaves in a thread is what the first pass of the transform with the radices in reverse order wants in that thread.
//
// Twiddle factors lie in tables, pass by pass but the first: exp(-2 pi i r k / (s R)) at [(r - 1) s + k], k < s, 0 < r < R, with s the
// product of the radices before: threads next to each other read next to each other.
#pragma once
#include "common.cuh"

#ifndef SIDE
#define SIDE 256
#define OTHER 256
#define R0 16
#define R1 16
#define R2 1
#define LINES 16
#define GROUP 16
#define BLOCKS 2
#endif
#define THREADS (LINES * GROUP)
// BLOCKS that share a multiprocessor, so that one computes while another one waits: limits the registers of a thread.
#define AT_ONCE __launch_bounds__(THREADS, BLOCKS)
// Of other sides there are as many blocks as it takes.
#define TILES ((OTHER + LINES - 1) / LINES)

// Read once: past the first-level cache, which probe and object need.
template <class Value> __device__ __forceinline__ Value streamed(const Value* at) {
#ifdef __CUDA_ARCH__
    return __ldcg(at);
#else
    return *at;
#endif
}

// cos and sin of 2 pi i / R as constants
template <int R> struct Circle {
    float cosine[R], sine[R];
    __device__ constexpr Circle() : cosine(), sine() {
        for (int i = 0; i < R; ++i) {
            const double angle = 6.283185307179586476925287 * (2 * i > R ? i - R : i) / R;
            double power = 1, c = 0, s = 0;
            for (int n = 0; n < 32; ++n) {
                (n % 2 ? s : c) += n % 4 < 2 ? power : -power;
                power *= angle / (n + 1);
            }
            cosine[i] = (float)c;
            sine[i] = (float)s;
        }
    }
};

// SIGN: 1 forward, exp(-i ...); -1 back. a exp(-i SIGN pi / 2)
template <int SIGN> __device__ __forceinline__ float2 quarter_turn(float2 a) {
    return SIGN > 0 ? make_float2(a.y, -a.x) : make_float2(-a.y, a.x);
}

// a w, w* where SIGN is -1
template <int SIGN> __device__ __forceinline__ float2 turned(float2 a, float2 w) {
    return SIGN > 0 ? multiply(a, w) : conjugate_multiply(w, a);
}

__device__ constexpr int smallest_factor(int n) {
    int factor = 2;
    while (n % factor) ++factor;
    return factor;
}

__device__ constexpr int inner_factor(int n) { return n > 4 && n % 4 == 0 ? 4 : smallest_factor(n); }

// v <- its discrete Fourier transform, in registers
template <int R, int SIGN> __device__ __forceinline__ void dft(float2 (&v)[R]);

template <int R, int SIGN> __device__ __forceinline__ void dft_of_prime(float2 (&v)[R]) {
    constexpr Circle<R> circle;
    constexpr int half = R / 2;
    float2 even[half], odd[half];
    const float2 first = v[0];
#pragma unroll
    for (int q = 1; q <= half; ++q) {
        even[q - 1] = add(v[q], v[R - q]);
        odd[q - 1] = subtract(v[q], v[R - q]);
        v[0] = add(v[0], even[q - 1]);
    }
#pragma unroll
    for (int k = 1; k <= half; ++k) {
        float2 a = first, b = make_float2(0.f, 0.f);
#pragma unroll
        for (int q = 1; q <= half; ++q) {
            a = add(a, scale(circle.cosine[k * q % R], even[q - 1]));
            b = add(b, scale(circle.sine[k * q % R], odd[q - 1]));
        }
        b = quarter_turn<SIGN>(b);
        v[k] = add(a, b);
        v[R - k] = subtract(a, b);
    }
}

template <int R, int SIGN> __device__ __forceinline__ void dft_of_product(float2 (&v)[R]) {
    constexpr Circle<R> circle;
    constexpr int A = inner_factor(R), B = R / A;
    float2 inner[B][A];
#pragma unroll
    for (int b = 0; b < B; ++b) {
#pragma unroll
        for (int a = 0; a < A; ++a) inner[b][a] = v[B * a + b];
        dft<A, SIGN>(inner[b]);
    }
#pragma unroll
    for (int a = 0; a < A; ++a) {
        float2 outer[B];
#pragma unroll
        for (int b = 0; b < B; ++b) {
            const int turn = a * b;  // of R; a quarter of a turn and none cost nothing
            if (turn == 0) outer[b] = inner[b][a];
            else if (4 * turn == R) outer[b] = quarter_turn<SIGN>(inner[b][a]);
            else outer[b] = turned<SIGN>(inner[b][a], make_float2(circle.cosine[turn], -circle.sine[turn]));
        }
        dft<B, SIGN>(outer);
#pragma unroll
        for (int b = 0; b < B; ++b) v[a + A * b] = outer[b];
    }
}

template <int R, int SIGN> __device__ __forceinline__ void dft(float2 (&v)[R]) {
    if constexpr (R == 2) {
        const float2 difference = subtract(v[0], v[1]);
        v[0] = add(v[0], v[1]);
        v[1] = difference;
    } else if constexpr (R == 4) {
        const float2 a = add(v[0], v[2]), b = subtract(v[0], v[2]), c = add(v[1], v[3]), d = quarter_turn<SIGN>(subtract(v[1], v[3]));
        v[0] = add(a, c);
        v[1] = add(b, d);
        v[2] = subtract(a, c);
        v[3] = subtract(b, d);
    } else if constexpr (R > 1 && smallest_factor(R) == R) {
        dft_of_prime<R, SIGN>(v);
    } else if constexpr (R > 1) {
        dft_of_product<R, SIGN>(v);
    }
}

// Where a line's value i + r STEP lies in shared memory. PAD: a gap after so many values, so that threads that write PAD values apart meet
// different banks; 0: none. The first pass writes with STEP 1 from multiples of PAD on.
template <int STEP, int PAD, int STRIDE> __device__ __forceinline__ int place(int i, int r) {
    if constexpr (PAD == 0) return (i + r * STEP) * STRIDE;
    else if constexpr (STEP == 1) return (i + i / PAD + r) * STRIDE;
    else if constexpr (STEP % PAD == 0) return (i + i / PAD + r * (STEP + STEP / PAD)) * STRIDE;
    else return (i + r * STEP + (i + r * STEP) / PAD) * STRIDE;
}

// The transform of a line whose values lie STRIDE apart in shared memory, by thread ``g`` of its group. PADDED: see place
template <int RA, int RB, int RC, int SIGN, int STRIDE, bool PADDED> struct Passes {
    static constexpr int PAD = PADDED && RA % 2 == 0 ? RA : 0, GAPPED = PAD ? SIDE + SIDE / PAD : SIDE;
    // From line to line: rows are so far apart that threads that go on in the next row go on in the next bank.
    static constexpr int LENGTH = STRIDE == 1 && GROUP % 16 ? GAPPED + ((GROUP - GAPPED) & 15) : GAPPED;
    static constexpr int LAST = RC > 1 ? RC : RB, BEFORE_LAST = SIDE / LAST;
    static constexpr bool THREE = RC > 1;
    // Butterflies of a thread in the middle and last pass.
    static constexpr int MIDDLES = (SIDE / RB + GROUP - 1) / GROUP, LASTS = (BEFORE_LAST + GROUP - 1) / GROUP;
    // Threads that meet in one line are of one warp: they need not wait for others.
    static constexpr bool WITHIN_WARP = STRIDE == 1 && 32 % GROUP == 0;

    static __device__ __forceinline__ void wait() {
        if constexpr (WITHIN_WARP) __syncwarp();
        else __syncthreads();
    }

    // each(c, i) for the c-th butterfly of this thread, which begins at i
    template <int R, class Each> static __device__ __forceinline__ void butterflies(int g, Each each) {
        constexpr int count = SIDE / R;
#pragma unroll
        for (int c = 0; c < (count + GROUP - 1) / GROUP; ++c)
            if (count % GROUP == 0 || g + c * GROUP < count) each(c, g + c * GROUP);
    }

    // Transform v, that begins at i, and lay it down
    static __device__ __forceinline__ void first_of(float2 (&v)[RA], int i, float2* line) {
        dft<RA, SIGN>(v);
#pragma unroll
        for (int r = 0; r < RA; ++r) line[place<1, PAD, STRIDE>(i * RA, r)] = v[r];
    }

    // load(i): value i of the line
    template <class Load> static __device__ __forceinline__ void first(int g, float2* line, Load load) {
        butterflies<RA>(g, [&](int, int i) {
            float2 v[RA];
#pragma unroll
            for (int r = 0; r < RA; ++r) v[r] = load(i + r * (SIDE / RA));
            first_of(v, i, line);
        });
    }

    // To be waited for before and after, by those who have three passes
    static __device__ __forceinline__ void middle(int g, float2* line, const float2* table) {
        float2 v[MIDDLES][RB];
        butterflies<RB>(g, [&](int c, int i) { gather<RB, RA>(v[c], i, line, table); });
        wait();
        butterflies<RB>(g, [&](int c, int i) {
            dft<RB, SIGN>(v[c]);
#pragma unroll
            for (int r = 0; r < RB; ++r) line[place<RA, PAD, STRIDE>(i / RA * RA * RB + i % RA, r)] = v[c][r];
        });
    }

    // Where the last pass finds value i + r SIDE / LAST, and may lay its own
    static __device__ __forceinline__ int at_last(int i, int r) { return place<BEFORE_LAST, PAD, STRIDE>(i, r); }

    // The values i + r SIDE / LAST of the transform
    static __device__ __forceinline__ void last_of(float2 (&v)[LAST], int i, const float2* line, const float2* table) {
        gather<LAST, BEFORE_LAST>(v, i, line, table + (RC > 1 ? (RB - 1) * RA : 0));
        dft<LAST, SIGN>(v);
    }

    // What is left after the first pass; store(i, value) for all values of this thread
    template <class Store> static __device__ __forceinline__ void rest(int g, float2* line, const float2* table, Store store) {
        wait();
        if constexpr (THREE) {
            middle(g, line, table);
            wait();
        }
        last(g, line, table, store);
    }

    // store(i, value) for all values of this thread
    template <class Store> static __device__ __forceinline__ void last(int g, const float2* line, const float2* table, Store store) {
        butterflies<LAST>(g, [&](int, int i) {
            float2 v[LAST];
            last_of(v, i, line, table);
#pragma unroll
            for (int r = 0; r < LAST; ++r) store(i + r * BEFORE_LAST, v[r]);
        });
    }

    // A butterfly that begins at i, turned; S: product of the radices before
    template <int R, int S> static __device__ __forceinline__ void gather(float2 (&v)[R], int i, const float2* line, const float2* table) {
        v[0] = line[place<SIDE / R, PAD, STRIDE>(i, 0)];
#pragma unroll
        for (int r = 1; r < R; ++r)
            v[r] = turned<SIGN>(line[place<SIDE / R, PAD, STRIDE>(i, r)], table[(r - 1) * S + (S == SIDE / R ? i : i % S)]);
    }
};
