// Planes (a, b) != (0, 0), in float: one warp a plane, WARPS planes of one pair a block.
//
// pairs (pairs, 2) int32: the pair's image of x and of z.  displacements (count,) int32: a P + b.
// x, z (images, stages, P, P) float32.  weights (WINDOWS, P, P) float32: m.  reads: layers to read.
// out (pairs, count, reads, SUMS) float32.  Grid: pairs * ceil(count / WARPS) blocks of 32 WARPS threads.
extern "C" __global__ void __launch_bounds__(LANES * WARPS, BLOCKS)
    displacements(const float* x, const float* z, const int* pairs, const int* displacements, int count,
                  int stages, const float* weights, const int* reads, int read_count, float* out)
{
    alignas(16) __shared__ float shared[2 * 3 * PIXELS];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int groups = (count + WARPS - 1) / WARPS;
    const int pair = blockIdx.x / groups, d = blockIdx.x % groups * WARPS + warp;
    const bool wanted = d < count;  // a block's last warps may have no work, but must reach the barriers
    const int displacement = displacements[wanted ? d : count - 1];
    const int a = displacement / P, b = displacement % P;

    const long long size = (long long)stages * PIXELS;
    const float *image = x + pairs[2 * pair] * size, *other = z + pairs[2 * pair + 1] * size;
    // z twice, so that rows a .. a + P - 1 need no wrapping.
    Stages<float, 3, LANES * WARPS> planes = {{image, other, other}, shared, stages, 0};
    const int column = lane < P ? lane : 0;
    const Seams<float> seams = seams_of<float>(a, b, lane);
    Sums<float> sums(weights, a, b, lane);
    recursion(planes, column, PIXELS + a * P + (column + b) % P, seams, sums, reads, lane, wanted,
              out + ((long long)pair * count + d) * read_count * SUMS);
}
