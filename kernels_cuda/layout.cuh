// Where the pixels of a plane lie: column after column, so that a lane reads four rows of its column at
// once. Columns that neighbouring lanes read together lie STRIDE apart, an odd multiple of 16 bytes: no bank
// conflicts, except where z's columns wrap around and P is no multiple of 16 (28 x 28: a quarter more).
//
// The host defines: P, pixels along a side; COLUMNS, columns of a plane that one lane holds (1 or 2).
constexpr int LANES = 32;
constexpr int STRIDE = 4 * ((P + 3) / 4 | 1);
constexpr int PLACES = (P + COLUMNS - 1) / COLUMNS;  // of columns number 0, and as many of columns number 1
constexpr int PLANE = COLUMNS * PLACES * STRIDE;
static_assert(P <= LANES, "a warp holds COLUMNS planes of up to 32 columns");

__device__ __forceinline__ int place(int column)
{
    return (column % COLUMNS * PLACES + column / COLUMNS) * STRIDE;
}
