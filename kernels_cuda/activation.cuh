// One entry of a layer: ReLU's two functions of the correlation c, from one square root and one reciprocal.
//
// With S = c n, n = d_x d_z, t = arccos c and 0 <= c <= 1, a layer needs
//     k0 = 1 - t / pi      and      n k1 = S k0 + n sin(t) / pi.
// Snell's sine rule, t = 3 sin t / (2 + cos t), is good to a few per cent up to 90 degrees. Sharpened:
//     D = n + B S,    y = (n - S) / D in [0, 1],    z = n sin(t) / D
//     z^2 = y (2 - (1 - B) y) / (1 + B),    t = z (1 + B + y f(y))
// B near 1/2 makes f so small that degree 3 suffices. It is exact at c = 1, and nothing cancels near it.
// Coefficients and errors of t: scripts/fit_polynomials.py; 7e-7 at c = 0, less than 4e-8 from c = 0.8 on.
constexpr double PI = 3.14159265358979323846;
constexpr float NINTH = 1.0 / 9, B1 = 1.475, B = B1 - 1;

struct Angle {
    float y, z, f;  // t / (9 pi) = z (1 + B + y f),  n sin(t) / (9 pi) = z D
};

// SNAP: y below 1.4e-7 (t below 6.4e-4) counts as 0. In flat backgrounds rounding turns zero angles into
// such small ones, with the same error in all entries of a plane. It takes no comparison: scaled down, such
// a z^2 is a denormal number, which GPUs flush to 0.
template <bool SNAP>
__device__ __forceinline__ Angle angle(float y)
{
    constexpr double DOWN = SNAP ? 1.0 / (1ull << 47) : 1, SCALE = DOWN / (9 * PI);
    constexpr float LINEAR = 2 / B1 * SCALE * SCALE, QUADRATIC = -(1 - B) / B1 * SCALE * SCALE;
    float f = 5.502650864e-03f;
    f = f * y - 5.934673731e-03f;
    f = f * y + 7.164030496e-02f;
    f = f * y + 2.458732019e-02f;
    return {y, float(1 / DOWN) * sqrtf(y * (LINEAR + QUADRATIC * y)), f};
}

// Replaces S by K and returns k0 / 9. In float: dx, dz are the images' d.
template <bool FIRST>
__device__ __forceinline__ float activate(float dx, float dz, float& S)
{
    const float size = FIRST ? fabsf(S) : S;
    const float gap = fmaf(dx, dz, -size);  // n - S, rounded once
    const float D = fmaf(B1, size, gap);
    // A pixel of zero variance has D = 0 and 0 / 0 = NaN, which saturation turns into 0.
    const Angle t = angle<true>(__saturatef(gap * __fdividef(1, D)));
    float k0 = NINTH - t.z * (B1 + t.y * t.f);
    if (FIRST && S < 0) k0 = NINTH - k0;  // k0(c) = 1 - k0(-c)
    S = t.z * D + S * k0;
    return k0;
}

// The same in float-float: dx, dz are d / 3, so that n / 9, slightly above K, needs no rounding.
template <bool FIRST>
__device__ __forceinline__ float activate(FloatFloat dx, FloatFloat dz, FloatFloat& S)
{
    const FloatFloat n = dx * dz;  // / 9
    const bool negative = FIRST && S.hi < 0;
    const FloatFloat size = negative ? -S : S;
    const float gap = fmaf(9, n.hi, -size.hi) + fmaf(9, n.lo, -size.lo);
    const float D = fmaf(B1, size.hi, gap), r = __fdividef(1, D);
    const Angle t = angle<false>(__saturatef(gap * r));
    float k0 = NINTH - t.z * (B1 + t.y * t.f);
    float lost = gap * (NINTH - t.z * (1 - __saturatef(size.hi * r) * t.f));  // n (1 - k1(c)) / 9
    if (negative) {
        k0 = NINTH - k0;
        lost += NINTH * size.hi;  // k1(c) = k1(-c) + c
    }
    S.hi = n.hi - lost;
    S.lo = ((n.hi - S.hi) - lost) + n.lo;
    return k0;
}
