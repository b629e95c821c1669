// Copies the stages of images into shared memory.

#ifdef __CUDA_ARCH__  // else the stand-in for CUDA in tests/ defines the two functions
// Copies a Word to shared memory; from sm_80 on asynchronously, until `await_copies`.
template <class Word>
__device__ __forceinline__ void copy_later(float* to, const float* from)
{
#if __CUDA_ARCH__ >= 800
    const unsigned address = __cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from), "n"(sizeof(Word)));
#else
    *reinterpret_cast<Word*>(to) = *reinterpret_cast<const Word*>(from);
#endif
}

// Waits for this thread's copies; a barrier then makes sure of the whole block's.
__device__ __forceinline__ void await_copies()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
#endif

// Copies some images' stages into shared memory, one stage after another; with two buffers, ahead of its use.
// An image's stages: its channels, then the deviations of every layer's input; each PARTS planes. The
// last ROTATED images are rotated, so that row i is row (i + shift) % P.
template <int PARTS, int IMAGES, int ROTATED, int RING, int THREADS>
struct Stages {
    struct alignas(16) Vector { int words[4]; };
    static constexpr int STAGE = PARTS * PLANE, ALL_IMAGES = IMAGES * STAGE, COPIERS = THREADS / LANES;

    const float* images[IMAGES];  // from `start` on: what this thread copies next
    float* shared;                // RING buffers of IMAGES stages
    int left;                     // stages still to be copied
    int buffer;                   // the one that is copied to next
    bool row;                     // this lane has a row to copy

    // Called by all threads of the block, like the functions below, and before the first `advance`.
    __device__ __forceinline__ void start(int count, int shift)
    {
        const int lane = threadIdx.x % LANES;
        left = count, buffer = 0, row = lane < P;
#pragma unroll
        for (int k = 0; k < IMAGES; ++k)
            images[k] += k < IMAGES - ROTATED ? 4 * threadIdx.x
                                              : threadIdx.x / LANES * STRIDE + (lane + shift) % P;
        if (RING > 1) copy();
    }

    // The next stages [IMAGES][STAGE], valid until the following call.
    __device__ __forceinline__ const float* advance()
    {
        if (RING == 1) {
            __syncthreads();
            copy();
        }
        await_copies();
        __syncthreads();
        const float* ready = shared + (RING > 1 ? ALL_IMAGES - buffer : 0);
        if (RING > 1 && left) copy();
        return ready;
    }

    __device__ __forceinline__ void copy()
    {
        float* to = shared + buffer + 4 * threadIdx.x;
#pragma unroll
        for (int image = 0; image < IMAGES - ROTATED; ++image)
#pragma unroll
            for (int k = 0; k < STAGE; k += 4 * THREADS)
                if (k + 4 * THREADS <= STAGE || k + 4 * threadIdx.x < STAGE)
                    copy_later<Vector>(to + image * STAGE + k, images[image] + k);
        // Each lane copies its row of one column after another, from where that row lies in the image.
        to = shared + buffer + threadIdx.x / LANES * STRIDE + threadIdx.x % LANES;
#pragma unroll
        for (int image = IMAGES - ROTATED; image < IMAGES; ++image)
#pragma unroll
            for (int k = 0; k < STAGE; k += COPIERS * STRIDE)
                if (row && (k + COPIERS * STRIDE <= STAGE || k + threadIdx.x / LANES * STRIDE < STAGE))
                    copy_later<float>(to + image * STAGE + k, images[image] + k);
#pragma unroll
        for (int image = 0; image < IMAGES; ++image) images[image] += STAGE;
        if (RING > 1) buffer = ALL_IMAGES - buffer;
        --left;
    }
};
