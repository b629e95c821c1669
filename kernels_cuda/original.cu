// Rung 0: the original algorithm, the baseline that benchmarks compare with; scripts/original.py runs it.
//
// S and T are whole arrays (P, P, P, P) in global memory, [i, j, k, l] for pixel (i, j) of x and (k, l)
// of z. Every layer reads and writes them twice: once for the activation, once for the box sums. One
// block per displacement (a, b), -P < a, b < P, one thread per pixel of x: threads whose pixel of z would
// lie beyond the border idle, three quarters of all.
//
// Grid of every kernel: (2P - 1)^2 blocks of P^2 threads. The host defines P and CHANNELS.
constexpr int PIXELS = P * P;
constexpr float PI = 3.14159265358979f, SCALE = 1 / (9 * PI);

struct Entry {
    int i, j;          // pixel of x, and place in the displacement's plane
    int pixel, other;  // of x and of z
    int index;         // into S and T
    bool inside;       // both pixels exist
};

__device__ __forceinline__ Entry entry()
{
    const int i = threadIdx.x / P, j = threadIdx.x % P;
    const int k = i + int(blockIdx.x / (2 * P - 1)) - P + 1, l = j + int(blockIdx.x % (2 * P - 1)) - P + 1;
    const bool inside = 0 <= k && k < P && 0 <= l && l < P;
    return {i, j, i * P + j, k * P + l, (i * P + j) * PIXELS + k * P + l, inside};
}

// S = sum_c x_c z_c for x, z (CHANNELS, P, P).
extern "C" __global__ void products(const float* x, const float* z, float* S)
{
    const Entry at = entry();
    if (!at.inside) return;
    float sum = 0;
    for (int channel = 0; channel < CHANNELS; ++channel)
        sum += x[channel * PIXELS + at.pixel] * z[channel * PIXELS + at.other];
    S[at.index] = sum;
}

// A <- box(A), which never leaves a displacement's plane.
extern "C" __global__ void box(float* A)
{
    __shared__ float plane[P + 2][P + 2];  // zero around
    const Entry at = entry();
    for (int k = threadIdx.x; k < (P + 2) * (P + 2); k += PIXELS) plane[k / (P + 2)][k % (P + 2)] = 0;
    __syncthreads();
    if (at.inside) plane[at.i + 1][at.j + 1] = A[at.index];
    __syncthreads();
    if (!at.inside) return;
    float sum = 0;
#pragma unroll
    for (int row = 0; row < 3; ++row)
#pragma unroll
        for (int column = 0; column < 3; ++column) sum += plane[at.i + row][at.j + column];
    A[at.index] = sum;
}

// T <- S if the first layer is trained, else 0.
extern "C" __global__ void start(const float* S, float* T, int trained)
{
    const Entry at = entry();
    if (at.inside) T[at.index] = trained ? S[at.index] : 0;
}

// S <- K, T <- G, with the deviations x, z (P, P) of the layer's input.
extern "C" __global__ void activate(const float* x, const float* z, float* S, float* T)
{
    const Entry at = entry();
    if (!at.inside) return;
    const float n = x[at.pixel] * z[at.other];
    const float c = n > 0 ? fmaxf(-1, fminf(S[at.index] / n, 1)) : 0;
    const float angle = PI - acosf(c);
    const float K = n * SCALE * (c * angle + sqrtf(1 - c * c));
    S[at.index] = K;
    T[at.index] = SCALE * angle * T[at.index] + K;
}

// out (2, blocks): each plane's sum of S, and of T, minus S if `hidden`, when the last layer is not trained.
extern "C" __global__ void sums(const float* S, const float* T, int hidden, float* out)
{
    __shared__ float part[2][PIXELS];
    const Entry at = entry();
    part[0][threadIdx.x] = at.inside ? S[at.index] : 0;
    part[1][threadIdx.x] = at.inside ? T[at.index] - (hidden ? S[at.index] : 0) : 0;
    for (int count = PIXELS; count > 1;) {
        const int half = (count + 1) / 2;
        __syncthreads();
        if (threadIdx.x + half < count)
            for (int k = 0; k < 2; ++k) part[k][threadIdx.x] += part[k][threadIdx.x + half];
        count = half;
    }
    __syncthreads();
    if (threadIdx.x < 2) out[threadIdx.x * gridDim.x + blockIdx.x] = part[threadIdx.x][0];
}
