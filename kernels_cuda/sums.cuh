// Sums over a plane's entries, which readouts are made of.
//
// The host defines: HIDDEN and ALL, 1 if some readout needs T of that training; WINDOWS, the number of LAP
// windows.
constexpr int STATES = HIDDEN + ALL;          // T of training "hidden", then T of training "all"
constexpr int QUANTITIES = 1 + STATES;        // summed: K, then G of each training
constexpr int POOLS = 1 + WINDOWS;            // the plain sum (V, GAP), then the LAP windows
constexpr int SUMS = POOLS * QUANTITIES;
constexpr int SLOTS = STATES ? STATES : 1;    // C++ has no empty arrays

// Sums over a plane's entries, weighted by m(i, i + a) m(j, j + b) for LAP windows.
struct Sums {
    const float *rows, *columns;  // (WINDOWS, P, P): m(i, (i + a) % P) at [a][i]; here beginning at a, at b
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

    // Adds up the lanes, in a fixed order, and writes out[pool][quantity].
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
