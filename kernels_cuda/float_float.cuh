// Numbers as unevaluated sums hi + lo of two floats: 48 bits, on any GPU at the speed of float.
//
// Dekker, "A floating-point technique for extending the available precision" (1971); the sum is Knuth's
// (TAOCP 2, 4.2.2). Every operation also exists for plain floats, so that the same code serves both.
struct FloatFloat {
    float hi, lo;
};

__device__ __forceinline__ float high(float a) { return a; }
__device__ __forceinline__ float high(FloatFloat a) { return a.hi; }
__device__ __forceinline__ FloatFloat operator-(FloatFloat a) { return {-a.hi, -a.lo}; }

// a + mask b, for a mask of 0 or 1.
__device__ __forceinline__ float add(float a, float mask, float b) { return a + mask * b; }
__device__ __forceinline__ FloatFloat add(FloatFloat a, float mask, FloatFloat b)
{
    const float hi = fmaf(mask, b.hi, a.hi), rounded = hi - a.hi;
    const float error = (a.hi - (hi - rounded)) + fmaf(mask, b.hi, -rounded);
    return {hi, fmaf(mask, b.lo, a.lo) + error};
}

// sum + a b of two pixels.
__device__ __forceinline__ float add_product(float sum, float a, float b) { return sum + a * b; }
__device__ __forceinline__ FloatFloat add_product(FloatFloat sum, FloatFloat a, FloatFloat b)
{
    const float hi = __fmul_rn(a.hi, b.hi);
    return add(sum, 1, FloatFloat{hi, fmaf(a.hi, b.hi, -hi)});
}

__device__ __forceinline__ FloatFloat operator*(FloatFloat a, FloatFloat b)
{
    const float hi = __fmul_rn(a.hi, b.hi);  // never fused with what follows: lo is its error
    return {hi, fmaf(a.lo, b.hi, fmaf(a.hi, b.lo, fmaf(a.hi, b.hi, -hi)))};
}
