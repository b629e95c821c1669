// What the planes' kernels read of an image, stage after stage: its channels, then a multiple of
// d = sqrt(v_h) for the input of every layer h = 0, 1, ..
//     v_0 = box(sum_c x_c^2),  v_h = box(v_{h-1} / 9)
// In float-float d / 3, as activation.cuh needs it.
//
// The host defines: CHANNELS; PARTS, floats per number: 1, or 2 for float-float (the hi plane, then the lo).
// images (n, CHANNELS, P, P) float32.  out (n, stages, PARTS, PLANE) float32.  Grid: one block per image.
constexpr int PIXELS = P * P;

// Places without a pixel are left uninitialised: no kernel uses them.
__device__ __forceinline__ void keep(float* stage, int pixel, double value)
{
    float* to = stage + place(pixel % P) + pixel / P;
    to[0] = float(value);
    if (PARTS == 2) to[PLANE] = float(value - to[0]);
}

extern "C" __global__ void deviations(const float* images, int stages, float* out)
{
    __shared__ double v[2][PIXELS];
    images += blockIdx.x * (long long)CHANNELS * PIXELS;
    out += blockIdx.x * (long long)stages * PARTS * PLANE;
    const double scale = PARTS == 2 ? 1.0 / 3 : 1;

    for (int k = threadIdx.x; k < PIXELS; k += blockDim.x) {
        double sum = 0;
        for (int channel = 0; channel < CHANNELS; ++channel) {
            const double value = images[channel * PIXELS + k];
            keep(out + channel * PARTS * PLANE, k, value);
            sum += value * value;
        }
        v[1][k] = sum;
    }
    for (int h = 0; h < stages - CHANNELS; ++h) {
        const double* old = v[(h + 1) % 2];
        __syncthreads();
        for (int k = threadIdx.x; k < PIXELS; k += blockDim.x) {
            const int i = k / P, j = k % P;
            double sum = 0;
            for (int row = max(i - 1, 0); row <= min(i + 1, P - 1); ++row)
                for (int column = max(j - 1, 0); column <= min(j + 1, P - 1); ++column)
                    sum += old[row * P + column];
            v[h % 2][k] = h == 0 ? sum : sum / 9;
            keep(out + (CHANNELS + h) * PARTS * PLANE, k, scale * sqrt(v[h % 2][k]));
        }
    }
}
