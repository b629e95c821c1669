// Readouts from sums over planes, added up in a fixed order: plane (0, 0) first, then zone after zone.
//
// pairs (count, 2) int32: entry (i, j) of the n x m block.  sums: a plane's numbers, `width` of them.
// columns (readouts, 2) int32: which of the numbers a readout adds, and which it subtracts (K from G, if the
// last layer is not trained); -1 for none.
// scales (readouts,) float64.  totals (readouts, n, m) float64.  out (readouts, n, m) float32.
// Grid: one thread per pair and readout.

struct Place {
    int readout, plus, minus;
    long long pair, entry, total;  // number in `pairs`; i m + j; index into totals and out
    bool inside;

    __device__ __forceinline__ double of(const float* plane) const
    {
        return minus < 0 ? double(plane[plus]) : double(plane[plus]) - plane[minus];
    }
};

__device__ __forceinline__ Place place(const int* pairs, int count, int n, int m, const int* columns,
                                       int readouts)
{
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    Place at = {int(thread % readouts), -1, -1, thread / readouts, 0, 0, false};
    if (at.pair >= count) return at;
    at.plus = columns[2 * at.readout], at.minus = columns[2 * at.readout + 1];
    at.inside = at.plus >= 0;
    at.entry = (long long)pairs[2 * at.pair] * m + pairs[2 * at.pair + 1];
    at.total = at.readout * (long long)n * m + at.entry;
    return at;
}

// sums (n, m, width) float32, of plane (0, 0), which all readouts add up.
extern "C" __global__ void read_diagonal(const int* pairs, int count, int n, int m, const float* sums,
                                         int width, const int* columns, const double* scales, int readouts,
                                         double* totals, float* out)
{
    const Place at = place(pairs, count, n, m, columns, readouts);
    if (!at.inside) return;
    totals[at.total] = at.of(sums + at.entry * width);
    out[at.total] = float(scales[at.readout] * totals[at.total]);
}

// sums (count, planes, width) float32, of the planes of a zone.
extern "C" __global__ void read_displacements(const int* pairs, int count, int n, int m, const float* sums,
                                              int width, const int* columns, const double* scales,
                                              int readouts, double* totals, float* out, int planes)
{
    const Place at = place(pairs, count, n, m, columns, readouts);
    if (!at.inside) return;
    double total = totals[at.total];
    sums += at.pair * planes * width;
    for (int d = 0; d < planes; ++d) total += at.of(sums + (long long)d * width);
    totals[at.total] = total;
    out[at.total] = float(scales[at.readout] * total);
}
