// Readouts from sums over planes, added up in a fixed order: plane (0, 0) first, then zone after zone.
//
// pairs (count, 2) int32: entry (i, j) of the n x m block.  sums: a plane's numbers, `width` of them.
// columns (readouts,) int32: which of the numbers a readout adds up, -1 for none.
// scales (readouts,) float64.  totals (readouts, n, m) float64.  out (readouts, n, m) float32.
// Grid: one thread a pair and readout.

struct Place {
    int readout;
    long long pair, entry, total;  // number in `pairs`; i m + j; index into totals and out
    bool inside;
};

__device__ __forceinline__ Place place(const int* pairs, int count, int n, int m, int readouts)
{
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    Place at = {int(thread % readouts), thread / readouts, 0, 0, false};
    at.inside = at.pair < count;
    if (!at.inside) return at;
    at.entry = (long long)pairs[2 * at.pair] * m + pairs[2 * at.pair + 1];
    at.total = at.readout * (long long)n * m + at.entry;
    return at;
}

// sums (n, m, width) float64, of plane (0, 0).
extern "C" __global__ void read_diagonal(const int* pairs, int count, int n, int m, const double* sums,
                                         int width, const int* columns, const double* scales, int readouts,
                                         double* totals, float* out)
{
    const Place at = place(pairs, count, n, m, readouts);
    if (!at.inside) return;
    totals[at.total] = sums[at.entry * width + columns[at.readout]];
    out[at.total] = float(scales[at.readout] * totals[at.total]);
}

// sums (count, planes, width) float32, of the planes of a zone.
extern "C" __global__ void read_displacements(const int* pairs, int count, int n, int m, const float* sums,
                                              int width, const int* columns, const double* scales,
                                              int readouts, double* totals, float* out, int planes)
{
    const Place at = place(pairs, count, n, m, readouts);
    if (!at.inside || columns[at.readout] < 0) return;
    double total = totals[at.total];
    sums += at.pair * planes * width + columns[at.readout];
    for (int d = 0; d < planes; ++d) total += sums[(long long)d * width];
    totals[at.total] = total;
    out[at.total] = float(scales[at.readout] * total);
}
