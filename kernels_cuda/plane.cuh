// One plane of the recursion in one warp, or COLUMNS planes beside each other.
//
// Every layer maps the displacement q - p to itself. Displacements are taken modulo P: plane (a, b)
// holds, for every pixel (i, j) of x, its entry with pixel ((i + a) % P, (j + b) % P) of z, and meets
// no other plane. A lane holds COLUMNS neighbouring columns, all P rows in registers, from the first
// layer to the last. Columns beyond the last repeat column 0; what they hold is finite and never read.
//
// Real is float, or FloatFloat where rounding 1 - c matters: in plane (0, 0), where two images may agree
// (self-pairs, shared backgrounds). There S, n and n - S are FloatFloat, all else is float in both.
//
// The host defines: P, CHANNELS, COLUMNS; HIDDEN and ALL, 1 if some readout needs T of that training;
// WINDOWS, the number of LAP windows.

constexpr unsigned WARP = 0xffffffffu;
constexpr int WIDTH = LANES / COLUMNS;        // lanes of a plane
constexpr int STATES = HIDDEN + ALL;          // T of training "hidden", then T of training "all"
constexpr int QUANTITIES = 1 + STATES;        // summed: K, then G of each training
constexpr int POOLS = 1 + WINDOWS;            // the plain sum (V, GAP), then the LAP windows
constexpr int SUMS = POOLS * QUANTITIES;
constexpr int SLOTS = STATES ? STATES : 1;    // C++ has no empty arrays

__device__ __forceinline__ float from_left(float a) { return __shfl_up_sync(WARP, a, 1); }
__device__ __forceinline__ float from_right(float a) { return __shfl_down_sync(WARP, a, 1); }
__device__ __forceinline__ FloatFloat from_left(FloatFloat a) { return {from_left(a.hi), from_left(a.lo)}; }
__device__ __forceinline__ FloatFloat from_right(FloatFloat a) { return {from_right(a.hi), from_right(a.lo)}; }

// This lane's columns, and where the box sum must stop: at the borders of x and of z, which cut the
// cyclic plane. Masks are 1 where two columns are neighbours in both images, else 0.
struct Columns {
    int x, z;                   // place of column 0 in a plane of x, and of z
    int next_x, next_z;         // from there to column number 1
    float left, inner, right;   // between the lane before and column 0, the two columns, the last and the lane after
};

__device__ __forceinline__ Columns columns_of(int lane, int b)
{
    const int first = lane % WIDTH * COLUMNS, last = first + COLUMNS - 1;
    const int column = first < P ? first : 0, other = last < P ? last : 0, seam = P - b;
    Columns at;
    at.x = place(column), at.next_x = place(other) - at.x;
    at.z = place((column + b) % P), at.next_z = place((other + b) % P) - at.z;
    at.left = first < P && first != 0 && first != seam;
    at.inner = last < P && last != seam;
    at.right = last < P - 1 && last + 1 != seam;
    return at;
}

// Rows are neighbours but at the borders of x and of z, too: open[i] is 1 if row i - 1 is a neighbour of
// row i. A kernel's parameter, so that an addition takes it as an operand, at no cost.
struct Rows {
    float open[P];
    __device__ __forceinline__ float operator[](int i) const { return open[i]; }
};
struct AllRows {
    __device__ __forceinline__ float operator[](int) const { return 1; }
};

// 3x3 box sums of a plane whose rows arrive from top to bottom. `sums` may hold what the row's entries are
// computed from: row i overwrites only rows i - 2 .. i.
//
// Two rows that are neighbours share their sum: 3 additions for both, not 4. ODD: such pairs begin at row
// 1, not 0, so that no seam lies inside one.
template <class Real, int ODD, class Opening>
struct Box {
    Real above[COLUMNS], first[COLUMNS];  // the rows i - 2 and i - 1, each summed across

    __device__ __forceinline__ void row(int i, const Real (&values)[COLUMNS], Real (&sums)[P][COLUMNS],
                                        const Columns& at, const Opening& open)
    {
        const Real left = from_left(values[COLUMNS - 1]), right = from_right(values[0]);
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            Real across = add(values[k], k ? at.inner : at.left, k ? values[0] : left);
            across = add(across, k < COLUMNS - 1 ? at.inner : at.right, k < COLUMNS - 1 ? values[COLUMNS - 1] : right);
            const bool second = i % 2 != ODD && i > 0;
            if (second) {
                const Real both = add(first[k], 1, across);
                sums[i][k] = both;
                sums[i - 1][k] = i > 1 ? add(both, open[i - 1], above[k]) : both;
                if (i > 1) sums[i - 2][k] = add(sums[i - 2][k], open[i - 1], first[k]);
                above[k] = across;
            } else if (i == P - 1) {
                sums[i][k] = i > 0 ? add(across, open[i], above[k]) : across;
                if (i > 0) sums[i - 1][k] = add(sums[i - 1][k], open[i], across);
            } else if (i == 0 && ODD) {
                sums[0][k] = above[k] = across;
            } else {
                first[k] = across;
            }
        }
    }
};

template <class Real>
struct Plane {
    Real S[P][COLUMNS];
    float T[SLOTS][P][COLUMNS];
};

// Sums over a plane's entries, weighted by m(i, i + a) m(j, j + b) for LAP windows.
struct Sums {
    const float *rows, *columns;  // (WINDOWS, P, P): m(i, (i + a) % P) at [a][i]; here from a, from b on
    float sum[POOLS][QUANTITIES][COLUMNS];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int k = 0; k < SUMS * COLUMNS; ++k) (&sum[0][0][0])[k] = 0;
    }

    __device__ __forceinline__ void add(int i, int quantity, int k, float value)
    {
        sum[0][quantity][k] += value;
#pragma unroll
        for (int w = 1; w < POOLS; ++w) sum[w][quantity][k] += rows[(w - 1) * P * P + i] * value;
    }

    // Over the lanes, in an order that never changes: out[pool][quantity].
    __device__ __forceinline__ void write(int lane, bool wanted, float* out)
    {
        const int first = lane % WIDTH * COLUMNS;
#pragma unroll
        for (int s = 0; s < SUMS; ++s) {
            const int pool = s / QUANTITIES;
            float value = 0;
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k)
                if (first + k < P)
                    value += (pool ? columns[(pool - 1) * P * P + first + k] : 1) * sum[pool][s % QUANTITIES][k];
#pragma unroll
            for (int distance = WIDTH / 2; distance; distance /= 2)
                value += __shfl_xor_sync(WARP, value, distance);
            if (wanted && first == 0) out[s] = value;
        }
    }
};

// Four rows of a column.
__device__ __forceinline__ void load(const float* column, float (&rows)[4])
{
    const float4 four = *reinterpret_cast<const float4*>(column);
    rows[0] = four.x, rows[1] = four.y, rows[2] = four.z, rows[3] = four.w;
}
__device__ __forceinline__ void load(const float* column, FloatFloat (&rows)[4])
{
    float hi[4], lo[4];
    load(column, hi);
    load(column + PLANE, lo);
#pragma unroll
    for (int k = 0; k < 4; ++k) rows[k] = {hi[k], lo[k]};
}

template <class Real>
struct Deviations {  // of four rows, this lane's columns
    Real x[COLUMNS][4], z[COLUMNS][4];
    __device__ __forceinline__ void read(const float* planes_x, const float* planes_z, const Columns& at, int i)
    {
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            load(planes_x + at.x + k * at.next_x + i, x[k]);
            load(planes_z + at.z + k * at.next_z + i, z[k]);
        }
    }
};

// u = 1 - a b in [0, 1]; NaN becomes 0. One instruction, for which CUDA has no intrinsic.
__device__ __forceinline__ float one_minus(float a, float b)
{
#ifdef __CUDA_ARCH__
    float u;
    asm("fma.rn.ftz.sat.f32 %0, %1, %2, %3;" : "=f"(u) : "f"(-a), "f"(b), "f"(1.0f));
    return u;
#else
    return __saturatef(1 - a * b);
#endif
}

// One entry of one layer: S becomes K; returns k0 / 9. n = d_x d_z, scaled as deviations.cu says.
template <bool FIRST>
__device__ __forceinline__ float activate(float n, float& S)
{
    const float size = FIRST ? fabsf(S) : S;
    const float D = TILT * size + n;
    const Angle t = angle<true>(one_minus(size, __fdividef(1, D)));
    float k0 = NINTH - t.z * (1 + t.y * t.f);
    if (FIRST && S < 0) k0 = NINTH - k0;  // k0(c) = 1 - k0(-c)
    S = t.z * D + S * k0;
    return k0;
}
template <bool FIRST>
__device__ __forceinline__ float activate(FloatFloat n, FloatFloat& S)
{
    const bool negative = FIRST && S.hi < 0;
    const FloatFloat size = negative ? -S : S;
    const float gap = NARROWED * (fmaf(9, n.hi, -size.hi) + fmaf(9, n.lo, -size.lo));  // (n - S) / (1 + B)
    const float D = size.hi + gap, r = __fdividef(1, D);
    const Angle t = angle<false>(__saturatef(gap * r));
    float k0 = NINTH - t.z * (1 + t.y * t.f);
    float lost = gap * ((1 + float(B)) / 9 - t.z * (1 - __saturatef(size.hi * r) * t.f));  // n (1 - k1) / 9
    if (negative) {
        k0 = NINTH - k0;
        lost += NINTH * size.hi;
    }
    S.hi = n.hi - lost;
    S.lo = ((n.hi - S.hi) - lost) + n.lo;
    return k0;
}

template <bool FIRST, bool READ, int ODD, class Real, class Opening>
__device__ __forceinline__ void layer(const float* x, const float* z, const Columns& at, const Opening& open,
                                      Plane<Real>& plane, Sums& sums)
{
    Box<Real, ODD, Opening> box_S;
    Box<float, ODD, Opening> box_T[SLOTS];
    Deviations<Real> deviations;
    if (READ) sums.clear();
#pragma unroll
    for (int i = 0; i < P; ++i) {
        if (i % 4 == 0) deviations.read(x, z, at, i);
        Real K[COLUMNS];
        float G[SLOTS][COLUMNS];
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            K[k] = plane.S[i][k];
            const float k0 = activate<FIRST>(deviations.x[k][i % 4] * deviations.z[k][i % 4], K[k]);
            if (READ) sums.add(i, 0, k, high(K[k]));
#pragma unroll
            for (int t = 0; t < STATES; ++t) {
                G[t][k] = k0 * plane.T[t][i][k] + high(K[k]);
                if (READ) sums.add(i, 1 + t, k, G[t][k]);
            }
        }
        box_S.row(i, K, plane.S, at, open);
#pragma unroll
        for (int t = 0; t < STATES; ++t) box_T[t].row(i, G[t], plane.T[t], at, open);
    }
}

// Copies one stage of each of some images after another into shared memory, a step ahead of its use.
// An image's stages: its channels, then the deviations of every layer's input; each PARTS planes. The
// last ROTATED images are turned, so that row i is row (i + shift) % P.
template <int PARTS, int IMAGES, int ROTATED, int RING, int THREADS>
struct Stages {
    struct alignas(16) Vector { int words[4]; };
    static constexpr int STAGE = PARTS * PLANE, ALL_IMAGES = IMAGES * STAGE, COPIERS = THREADS / LANES;

    const float* images[IMAGES];  // from `start` on: what this thread copies next
    float* shared;                // RING buffers of IMAGES stages
    int left;                     // stages still to be copied
    int buffer;                   // the one that is copied to next
    bool row;                     // this lane has a row to copy

    // All threads of the block, as all that follow: before the first advance.
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
#if __CUDA_ARCH__ >= 800
        asm volatile("cp.async.wait_all;" ::: "memory");
#endif
        __syncthreads();
        const float* ready = shared + (RING > 1 ? ALL_IMAGES - buffer : 0);
        if (RING > 1 && left) copy();
        return ready;
    }

    template <class Word>
    static __device__ __forceinline__ void copy(float* to, const float* from)
    {
#if __CUDA_ARCH__ >= 800
        const unsigned address = __cvta_generic_to_shared(to);
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                     ::"r"(address), "l"(from), "n"(sizeof(Word)));
#else
        *reinterpret_cast<Word*>(to) = *reinterpret_cast<const Word*>(from);
#endif
    }

    __device__ __forceinline__ void copy()
    {
        float* to = shared + buffer + 4 * threadIdx.x;
#pragma unroll
        for (int image = 0; image < IMAGES - ROTATED; ++image)
#pragma unroll
            for (int k = 0; k < STAGE; k += 4 * THREADS)
                if (k + 4 * THREADS <= STAGE || k + 4 * threadIdx.x < STAGE)
                    copy<Vector>(to + image * STAGE + k, images[image] + k);
        // A lane copies a row's place of one column after another, from where that row lies in the image.
        to = shared + buffer + threadIdx.x / LANES * STRIDE + threadIdx.x % LANES;
#pragma unroll
        for (int image = IMAGES - ROTATED; image < IMAGES; ++image)
#pragma unroll
            for (int k = 0; k < STAGE; k += COPIERS * STRIDE)
                if (row && (k + COPIERS * STRIDE <= STAGE || k + threadIdx.x / LANES * STRIDE < STAGE))
                    copy<float>(to + image * STAGE + k, images[image] + k);
#pragma unroll
        for (int image = 0; image < IMAGES; ++image) images[image] += STAGE;
        if (RING > 1) buffer = ALL_IMAGES - buffer;
        --left;
    }
};

// The whole recursion of this warp's planes; x and z are offsets of two images in a stage.
// Sums of the layers listed in `reads` (ascending, the last is the last layer) go to out[read][SUMS].
template <class Real, int ODD, class S, class Opening>
__device__ __forceinline__ void recursion(S& stages, int x, int z, const Columns& at, const Opening& open,
                                          Sums& sums, const int* reads, int layers, int shift, int lane, bool wanted,
                                          float* out)
{
    stages.start(CHANNELS + layers, shift);
    Plane<Real> plane;
#pragma unroll
    for (int i = 0; i < P; ++i)
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) plane.S[i][k] = {};
    for (int channel = 0; channel < CHANNELS; ++channel) {
        const float* planes = stages.advance();
        Deviations<Real> pixels;
#pragma unroll
        for (int i = 0; i < P; ++i) {
            if (i % 4 == 0) pixels.read(planes + x, planes + z, at, i);
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k)
                plane.S[i][k] = add_product(plane.S[i][k], pixels.x[k][i % 4], pixels.z[k][i % 4]);
        }
    }
    Box<Real, ODD, Opening> box;
#pragma unroll
    for (int i = 0; i < P; ++i) {
        Real values[COLUMNS];
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) values[k] = plane.S[i][k];
        box.row(i, values, plane.S, at, open);
    }
#pragma unroll
    for (int i = 0; i < P; ++i)
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            if (HIDDEN) plane.T[0][i][k] = 0;
            if (ALL) plane.T[HIDDEN][i][k] = high(plane.S[i][k]);
        }
    for (int h = 1; h <= layers; ++h) {
        const float* planes = stages.advance();
        const bool read = h == *reads;
        if (h == 1)
            layer<true, true, ODD>(planes + x, planes + z, at, open, plane, sums);
        else if (read)
            layer<false, true, ODD>(planes + x, planes + z, at, open, plane, sums);
        else
            layer<false, false, ODD>(planes + x, planes + z, at, open, plane, sums);
        if (read) {
            sums.write(lane, wanted, out);
            out += SUMS;
            ++reads;
        }
    }
}
