// Fully connected kernels: one thread per pair, SIDE x SIDE pairs per block, all of it in double.
//
// The recursion is that of cntk_bench/kernels/fully_connected.py; a program says what to read from it
// (cntk_bench/backends/fully_connected.py). The sum over features is Knuth's two-sum, feature after feature,
// so that its bits depend only on the two vectors. Products of floats are exact in double: fusing them
// changes nothing.
//
// The host defines: SIDE; STATES, at least the number of states T of every group of readouts, and at least 1.
constexpr int STEP = 16;  // features in shared memory at once
constexpr double PI = 3.14159265358979323846;

struct Sum {
    double total, lost;

    __device__ __forceinline__ void add(float x, float z)
    {
        const double product = double(x) * double(z);
        const double sum = total + product, share = sum - total;
        lost += (total - (sum - share)) + (product - share);
        total = sum;
    }
};

// x.x of vectors (n, features) float32, summed as x.z is -> out (n,). Grid: one thread per vector.
extern "C" __global__ void squares(const float* x, int n, int features, double* out)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Sum sum = {0, 0};
    for (int k = 0; k < features; ++k) {
        const float value = x[i * (long long)features + k];
        sum.add(value, value);
    }
    out[i] = sum.total + sum.lost;
}

// x (n, features), z (m, features) float32; their squares and scales (n,), (m,) float64.
// tiles (blocks, 2) int32: first vector of x and of z.
// bias_squares (group_count,) float64, groups (group_count, 4), states, reads (.., 3) int32: the program.
// out (readouts, n, m) float64. Grid: one block of SIDE^2 threads per tile.
extern "C" __global__ void __launch_bounds__(SIDE * SIDE, 1)
    fully_connected(const float* x, const double* x_squares, const double* x_scales, int n, const float* z,
                    const double* z_squares, const double* z_scales, int m, int features, const int* tiles,
                    const double* bias_squares, const int* groups, int group_count, const int* states,
                    const int* reads, double* out)
{
    __shared__ float xs[SIDE][STEP + 1], zs[SIDE][STEP + 1];  // one column more: no bank conflicts
    const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE;
    const int first_i = tiles[2 * blockIdx.x], first_j = tiles[2 * blockIdx.x + 1];
    const int i = first_i + row, j = first_j + column;

    Sum sum = {0, 0};
    for (int k = 0; k < features; k += STEP) {
        for (int t = threadIdx.x; t < SIDE * STEP; t += SIDE * SIDE) {
            const int vector = t / STEP, at = t % STEP;
            const bool inside = k + at < features;  // beyond: zeros, which change no sum
            xs[vector][at] = inside && first_i + vector < n ? x[(first_i + vector) * (long long)features + k + at] : 0;
            zs[vector][at] = inside && first_j + vector < m ? z[(first_j + vector) * (long long)features + k + at] : 0;
        }
        __syncthreads();
        for (int at = 0; at < STEP; ++at) sum.add(xs[row][at], zs[column][at]);
        __syncthreads();
    }
    if (i >= n || j >= m) return;

    const double product = (sum.total + sum.lost) / features;
    const double x_square = x_squares[i] / features, z_square = z_squares[j] / features;
    const double sx = x_scales[i], sz = z_scales[j];
    for (int g = 0; g < group_count; ++g) {
        const double square = bias_squares[g];
        const bool biased = square != 0;  // else kernels are homogeneous, and scaled at the end
        double S = biased ? product * sx * sz + square : product;
        double vx = biased ? x_square * sx * sx + square : x_square;
        double vz = biased ? z_square * sz * sz + square : z_square;
        const double scale = biased ? 1 : sx * sz;
        const int* fixed = states + groups[4 * g + 2];
        const int count = groups[4 * g + 3] - groups[4 * g + 2];
        double T[STATES];
#pragma unroll
        for (int s = 0; s < STATES; ++s) T[s] = s < count && fixed[s] == 0 ? S : 0;
        int depth = 1;
        for (int read = groups[4 * g]; read < groups[4 * g + 1]; ++read) {
            for (; depth < reads[3 * read];) {
                const double n_ = sqrt(vx * vz);
                const double c = n_ > 0 ? min(max(S / n_, -1.0), 1.0) : 0;
                const double rest = PI - acos(c), k0 = rest / PI;
                S = n_ * ((c * rest + sqrt((1 - c) * (1 + c))) / PI) + square;
                vx += square;
                vz += square;
                ++depth;
#pragma unroll
                for (int s = 0; s < STATES; ++s)
                    if (s < count) T[s] = k0 * T[s] + (depth > fixed[s] ? S : 0);
            }
            double value = S;
#pragma unroll
            for (int s = 0; s < STATES; ++s)
                if (reads[3 * read + 2] == s) value = T[s];
            out[(reads[3 * read + 1] * (long long)n + i) * m + j] = value * scale;
        }
    }
}
