// Plane (0, 0), where S, n and n - S are double: all of V, and GAP's and LAP's one delicate plane.
// One warp a pair, TILE x TILE pairs a block, which stages its 2 TILE images once for all of them.
//
// tiles (blocks, 2) int32: first image of x and of z.  x (n, stages, P, P), z (m, stages, P, P) float64.
// out (n, m, reads, SUMS) float64.  Grid: one block of 32 TILE^2 threads a tile.
extern "C" __global__ void __launch_bounds__(LANES * TILE * TILE)
    diagonal(const double* x, const double* z, const int* tiles, int n, int m, int stages,
             const float* weights, const int* reads, int read_count, double* out)
{
    extern __shared__ double shared[];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int first_i = tiles[2 * blockIdx.x], first_j = tiles[2 * blockIdx.x + 1];
    const int i = first_i + warp / TILE, j = first_j + warp % TILE;

    const long long size = (long long)stages * PIXELS;
    Stages<double, 2 * TILE, LANES * TILE * TILE> planes = {{}, shared, stages, 0};
#pragma unroll
    for (int k = 0; k < TILE; ++k) {  // beyond the last image: the last once more, not written
        planes.images[k] = x + min(first_i + k, n - 1) * size;
        planes.images[TILE + k] = z + min(first_j + k, m - 1) * size;
    }
    const int column = lane < P ? lane : 0;
    const Seams<double> seams = seams_of<double>(0, 0, lane);
    Sums<double> sums(weights, 0, 0, lane);
    recursion(planes, warp / TILE * PIXELS + column, (TILE + warp % TILE) * PIXELS + column, seams, sums,
              reads, lane, i < n && j < m, out + ((long long)i * m + j) * read_count * SUMS);
}
