// What the other kernels read of an image, plane after plane: its channels, then sqrt(v_h), h = 0, 1, ..
//     v_0 = box(sum_c x_c^2),  v_h = box(v_{h-1} / 9)
//
// images (n, CHANNELS, P, P) float32.  doubles (n, stages, P, P) float64, floats: the same in float32.
// Grid: one block an image.
constexpr int PIXELS = P * P;

extern "C" __global__ void deviations(const float* images, int stages, double* doubles, float* floats)
{
    __shared__ double v[2][PIXELS];
    images += blockIdx.x * (long long)CHANNELS * PIXELS;
    doubles += blockIdx.x * (long long)stages * PIXELS;
    floats += blockIdx.x * (long long)stages * PIXELS;

    for (int k = threadIdx.x; k < PIXELS; k += blockDim.x) {
        double sum = 0;
        for (int channel = 0; channel < CHANNELS; ++channel) {
            const int pixel = channel * PIXELS + k;
            doubles[pixel] = floats[pixel] = images[pixel];
            sum += doubles[pixel] * doubles[pixel];
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
            const int pixel = (CHANNELS + h) * PIXELS + k;
            doubles[pixel] = sqrt(v[h % 2][k]);
            floats[pixel] = float(doubles[pixel]);
        }
    }
}
