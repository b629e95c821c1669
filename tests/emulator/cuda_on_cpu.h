// As much of CUDA as the kernels use, on the CPU: the threads of a block are fibres of one OS thread.
//
// A fibre runs until it waits at a shuffle, __syncwarp or __syncthreads; the scheduler then takes the
// next one. Between two waits the lanes of a warp, and the warps of a block, run in a selectable order:
// forward, reversed or shuffled by a seed. A correct kernel gives the same bits in all of them. A wait
// that some threads never reach is reported, not hung on.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ thread_local  // static storage for arrays in functions; may follow `extern`

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

#if defined(__x86_64__) && defined(__linux__)
// Saves the callee-saved registers on this stack, its pointer in *from, and goes on with the stack `to`.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.local emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rdx
    jmp *%rdx  # where a ret would be mispredicted
)");

struct Context {
    void* stack_pointer;
    void start(void* stack, size_t bytes, void (*entry)())
    {
        // As if `entry` had been called by nobody and then switched away from.
        void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15));
        *--top = nullptr;
        *--top = reinterpret_cast<void*>(entry);
        for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
        stack_pointer = top;
    }
    static void change(Context& from, Context& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }
};
#else
#include <ucontext.h>
struct Context {
    ucontext_t saved;
    void start(void* stack, size_t bytes, void (*entry)())
    {
        getcontext(&saved);
        saved.uc_stack.ss_sp = stack;
        saved.uc_stack.ss_size = bytes;
        saved.uc_link = nullptr;
        makecontext(&saved, entry, 0);
    }
    static void change(Context& from, Context& to) { swapcontext(&from.saved, &to.saved); }
};
#endif

// While it lives, denormal numbers count as 0, as on a GPU with -ftz=true.
struct FlushDenormals {
#if defined(__x86_64__)
    unsigned saved = __builtin_ia32_stmxcsr();
    FlushDenormals() { __builtin_ia32_ldmxcsr(saved | 0x8040); }
    ~FlushDenormals() { __builtin_ia32_ldmxcsr(saved); }
#elif defined(__aarch64__)
    uint64_t saved;
    FlushDenormals()
    {
        asm volatile("mrs %0, fpcr" : "=r"(saved));
        asm volatile("msr fpcr, %0" ::"r"(saved | 1 << 24));
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved)); }
#endif
};

enum Order { FORWARD, REVERSED, SHUFFLED };
enum Wait { READY, AT_WARP, AT_BLOCK, DONE };
constexpr unsigned LANES = 32, MOST_WARPS = 32;
constexpr size_t STACK = 1 << 16;
constexpr size_t GUARD = 1024;  // bytes behind the dynamic shared memory, watched for writes

struct Fibre {
    Context context;
    dim3 index;
};

struct Copy {
    void* to;
    const void* from;
    size_t bytes;
    void make() const { memcpy(to, from, bytes); }
};

struct Warp {
    Fibre fibres[LANES];
    unsigned size, count[DONE + 1];  // lanes, and how many of them wait for what
    uint64_t exchanged[2][LANES];    // a lane may write the next value while others still read this one
    unsigned turn[LANES];
    std::vector<Copy> copies[LANES];  // asked for, not made yet
};

static struct {
    Warp warps[MOST_WARPS];
    unsigned size;  // warps
    Context scheduler;
    Warp* warp;            // running now
    unsigned lane, taken;  // which of its lanes, and how many of them had their turn
    unsigned char turns[LANES];
    void (*body)(void*);
    void* arguments;
    Order order;
    uint64_t random;
} block;

// The next lane of the running warp, or the scheduler if all of them wait.
inline Context& next()
{
    if (block.taken == block.warp->size) return block.scheduler;
    Fibre& fibre = block.warp->fibres[block.lane = block.turns[block.taken++]];
    threadIdx = fibre.index;
    return fibre.context;
}

inline void wait(Wait why)
{
    Fibre& fibre = block.warp->fibres[block.lane];
    --block.warp->count[READY];
    ++block.warp->count[why];
    Context::change(fibre.context, next());
}

inline void release(Warp& warp, Wait from)
{
    warp.count[from] = 0;
    warp.count[READY] = warp.size;
}

inline void fibre_entry()
{
    block.body(block.arguments);
    wait(DONE);
}

inline uint64_t draw()  // xorshift64
{
    uint64_t& r = block.random;
    return r ^= r << 13, r ^= r >> 7, r ^= r << 17;
}

// The order in which `count` things take their turn.
inline void arrange(unsigned char* turns, unsigned count)
{
    for (unsigned k = 0; k < count; ++k) turns[k] = block.order == REVERSED ? count - 1 - k : k;
    if (block.order != SHUFFLED) return;
    for (unsigned k = count; k > 1; --k) std::swap(turns[k - 1], turns[draw() % k]);
}

// Runs every lane of a warp to its next wait. Null, or what went wrong.
inline const char* run(Warp& warp)
{
    arrange(block.turns, warp.size);
    block.warp = &warp;
    block.taken = 0;
    Context::change(block.scheduler, next());
    if (warp.count[AT_WARP] == warp.size) release(warp, AT_WARP);
    return warp.count[AT_WARP] ? "some lanes of a warp do not reach a shuffle or __syncwarp" : nullptr;
}

inline const char* run_block()
{
    for (;;) {
        // Forward and reversed take a warp as far as it goes; shuffled, for a few waits or for many.
        for (bool busy = true; busy;) {
            busy = false;
            unsigned char warps[MOST_WARPS];
            arrange(warps, block.size);
            for (unsigned k = 0; k < block.size; ++k) {
                Warp& warp = block.warps[warps[k]];
                const unsigned most = block.order == SHUFFLED ? 1u << draw() % 10 : ~0u;
                for (unsigned waits = 0; waits < most && warp.count[READY]; ++waits)
                    if (const char* error = run(warp)) return error;
                busy |= warp.count[READY] != 0;
            }
        }
        unsigned threads = 0, done = 0;
        for (unsigned k = 0; k < block.size; ++k) {
            threads += block.warps[k].size;
            done += block.warps[k].count[DONE];
        }
        if (done == threads) return nullptr;
        if (done) return "some threads of a block do not reach a __syncthreads";
        for (unsigned k = 0; k < block.size; ++k) release(block.warps[k], AT_BLOCK);
    }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    void** arguments;
    static void run(void* self)
    {
        Call& c = *static_cast<Call*>(self);
        call(c.kernel, c.arguments, std::index_sequence_for<A...>());
    }
};

// Runs the grid; arguments[k] points to the kernel's k-th argument. Null, or what went wrong.
template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* threads, void* shared,
                   size_t shared_bytes, size_t shared_limit, void** arguments, int order, uint64_t seed)
{
    const FlushDenormals as_a_gpu_does;
    Call<A...> bound = {kernel, arguments};
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads[0], threads[1], threads[2]};
    const unsigned count = threads[0] * threads[1] * threads[2];
    if (count > LANES * MOST_WARPS) return "more threads a block than CUDA allows";
    if (shared_bytes > shared_limit) return "more dynamic shared memory than the header provides";
    const size_t guard = shared_limit - shared_bytes < GUARD ? shared_limit - shared_bytes : GUARD;
    block.size = (count + LANES - 1) / LANES;
    block.body = Call<A...>::run;
    block.arguments = &bound;
    block.order = Order(order);
    block.random = seed * 2654435761u + 88172645463325252u;
    char* stacks = static_cast<char*>(malloc(count * STACK));
    const char* error = nullptr;
    for (unsigned b = 0; b < grid[0] * grid[1] * grid[2] && !error; ++b) {
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        memset(shared, 0xff, shared_bytes + guard);  // NaN until written
        for (unsigned t = 0; t < count; ++t) {
            Warp& warp = block.warps[t / LANES];
            Fibre& fibre = warp.fibres[t % LANES];
            fibre.index = {t % threads[0], t / threads[0] % threads[1], t / threads[0] / threads[1]};
            fibre.context.start(stacks + t * STACK, STACK, fibre_entry);
            warp.size = t % LANES + 1;
            warp.turn[t % LANES] = 0;
            warp.copies[t % LANES].clear();
        }
        for (unsigned k = 0; k < block.size; ++k) {
            memset(block.warps[k].count, 0, sizeof(block.warps[k].count));
            release(block.warps[k], READY);
        }
        error = run_block();
        for (size_t k = shared_bytes; k < shared_bytes + guard && !error; ++k)
            if (static_cast<unsigned char*>(shared)[k] != 0xff)
                error = "wrote beyond the dynamic shared memory";
    }
    free(stacks);
    return error;
}

template <class T>
T exchange(T value, unsigned from_lane)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most 64 bits");
    Warp& warp = *block.warp;
    const unsigned lane = block.lane, turn = warp.turn[lane]++ % 2;
    memcpy(&warp.exchanged[turn][lane], &value, sizeof(T));
    wait(AT_WARP);
    memcpy(&value, &warp.exchanged[turn][from_lane], sizeof(T));
    return value;
}

}  // namespace emulator

// A copy in the background is made at once, or when it is awaited: forward and reversed; shuffled, by chance.
template <class Word>
void copy_later(float* to, const float* from)
{
    const emulator::Copy copy = {to, from, sizeof(Word)};
    const bool now = emulator::block.order == emulator::SHUFFLED ? emulator::draw() % 2
                                                                 : emulator::block.order == emulator::FORWARD;
    if (now)
        copy.make();
    else
        emulator::block.warp->copies[emulator::block.lane].push_back(copy);
}
inline void await_copies()
{
    auto& copies = emulator::block.warp->copies[emulator::block.lane];
    for (const emulator::Copy& copy : copies) copy.make();
    copies.clear();
}

inline void __syncthreads() { emulator::wait(emulator::AT_BLOCK); }
inline void __syncwarp(unsigned = ~0u) { emulator::wait(emulator::AT_WARP); }

template <class T>
T __shfl_sync(unsigned, T value, int lane)
{
    return emulator::exchange(value, lane % emulator::LANES);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask)
{
    return emulator::exchange(value, (emulator::block.lane ^ mask) % emulator::LANES);
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned distance)
{
    const unsigned lane = emulator::block.lane;
    return emulator::exchange(value, lane < distance ? lane : lane - distance);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned distance)
{
    const unsigned lane = emulator::block.lane;
    return emulator::exchange(value, lane + distance < emulator::LANES ? lane + distance : lane);
}

using std::fabs;
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }  // NaN becomes 0

// A GPU's fast quotient and square root are off by a unit in the last place or two; so are these, at random
// but the same for the same value, if the compiler is told how many ULPS.
#ifndef ULPS
#define ULPS 0
#endif
inline float approximately(float x)
{
    if (!ULPS) return x;
    unsigned bits;
    memcpy(&bits, &x, sizeof(bits));
    bits *= 2654435761u, bits ^= bits >> 15, bits *= 2246822519u;
    return x + x * (ULPS * 1.1920929e-7f * (int(bits >> 16) - 32768) / 32768);
}
inline float __fmul_rn(float a, float b)
{
    volatile float product = a * b;  // which no compiler fuses with an addition
    return product;
}
inline float __fdividef(float a, float b) { return approximately(a / b); }
inline float fast_sqrt(float x) { return approximately(std::sqrt(x)); }
#define sqrtf fast_sqrt
