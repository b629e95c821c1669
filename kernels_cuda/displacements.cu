// Planes (a, b) != (0, 0) of one a, in float: COLUMNS planes per warp, WARPS warps of one pair per block.
//
// pairs (pairs, 2) int32: the pair's image of x and of z.  columns (count,) int32: b of each plane.
// x, z (images, stages, PLANE) float32.  open: 1, but 0 at row P - a.  weights (WINDOWS, P, P) float32.
// reads: layers to read.  out (pairs, planes, reads, SUMS) float32; these planes are numbers first, ...
// Grid: pairs * ceil(count / (COLUMNS WARPS)) blocks of 32 WARPS threads.
extern "C" __global__ void __launch_bounds__(LANES * WARPS, BLOCKS)
    displacements(const float* x, const float* z, const int* pairs, int a, Rows open, const int* columns,
                  int count, int first, int planes, int stages, const float* weights, const int* reads,
                  int read_count, float* out)
{
    extern __shared__ float shared[];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int groups = (count + COLUMNS * WARPS - 1) / (COLUMNS * WARPS);
    const int pair = blockIdx.x / groups;
    const int number = (blockIdx.x % groups * WARPS + warp) * COLUMNS + lane / WIDTH;
    const bool wanted = number < count;  // a block's last planes may not exist, but must reach the barriers
    const int b = columns[wanted ? number : count - 1];

    const long long size = (long long)stages * PLANE;
    Stages<1, 2, 1, 2, LANES * WARPS> both = {
        {x + pairs[2 * pair] * size, z + pairs[2 * pair + 1] * size}, shared};
    const Columns at = columns_of(lane, b);
    Sums sums = {weights + a * P, weights + b * P, {}};
    out += ((long long)pair * planes + first + number) * read_count * SUMS;
    if ((P - a) % 2)
        recursion<float, 1>(both, 0, PLANE, at, open, sums, reads, stages - CHANNELS, a, lane, wanted, out);
    else
        recursion<float, 0>(both, 0, PLANE, at, open, sums, reads, stages - CHANNELS, a, lane, wanted, out);
}
