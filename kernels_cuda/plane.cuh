// One plane of the recursion in one warp, or COLUMNS planes beside each other.
//
// Every layer maps the displacement q - p to itself. Displacements are taken modulo P: plane (a, b)
// holds, for every pixel (i, j) of x, its entry with pixel ((i + a) % P, (j + b) % P) of z, and meets
// no other plane. A lane holds COLUMNS neighbouring columns, all P rows in registers, from the first
// layer to the last. Columns beyond the last repeat another; what they hold is finite and never read.
//
// Real is float, or FloatFloat where rounding 1 - c matters: in plane (0, 0), where two images may agree
// (self-pairs, shared backgrounds). There S, n and n - S are FloatFloat, all else is float in both.
//
// The host defines, besides what the files before this one need: CHANNELS.

template <class Real>
struct Plane {
    Real S[P][COLUMNS];
    float T[SLOTS][P][COLUMNS];
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
struct Deviations {  // of this lane's columns in four rows
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
            const float k0 = activate<FIRST>(deviations.x[k][i % 4], deviations.z[k][i % 4], K[k]);
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
