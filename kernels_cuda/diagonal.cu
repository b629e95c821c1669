// Plane (0, 0), where S, n and n - S are FloatFloat: all of V, and GAP's and LAP's one delicate plane.
// One warp per pair, TILE x TILE pairs per block, which stages its 2 TILE images once for all of them.
//
// tiles (blocks, 2) int32: first image of x and of z.  x (n, stages, 2, PLANE), z (m, stages, 2, PLANE)
// float32.  out (n, m, reads, SUMS) float32.  Grid: one block of 32 TILE^2 threads per tile.
// MINIMUM: blocks that a multiprocessor must hold at once; it bounds the registers.
static_assert(COLUMNS == 1, "a warp is a pair");

extern "C" __global__ void __launch_bounds__(LANES * TILE * TILE, MINIMUM)
    diagonal(const float* x, const float* z, const int* tiles, int n, int m, int stages,
             const float* weights, const int* reads, int read_count, float* out)
{
    extern __shared__ float shared[];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int first_i = tiles[2 * blockIdx.x], first_j = tiles[2 * blockIdx.x + 1];
    const int i = first_i + warp / TILE, j = first_j + warp % TILE;

    const long long size = (long long)stages * 2 * PLANE;
    Stages<2, 2 * TILE, 0, BUFFERS, LANES * TILE * TILE> images = {{}, shared};
#pragma unroll
    for (int k = 0; k < TILE; ++k) {  // beyond the last image: the last one again, but not written
        images.images[k] = x + min(first_i + k, n - 1) * size;
        images.images[TILE + k] = z + min(first_j + k, m - 1) * size;
    }
    const Columns at = columns_of(lane, 0);
    Sums sums = {weights, weights, {}};
    recursion<FloatFloat, 0>(images, warp / TILE * 2 * PLANE, (TILE + warp % TILE) * 2 * PLANE, at, AllRows{},
                             sums, reads, stages - CHANNELS, 0, lane, i < n && j < m,
                             out + ((long long)i * m + j) * read_count * SUMS);
}
