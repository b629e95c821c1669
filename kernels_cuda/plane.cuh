// One plane of the recursion in one warp.
//
// Every layer maps the displacement q - p to itself. Displacements are taken modulo P: plane (a, b)
// holds, for every pixel (i, j) of x, its entry with pixel ((i + a) % P, (j + b) % P) of z, and meets
// no other plane. Lane j of the warp holds column j, all P rows in registers, from the first layer to
// the last. Lanes >= P repeat column 0; what they hold is finite and never read by others.
//
// In layer h, with the deviations d = sqrt(v) of that layer's input (kernels_cuda/README.md):
//     n  = d_x d_z,  u = 1 - S / n                       correlation c = 1 - u, 0 <= c from layer 2 on
//     K  = (n / 9) (1 - w)                               w = 1 - k1(c)
//     G  = (k0 / 9) T + K                                for each training's T
//     S <- box(K), T <- box(G)
//
// Real is float, or double where rounding 1 - c matters: in plane (0, 0), where two images may agree
// (self-pairs, shared backgrounds). There S, n and n - S are double; the square root, the polynomials
// and T are float in both.
//
// The host defines: P, CHANNELS; HIDDEN and ALL, 1 if some readout needs T of that training; WINDOWS,
// the number of LAP windows.

constexpr int LANES = 32;
constexpr unsigned WARP = 0xffffffffu;
constexpr int PIXELS = P * P;
constexpr int STATES = HIDDEN + ALL;          // T of training "hidden", then T of training "all"
constexpr int QUANTITIES = 1 + STATES;        // summed: K, (k0/9) T of "hidden", G of "all"
constexpr int POOLS = 1 + WINDOWS;            // the plain sum (V, GAP), then the LAP windows
constexpr int SUMS = POOLS * QUANTITIES;
constexpr int SLOTS = STATES ? STATES : 1;    // C++ has no empty arrays
static_assert(P <= LANES, "a lane holds one column");

constexpr float NINTH = 1.0f / 9;

// k0(c) / 9 and w / 9 = (1 - k1(c)) / 9 at c = 1 - u, 0 <= u <= 1, by
//     arccos(1 - u) = sqrt(u) p(u)               |error| <= 8.8e-8
//     w = u (1 - sqrt(u) q(u))                   |error| <= 8.0e-9
// Coefficients: scripts/fit_polynomials.py --degree-p 6 --degree-q 5, divided by 9 pi and by 9.
__device__ __forceinline__ void relu(float u, float& k0, float& w)
{
    constexpr double nine_pi = 9 * 3.14159265358979323846;
    const float s = sqrtf(u);
    float angle = float(2.611721116e-03 / nine_pi);
    angle = angle * u + float(-3.666930182e-03 / nine_pi);
    angle = angle * u + float(6.921749123e-03 / nine_pi);
    angle = angle * u + float(5.945320620e-03 / nine_pi);
    angle = angle * u + float(2.696291439e-02 / nine_pi);
    angle = angle * u + float(1.178066258e-01 / nine_pi);
    angle = angle * u + float(1.414214838e+00 / nine_pi);
    float bend = float(2.236311593e-04 / 9);
    bend = bend * u + float(-1.796684580e-04 / 9);
    bend = bend * u + float(8.382076632e-04 / 9);
    bend = bend * u + float(2.296368541e-03 / 9);
    bend = bend * u + float(1.502740420e-02 / 9);
    bend = bend * u + float(3.001039351e-01 / 9);
    k0 = NINTH - s * angle;
    w = u * (NINTH - s * bend);
}

// Rounded to float. A cast would cost two more instructions, to flush numbers below 1e-38 to 0.
__device__ __forceinline__ float single(float value) { return value; }
__device__ __forceinline__ float single(double value)
{
#ifdef __CUDA_ARCH__
    float rounded;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(rounded) : "d"(value));
    return rounded;
#else
    return float(value);
#endif
}

// u = 1 - S / n in [0, 1]. Where n = 0, S = 0 too, and saturation turns the NaN into 0.
__device__ __forceinline__ float one_minus(float S, float n)
{
    const float r = __fdividef(1, n);
#ifdef __CUDA_ARCH__
    float u;  // one instruction, for which CUDA has no intrinsic
    asm("fma.rn.ftz.sat.f32 %0, %1, %2, %3;" : "=f"(u) : "f"(-S), "f"(r), "f"(1.0f));
    return u;
#else
    return __saturatef(1 - S * r);
#endif
}

// The difference in double, the quotient in float: u to float's relative precision, however small.
__device__ __forceinline__ float one_minus(double S, double n)
{
    return __saturatef(single(n - S) * __fdividef(1, single(n)));
}

// Where the box sum must stop: at the borders of x and of z, which cut the cyclic plane.
template <class Real>
struct Seams {
    Real left, right;  // 1 if column j - 1 (j + 1) is a neighbour in both images, else 0
    int row;           // this row has none above it, and neither has row 0
};

template <class Real>
__device__ __forceinline__ Seams<Real> seams_of(int a, int b, int lane)
{
    return {Real(lane < P && lane != 0 && lane != P - b), Real(lane < P - 1 && lane != P - 1 - b), P - a};
}

// 3x3 box sums of a plane whose rows arrive from top to bottom. `sums` may hold what the row's entries
// are computed from: row i overwrites only rows i - 1 and i.
template <class Real>
struct Box {
    Real above;  // the row above, summed across

    __device__ __forceinline__ void add(int i, Real value, Real (&sums)[P], const Seams<Real>& seams)
    {
        Real across = value + seams.left * __shfl_up_sync(WARP, value, 1);
        across += seams.right * __shfl_down_sync(WARP, value, 1);
        sums[i] = across;
        if (i > 0) {
            Real open = i != seams.row;
            sums[i] += open * above;
            sums[i - 1] += open * across;
        }
        above = across;
    }
};

template <class Real>
struct Plane {
    Real S[P];
    float T[SLOTS][P];
};

// Sums over a plane's entries, weighted by m(i, i + a) m(j, j + b) for LAP windows.
template <class Real>
struct Sums {
    float row_weight[POOLS], column_weight[POOLS];  // of row and column number `lane`
    Real sum[POOLS][QUANTITIES];

    __device__ __forceinline__ Sums(const float* weights, int a, int b, int lane)
    {
        row_weight[0] = column_weight[0] = lane < P;
#pragma unroll
        for (int w = 1; w < POOLS; ++w, weights += PIXELS) {
            row_weight[w] = lane < P ? weights[lane * P + (lane + a) % P] : 0;
            column_weight[w] = lane < P ? weights[lane * P + (lane + b) % P] : 0;
        }
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int k = 0; k < SUMS; ++k) sum[k / QUANTITIES][k % QUANTITIES] = 0;
    }

    __device__ __forceinline__ void add(int i, int quantity, Real value)
    {
        sum[0][quantity] += value;
#pragma unroll
        for (int w = 1; w < POOLS; ++w) sum[w][quantity] += __shfl_sync(WARP, row_weight[w], i) * value;
    }

    // Over the lanes, in an order that never changes: out[pool][quantity].
    __device__ __forceinline__ void write(int lane, bool wanted, Real* out)
    {
#pragma unroll
        for (int k = 0; k < SUMS; ++k) {
            Real value = column_weight[k / QUANTITIES] * sum[k / QUANTITIES][k % QUANTITIES];
#pragma unroll
            for (int distance = LANES / 2; distance; distance /= 2)
                value += __shfl_xor_sync(WARP, value, distance);
            if (wanted && lane == 0) out[k] = value;
        }
    }
};

// One layer: x, z point to this lane's column of the deviations, from row 0 and from row a on.
template <bool FIRST, bool READ, class Real>
__device__ __forceinline__ void layer(const Real* x, const Real* z, const Seams<Real>& seams,
                                      Plane<Real>& plane, Sums<Real>& sums)
{
    Box<Real> box_S;
    Box<float> box_T[SLOTS];
    const Seams<float> seams_T = {float(seams.left), float(seams.right), seams.row};
    if (READ) sums.clear();
#pragma unroll
    for (int i = 0; i < P; ++i) {
        Real n = x[i * P] * z[i * P], S = plane.S[i], one = Real(1) / 9;
        float u = one_minus(FIRST ? fabs(S) : S, n), k0, w;
        relu(u, k0, w);
        if (FIRST && S < 0) {  // k0(c) = 1 - k0(-c), k1(c) = k1(-c) + c
            k0 = NINTH - k0;
            one = u * one;
        }
        Real K = n * (one - w);
        if (READ) sums.add(i, 0, K);
#pragma unroll
        for (int t = 0; t < STATES; ++t) {
            float H = k0 * plane.T[t][i], G = H + single(n) * (single(one) - w);
            if (READ) sums.add(i, 1 + t, HIDDEN && t == 0 ? H : G);
            box_T[t].add(i, G, plane.T[t], seams_T);
        }
        box_S.add(i, K, plane.S, seams);
    }
}

// Copies one plane of each of some images after another into shared memory, a step ahead of its use.
// An image's planes: its channels, then the deviations of every layer's input.
template <class Real, int IMAGES, int THREADS>
struct Stages {
    struct alignas(16) Vector { int words[4]; };
    template <bool, class A, class> struct Choice { using type = A; };
    template <class A, class B> struct Choice<false, A, B> { using type = B; };
    using Word = typename Choice<PIXELS * sizeof(Real) % sizeof(Vector) == 0, Vector, Real>::type;
    static constexpr int WORDS = PIXELS * sizeof(Real) / sizeof(Word);

    const Real* images[IMAGES];
    Real* shared;  // 2 buffers of IMAGES planes
    int count, next;

    // All threads of the block, as all that follow: before the first advance.
    __device__ __forceinline__ void start() { copy(); }

    // The next planes [IMAGES][PIXELS], valid until the following call.
    __device__ __forceinline__ const Real* advance()
    {
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.wait_all;" ::: "memory");
#endif
        __syncthreads();
        const Real* ready = buffer();
        if (++next < count) copy();
        return ready;
    }

    static __device__ __forceinline__ void copy(Word* to, const Word* from)
    {
#if __CUDA_ARCH__ >= 800
        const unsigned address = __cvta_generic_to_shared(to);
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                     ::"r"(address), "l"(from), "n"(sizeof(Word)));
#else
        *to = *from;
#endif
    }

    __device__ __forceinline__ Real* buffer() { return shared + next % 2 * IMAGES * PIXELS; }

    __device__ __forceinline__ void copy()
    {
#pragma unroll
        for (int image = 0; image < IMAGES; ++image) {
            Word* to = reinterpret_cast<Word*>(buffer() + image * PIXELS) + threadIdx.x;
            const Word* from = reinterpret_cast<const Word*>(images[image] + next * PIXELS) + threadIdx.x;
#pragma unroll
            for (int k = 0; k < WORDS; k += THREADS)
                if (WORDS % THREADS == 0 || k + threadIdx.x < WORDS) copy(to + k, from + k);
        }
    }
};

// The whole recursion of one plane: x, z are offsets into a stage's planes, of this lane's column.
// Sums of the layers listed in `reads` (ascending, the last is the last layer) go to out[read][SUMS].
template <class Real, class S>
__device__ __forceinline__ void recursion(S& stages, int x, int z, const Seams<Real>& seams, Sums<Real>& sums,
                                          const int* reads, int lane, bool wanted, Real* out)
{
    stages.start();
    Plane<Real> plane;
#pragma unroll
    for (int i = 0; i < P; ++i) plane.S[i] = 0;
    for (int channel = 0; channel < CHANNELS; ++channel) {
        const Real* pixels = stages.advance();
#pragma unroll
        for (int i = 0; i < P; ++i) plane.S[i] += pixels[x + i * P] * pixels[z + i * P];
    }
    Box<Real> box;
#pragma unroll
    for (int i = 0; i < P; ++i) box.add(i, plane.S[i], plane.S, seams);
#pragma unroll
    for (int i = 0; i < P; ++i) {
        if (HIDDEN) plane.T[0][i] = 0;
        if (ALL) plane.T[HIDDEN][i] = single(plane.S[i]);
    }
    const int layers = stages.count - CHANNELS;
    for (int h = 1; h <= layers; ++h) {
        const Real* deviations = stages.advance();
        const bool read = h == *reads;
        if (h == 1)
            layer<true, true>(deviations + x, deviations + z, seams, plane, sums);
        else if (read)
            layer<false, true>(deviations + x, deviations + z, seams, plane, sums);
        else
            layer<false, false>(deviations + x, deviations + z, seams, plane, sums);
        if (read) {
            sums.write(lane, wanted, out);
            out += SUMS;
            ++reads;
        }
    }
}
