// The 3x3 box sums over planes that a warp holds, and which of their entries are neighbours.

constexpr unsigned WARP = 0xffffffffu;
constexpr int WIDTH = LANES / COLUMNS;  // lanes of a plane

__device__ __forceinline__ float from_left(float a) { return __shfl_up_sync(WARP, a, 1); }
__device__ __forceinline__ float from_right(float a) { return __shfl_down_sync(WARP, a, 1); }
__device__ __forceinline__ FloatFloat from_left(FloatFloat a) { return {from_left(a.hi), from_left(a.lo)}; }
__device__ __forceinline__ FloatFloat from_right(FloatFloat a) { return {from_right(a.hi), from_right(a.lo)}; }

// This lane's columns, and where the box sum must stop: at the borders of x and of z, which cut the
// cyclic plane. Masks are 1 where two columns are neighbours in both images, else 0.
struct Columns {
    int x, z;                   // place of column 0 in a plane of x, and of z
    int next_x, next_z;         // offset from there to column number 1
    float left, inner, right;   // between the lane before and column 0, the two columns, the last and the lane after
};

__device__ __forceinline__ Columns columns_of(int lane, int b)
{
    const int first = lane % WIDTH * COLUMNS, last = first + COLUMNS - 1;
    // Lanes without a column read what the first of their eight lanes reads, or column 0: no bank conflicts.
    const int eight = lane % WIDTH / 8 * 8 * COLUMNS, instead = eight < P ? eight : 0;
    const int column = first < P ? first : instead, other = min(column + COLUMNS - 1, P - 1), seam = P - b;
    Columns at;
    at.x = place(column), at.next_x = place(other) - at.x;
    at.z = place((column + b) % P), at.next_z = place((other + b) % P) - at.z;
    at.left = first < P && first != 0 && first != seam;
    at.inner = last < P && last != seam;
    at.right = last < P - 1 && last + 1 != seam;
    return at;
}

// Rows are neighbours, too, except at the borders of x and of z: open[i] is 1 if row i - 1 is a neighbour of
// row i, else 0. It is a kernel parameter, which an addition takes as an operand at no cost.
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
// The two rows of a pair share their sum: 3 additions for both, not 4. ODD: pairs begin at row 1, not 0, so
// that no seam lies inside a pair.
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
