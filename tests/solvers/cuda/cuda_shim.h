// Runs CUDA C++ kernels on the CPU, to test them without a GPU: one fiber per CUDA thread, so that barriers and shuffles are exact.
// g++ -std=c++17. It finds barriers and shuffles that not all threads reach, writes beyond shared memory, launches that a GPU refuses;
// with -fsanitize=address any access out of bounds. Run twice, threads and blocks in reversed order the second time (SHIM_REVERSED=1
// in the environment): a result that depends on the order misses a barrier. It does not find races of other kinds, and says nothing
// about speed. A thread that never waits is a plain call; one that waits costs two switches of a few instructions.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <math.h>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_ADDRESS__) || !(defined(__x86_64__) || defined(__aarch64__))
#define SHIM_UCONTEXT
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(4) ushort2 { unsigned short x, y; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace shim {

// ---------------------------------------------------------------- fibers
#ifdef SHIM_UCONTEXT
using Fiber = ucontext_t;
static void switch_fiber(Fiber* from, Fiber* to) { swapcontext(from, to); }
static void make_fiber(Fiber* fiber, char* stack, size_t bytes, void (*entry)()) {
    getcontext(fiber);
    fiber->uc_stack.ss_sp = stack;
    fiber->uc_stack.ss_size = bytes;
    fiber->uc_link = nullptr;
    makecontext(fiber, entry, 0);
}
#else
struct Fiber { void* stack_pointer; };
extern "C" __attribute__((visibility("hidden"))) void shim_switch(void** save, void* const* load);
#ifdef __x86_64__
asm(R"(
    .pushsection .text
    .globl shim_switch
    .hidden shim_switch
    .type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
    .size shim_switch, .-shim_switch
    .popsection
)");
static const int SAVED_WORDS = 8, ENTRY_WORD = 6;  // six registers, the address to return to, and one that aligns the stack
#else
asm(R"(
    .pushsection .text
    .globl shim_switch
    .hidden shim_switch
    .type shim_switch, %function
shim_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    ldr x9, [x1]
    mov sp, x9
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size shim_switch, .-shim_switch
    .popsection
)");
static const int SAVED_WORDS = 20, ENTRY_WORD = 11;
#endif
static void switch_fiber(Fiber* from, Fiber* to) { shim_switch(&from->stack_pointer, &to->stack_pointer); }
static void make_fiber(Fiber* fiber, char* stack, size_t bytes, void (*entry)()) {
    uint64_t* words = reinterpret_cast<uint64_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15)) - SAVED_WORDS;
    memset(words, 0, 8 * SAVED_WORDS);
    words[ENTRY_WORD] = reinterpret_cast<uint64_t>(entry);
    fiber->stack_pointer = words;
}
#endif

// ---------------------------------------------------------------- the threads of one block
static const unsigned MOST_THREADS = 1024, LANES = 32;
#ifdef __SANITIZE_ADDRESS__
static const size_t STACK_BYTES = 256 * 1024, GUARD_BYTES = 0;  // the sanitizer guards
#else
static const size_t STACK_BYTES = 64 * 1024, GUARD_BYTES = 64;
#endif
static const size_t STACK_STRIDE = STACK_BYTES + 320;  // not a power of two: tops of stacks lie in different lines of the cache
static const uint64_t STACK_END = 0x5ca1ab1e0ddba11;

enum State : uint8_t { RUNNING, AT_BARRIER, AT_WARP, DONE };
struct Thread {
    Fiber fiber;
    uint3 index;
    unsigned mask;   // the lanes it waits for
    uint64_t given;  // its value in a shuffle
    State state;
};
struct Warp {
    unsigned living, waiting;  // one bit per lane
    unsigned met;              // the lanes of the last meeting, and their values
    uint64_t values[LANES];
};

static Thread threads[MOST_THREADS];
static Warp warps[MOST_THREADS / LANES];
static Fiber scheduler;
static char* stacks;
static unsigned count, started, living, at_barrier, current, fibers;
static bool reversed, failed;
static char message[400];
static void (*kernel)(char*);
static char* arguments;
static char* shared_memory;
static size_t shared_bytes;

[[noreturn]] static void leave() {
    Fiber never;
    switch_fiber(&never, &scheduler);
    abort();
}

static void complain(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof(message), format, values);
    va_end(values);
    failed = true;
}

static unsigned in_order(unsigned i, unsigned of) { return reversed ? of - 1 - i : i; }

static void become(unsigned thread) {
    current = thread;
    threadIdx = threads[thread].index;
    threads[thread].state = RUNNING;
}

// A fiber runs one thread after the other until one has to wait; the scheduler then starts another fiber for the rest of them.
static void fiber_main() {
    while (started < count) {
        become(in_order(started++, count));
        kernel(arguments);
        threads[current].state = DONE;
        warps[current / LANES].living &= ~(1u << current % LANES);
        --living;
    }
    leave();
}

static void wait(State why) {
    Thread& me = threads[current];
    me.state = why;
    switch_fiber(&me.fiber, &scheduler);
}

static void resume(unsigned thread) {
    become(thread);
    switch_fiber(&scheduler, &threads[thread].fiber);
}

// Lets the lanes of one warp go on that all wait for each other. False: there are none.
static bool meet(unsigned number) {
    Warp& warp = warps[number];
    Thread* lanes = threads + number * LANES;
    for (unsigned left = warp.waiting; left; left &= left - 1) {
        const unsigned first = __builtin_ctz(left), mask = lanes[first].mask, group = mask & warp.living;
        if ((warp.waiting & group) != group) continue;
        bool agreed = true;
        for (unsigned l = 0; l < LANES; ++l) agreed &= !(group >> l & 1) || lanes[l].mask == mask;
        if (!agreed) continue;
        for (unsigned l = 0; l < LANES; ++l) if (group >> l & 1) warp.values[l] = lanes[l].given;
        warp.met = group;
        warp.waiting &= ~group;
        for (unsigned i = 0; i < LANES && !failed; ++i) {
            const unsigned lane = in_order(i, LANES);
            if (group >> lane & 1) resume(number * LANES + lane);
        }
        return true;
    }
    return false;
}

static void explain_deadlock() {
    unsigned barrier = 0, warp = 0, example = 0;
    for (unsigned t = 0; t < count; ++t) {
        barrier += threads[t].state == AT_BARRIER;
        warp += threads[t].state == AT_WARP;
        if (threads[t].state == AT_WARP) example = t;
    }
    complain("barrier divergence in block (%u, %u, %u): %u of its threads wait at __syncthreads and %u, thread %u among them, at a "
             "__syncwarp or shuffle that the others of their warp do not reach", blockIdx.x, blockIdx.y, blockIdx.z, barrier, warp, example);
}

static void start_threads() {
    started = fibers = at_barrier = 0;
    living = count;
    for (unsigned w = 0; w * LANES < count; ++w) {
        const unsigned lanes = count - w * LANES;
        warps[w].living = lanes >= LANES ? ~0u : (1u << lanes) - 1;
        warps[w].waiting = 0;
    }
    while (started < count && !failed) {
        char* stack = stacks + STACK_STRIDE * ++fibers;  // the lowest one catches what the first thread has too much
        Fiber fiber;
        memcpy(stack, &STACK_END, sizeof(STACK_END));
        make_fiber(&fiber, stack, STACK_BYTES, fiber_main);
        switch_fiber(&scheduler, &fiber);
    }
}

static void run_block() {
    start_threads();
    const unsigned number_of_warps = (count + LANES - 1) / LANES;
    while (living && !failed) {
        bool moved = false;
        for (unsigned i = 0; i < number_of_warps; ++i)
            while (!failed && meet(in_order(i, number_of_warps))) moved = true;
        if (!failed && living && at_barrier == living) {
            moved = true;
            at_barrier = 0;
            for (unsigned i = 0; i < count && !failed; ++i)
                if (threads[in_order(i, count)].state == AT_BARRIER) resume(in_order(i, count));
        }
        if (!moved && !failed) explain_deadlock();
    }
    for (unsigned f = 1; f <= fibers && !failed; ++f)
        if (memcmp(stacks + STACK_STRIDE * f, &STACK_END, sizeof(STACK_END)))
            complain("a thread of block (%u, %u, %u) needs more than the %zu bytes of stack it has here",
                     blockIdx.x, blockIdx.y, blockIdx.z, STACK_BYTES);
}

// ---------------------------------------------------------------- launches
static bool allowed(const unsigned* grid, const unsigned* block) {
    const unsigned long long all = 1ull * block[0] * block[1] * block[2];
    if (!all || block[0] > 1024 || block[1] > 1024 || block[2] > 64 || all > MOST_THREADS)
        complain("a block of %u x %u x %u threads: a GPU takes 1 to 1024 of them, at most 64 along z", block[0], block[1], block[2]);
    else if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535)
        complain("a grid of %u x %u x %u blocks: a GPU takes 1 to 2147483647, 65535, 65535 of them", grid[0], grid[1], grid[2]);
    return !failed;
}

static void set_up(const unsigned* block, size_t shared) {
    if (!stacks) stacks = static_cast<char*>(malloc(STACK_STRIDE * (MOST_THREADS + 1)));
    for (unsigned t = 0; t < count; ++t)
        threads[t].index = {t % block[0], t / block[0] % block[1], t / (block[0] * block[1])};
    void* memory = nullptr;
    if (!stacks || posix_memalign(&memory, 128, shared + GUARD_BYTES + !GUARD_BYTES)) abort();
    shared_memory = static_cast<char*>(memory);
    shared_bytes = shared;
    memset(shared_memory + shared, 0xa5, GUARD_BYTES);
}

static void check_shared() {
    for (size_t i = 0; i < GUARD_BYTES && !failed; ++i)
        if (static_cast<unsigned char>(shared_memory[shared_bytes + i]) != 0xa5)
            complain("block (%u, %u, %u) writes beyond its %zu bytes of dynamic shared memory", blockIdx.x, blockIdx.y, blockIdx.z, shared_bytes);
}

// 0: done; 1: it failed, and message says why.
static int launch(void (*call)(char*), const unsigned* grid, const unsigned* block, size_t shared, char* packed) {
    failed = false;
    if (!allowed(grid, block)) return 1;
    const char* order = getenv("SHIM_REVERSED");
    reversed = order && *order && strcmp(order, "0");
    count = block[0] * block[1] * block[2];
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    kernel = call;
    arguments = packed;
    set_up(block, shared);
    for (unsigned z = 0; z < grid[2] && !failed; ++z)
        for (unsigned y = 0; y < grid[1] && !failed; ++y)
            for (unsigned x = 0; x < grid[0] && !failed; ++x) {
                blockIdx = {in_order(x, grid[0]), in_order(y, grid[1]), in_order(z, grid[2])};
                memset(shared_memory, 0xff, shared);  // NaN: what nobody has written shows
                run_block();
                check_shared();
            }
    free(shared_memory);
    return failed;
}

static inline void* dynamic_shared() { return shared_memory; }

// Arguments lie 16 bytes apart.
template <class... A, size_t... I> static void unpack(void (*function)(A...), char* packed, std::index_sequence<I...>) {
    function(*reinterpret_cast<std::remove_const_t<A>*>(packed + 16 * I)...);
}
template <class... A> static void call(void (*function)(A...), char* packed) { unpack(function, packed, std::index_sequence_for<A...>{}); }

// ---------------------------------------------------------------- what a function takes, as text: "float2*,int,"
template <class T> static const char* name_of() {
    if constexpr (std::is_same_v<T, float2>) return "float2";
    else if constexpr (std::is_same_v<T, float4>) return "float4";
    else if constexpr (std::is_same_v<T, double2>) return "double2";
    else if constexpr (std::is_same_v<T, int2>) return "int2";
    else if constexpr (std::is_same_v<T, int4>) return "int4";
    else if constexpr (std::is_same_v<T, uint2>) return "uint2";
    else if constexpr (std::is_same_v<T, ushort2>) return "ushort2";
    else if constexpr (std::is_same_v<T, float>) return "float";
    else if constexpr (std::is_same_v<T, double>) return "double";
    else if constexpr (std::is_same_v<T, bool>) return "bool";
    else if constexpr (std::is_integral_v<T>) {
        constexpr const char* names[2][4] = {{"uint8", "uint16", "uint32", "uint64"}, {"int8", "int16", "int32", "int64"}};
        return names[std::is_signed_v<T>][sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3];
    } else return "unknown";
}
template <class T> static void describe(char*& to) {
    using Plain = std::remove_cv_t<std::remove_pointer_t<T>>;
    to += sprintf(to, "%s%s,", name_of<Plain>(), std::is_pointer_v<T> ? "*" : "");
}
template <class... A> static const char* signature(void (*)(A...)) {
    static char text[sizeof...(A) * 16 + 1];
    char* to = text;
    (describe<std::remove_cv_t<A>>(to), ...);
    return text;
}

// ---------------------------------------------------------------- what kernels call
// Waits for the lanes of a mask; then their values, and which of them came, stand in the warp that it gives.
static const Warp& exchange(unsigned mask, uint64_t value) {
    Thread& me = threads[current];
    Warp& warp = warps[current / LANES];
    const unsigned lane = current % LANES;
    if (!(mask >> lane & 1)) {
        complain("thread %u of block (%u, %u, %u) is not in the mask of its own shuffle", current, blockIdx.x, blockIdx.y, blockIdx.z);
        leave();
    }
    me.given = value;
    me.mask = mask;
    warp.waiting |= 1u << lane;
    wait(AT_WARP);
    return warp;
}

template <class T> static T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "a shuffle takes numbers of 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    const Warp& warp = exchange(mask, bits);
    if (!(warp.met >> source & 1)) {
        complain("thread %u of block (%u, %u, %u) shuffles with lane %u, which has ended or does not exist",
                 current, blockIdx.x, blockIdx.y, blockIdx.z, source);
        leave();
    }
    memcpy(&value, &warp.values[source], sizeof(T));
    return value;
}

static unsigned ballot(unsigned mask, bool vote) {
    const Warp& warp = exchange(mask, vote);
    unsigned votes = 0;
    for (unsigned l = 0; l < LANES; ++l) votes |= unsigned((warp.met >> l & 1) && warp.values[l]) << l;
    return votes;
}

}  // namespace shim

static inline void __syncthreads() {
    ++shim::at_barrier;
    shim::wait(shim::AT_BARRIER);
}
static inline void __syncwarp(unsigned mask = ~0u) { shim::exchange(mask, 0); }
static inline unsigned __ballot_sync(unsigned mask, int vote) { return shim::ballot(mask, vote); }
static inline int __any_sync(unsigned mask, int vote) { return shim::ballot(mask, vote) != 0; }
static inline int __all_sync(unsigned mask, int vote) { return shim::ballot(mask, !vote) == 0; }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }
template <class T> static T __shfl_sync(unsigned mask, T value, int lane) { return shim::shuffle(mask, value, lane & 31); }
template <class T> static T __shfl_down_sync(unsigned mask, T value, unsigned by) {
    const unsigned lane = shim::current % 32;
    return shim::shuffle(mask, value, lane + by < 32 ? lane + by : lane);
}
template <class T> static T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return shim::shuffle(mask, value, (shim::current % 32) ^ (bits & 31));
}
template <class T> static T atomicAdd(T* at, std::common_type_t<T> value) {
    const T old = *at;
    *at = old + value;
    return old;
}
template <class T> static T atomicMax(T* at, std::common_type_t<T> value) {
    static_assert(std::is_integral_v<T>, "CUDA has atomicMax for integers only");
    const T old = *at;
    if (value > old) *at = value;
    return old;
}
template <class T> static T __ldg(const T* at) { return *at; }
static inline void __threadfence() {}
static inline int __float_as_int(float value) { int bits; memcpy(&bits, &value, 4); return bits; }
static inline float __int_as_float(int bits) { float value; memcpy(&value, &bits, 4); return value; }

template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline void sincospif(float x, float* sine, float* cosine) {
    const double angle = M_PI * std::remainder(double(x), 2.0);
    *sine = float(sin(angle));
    *cosine = float(cos(angle));
}
static inline void sincospi(double x, double* sine, double* cosine) {
    const double angle = M_PI * std::remainder(x, 2.0);
    *sine = sin(angle);
    *cosine = cos(angle);
}
static inline float sinpif(float x) { return float(sin(M_PI * std::remainder(double(x), 2.0))); }
static inline float cospif(float x) { return float(cos(M_PI * std::remainder(double(x), 2.0))); }
static inline float __fdividef(float a, float b) { return a / b; }
#define __sincosf sincosf  // the C library declares these names for itself
#define __expf expf
#define __logf logf

#define SHIM_EXPORT(NAME)                                                                                                              \
    extern "C" __attribute__((visibility("default"))) int shim_launch_##NAME(const unsigned* grid, const unsigned* block, size_t shared, \
                                                                            char* arguments) {                                         \
        return shim::launch([](char* packed) { shim::call(NAME, packed); }, grid, block, shared, arguments);                           \
    }                                                                                                                                  \
    extern "C" __attribute__((visibility("default"))) const char* shim_signature_##NAME() { return shim::signature(NAME); }
extern "C" __attribute__((visibility("default"))) const char* shim_message() { return shim::message; }
