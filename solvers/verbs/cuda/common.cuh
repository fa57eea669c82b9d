// What the kernels share: complex numbers as float2, and sums over a block in an order that never changes.
#pragma once

__device__ __forceinline__ float2 add(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }

__device__ __forceinline__ float2 subtract(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }

__device__ __forceinline__ float2 scale(float f, float2 a) { return make_float2(f * a.x, f * a.y); }

// a b
__device__ __forceinline__ float2 multiply(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

// a* b
__device__ __forceinline__ float2 conjugate_multiply(float2 a, float2 b) {
    return make_float2(a.x * b.x + a.y * b.y, a.x * b.y - a.y * b.x);
}

// |a|^2
__device__ __forceinline__ float abs2(float2 a) { return a.x * a.x + a.y * a.y; }

// Re a* b
__device__ __forceinline__ float dot(float2 a, float2 b) { return a.x * b.x + a.y * b.y; }

__device__ __forceinline__ int thread_of_block() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

struct Sum {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};

struct Maximum {
    template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a > b ? a : b; }
};

// All threads of a block call it, at least once; every one gets the value. The block has a multiple of 32 threads.
template <class Combine, class T> __device__ __forceinline__ T block_combine(T value) {
    __shared__ T of_warps[32];
    const Combine combine;
    const int thread = thread_of_block(), warps = (blockDim.x * blockDim.y * blockDim.z) >> 5;
    for (int distance = 16; distance; distance >>= 1) value = combine(value, __shfl_down_sync(0xffffffffu, value, distance));
    __syncthreads();  // the value of the call before has been read
    if ((thread & 31) == 0) of_warps[thread >> 5] = value;
    __syncthreads();
    if (thread < 32) {
        value = of_warps[thread < warps ? thread : 0];
        for (int distance = 16; distance; distance >>= 1) {
            const T other = __shfl_down_sync(0xffffffffu, value, distance);
            if (thread + distance < warps) value = combine(value, other);
        }
        if (thread == 0) of_warps[0] = value;
    }
    __syncthreads();
    return of_warps[0];
}

// The sum over the threads of a block (float or double), the same to the last bit each time.
template <class T> __device__ __forceinline__ T block_sum(T value) { return block_combine<Sum>(value); }

// The largest of the threads of a block.
template <class T> __device__ __forceinline__ T block_max(T value) { return block_combine<Maximum>(value); }
