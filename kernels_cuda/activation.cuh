// ReLU's two functions of the correlation c, from one square root and one reciprocal.
//
// With S = c n, t = arccos c and 0 <= c <= 1, a layer needs
//     k0 = 1 - t / pi      and      n k1 = S k0 + n sin(t) / pi.
// Snell's sine rule, t = 3 sin t / (2 + cos t), is good to a few per cent up to 90 degrees. Sharpened:
//     D = (n + B S) / (1 + B),    y = (n - S) / ((1 + B) D) in [0, 1],    z = n sin(t) / ((1 + B) D)
//     t = (1 + B) z (1 + y f(y)),    z^2 = y (2 - (1 - B) y) / (1 + B),    n sin(t) = (1 + B) z D
// B near 1/2 makes f(y) so small that degree 3 serves; where it is exact, at c = 1, the sum has no
// cancellation. Errors of t: 7e-7 at c = 0, below 2e-8 from c = 0.6 on, where deep layers live.
// Coefficients: scripts/fit_activation.py.
constexpr double PI = 3.14159265358979323846;
constexpr double B = 0.475;
constexpr float NINTH = 1.0 / 9;
constexpr float TILT = B / (1 + B);                       // D = n / (1 + B) + TILT S
constexpr float NARROWED = 1 / (1 + B);
constexpr double SQUARE = (1 + B) / (81 * PI * PI);       // z is scaled by (1 + B) / (9 pi)

struct Angle {
    float y, z, f;  // t / (9 pi) = z (1 + y f),  n sin(t) / (9 pi) = z D
};

// SNAP: y below 1.0e-6 (t below 1.7e-3) counts as 0. In float, rounding, the reciprocal's above all, makes an
// angle of up to 1e-3 of what should be none, and in flat backgrounds all entries of a plane err the same way.
// No instruction compares: scaled down, such a z^2 is a denormal number, which GPUs flush to 0.
template <bool SNAP>
__device__ __forceinline__ Angle angle(float y)
{
    constexpr float DOWN = SNAP ? 1.0 / (1ull << 49) : 1, UP = 1 / DOWN;
    constexpr float LINEAR = 2 * SQUARE * DOWN * DOWN, QUADRATIC = -(1 - B) * SQUARE * DOWN * DOWN;
    float f = 3.730610755e-03f;
    f = f * y - 4.023507614e-03f;
    f = f * y + 4.856969828e-02f;
    f = f * y + 1.666936962e-02f;
    return {y, UP * sqrtf(y * (LINEAR + QUADRATIC * y)), f};
}

// u = 1 - a b in [0, 1]; NaN becomes 0. One instruction, for which CUDA has no intrinsic.
__device__ __forceinline__ float one_minus(float a, float b)
{
#ifdef __CUDA_ARCH__
    float u;
    asm("fma.rn.ftz.sat.f32 %0, %1, %2, %3;" : "=f"(u) : "f"(-a), "f"(b), "f"(1.0f));
    return u;
#else
    return __saturatef(1 - a * b);
#endif
}

// One entry of one layer: S becomes K; returns k0 / 9. n = d_x d_z, scaled as deviations.cu says.
template <bool FIRST>
__device__ __forceinline__ float activate(float n, float& S)
{
    const float size = FIRST ? fabsf(S) : S;
    const float D = TILT * size + n;
    const Angle t = angle<true>(one_minus(size, __fdividef(1, D)));
    float k0 = NINTH - t.z * (1 + t.y * t.f);
    if (FIRST && S < 0) k0 = NINTH - k0;  // k0(c) = 1 - k0(-c)
    S = t.z * D + S * k0;
    return k0;
}
template <bool FIRST>
__device__ __forceinline__ float activate(FloatFloat n, FloatFloat& S)
{
    const bool negative = FIRST && S.hi < 0;
    const FloatFloat size = negative ? -S : S;
    const float gap = NARROWED * (fmaf(9, n.hi, -size.hi) + fmaf(9, n.lo, -size.lo));  // (n - S) / (1 + B)
    const float D = size.hi + gap, r = __fdividef(1, D);
    const Angle t = angle<false>(__saturatef(gap * r));
    float k0 = NINTH - t.z * (1 + t.y * t.f);
    float lost = gap * ((1 + float(B)) / 9 - t.z * (1 - __saturatef(size.hi * r) * t.f));  // n (1 - k1) / 9
    if (negative) {
        k0 = NINTH - k0;
        lost += NINTH * size.hi;
    }
    S.hi = n.hi - lost;
    S.lo = ((n.hi - S.hi) - lost) + n.lo;
    return k0;
}
