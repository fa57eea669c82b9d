// The waves that are stored: complex64, or with PSI_HALF in half precision (11 bits; moduli from 6e-8 to 65504), in half the memory.
#pragma once
#include "common.cuh"

#if PSI_HALF
typedef ushort2 Psi;
typedef unsigned short PsiPart;

__device__ __forceinline__ float widened(unsigned short half) {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
#else
    return (float)__builtin_bit_cast(_Float16, half);
#endif
}

__device__ __forceinline__ unsigned short narrowed(float value) {
#ifdef __CUDA_ARCH__
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    return __builtin_bit_cast(unsigned short, (_Float16)value);
#endif
}

__device__ __forceinline__ float2 wide(ushort2 psi) { return make_float2(widened(psi.x), widened(psi.y)); }

__device__ __forceinline__ Psi narrow(float2 value) { return {narrowed(value.x), narrowed(value.y)}; }
#else
typedef float2 Psi;
typedef float PsiPart;

__device__ __forceinline__ float widened(float part) { return part; }

__device__ __forceinline__ float2 wide(float2 psi) { return psi; }

__device__ __forceinline__ Psi narrow(float2 value) { return value; }
#endif
