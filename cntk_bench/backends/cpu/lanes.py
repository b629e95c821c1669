"""A vector type for Numba: LANES numbers, one for each pair of images that are computed side by side.

Numba has no vector type and leaves it to LLVM to find loops that can be vectorised. Here a vector is a type
of its own, with + - * and the functions below, which compile to LLVM's vector instructions, so that the code
decides what is in a register. LLVM maps vectors to the registers that the CPU has.

Lanes are independent of each other, and nothing is fused or reordered unless the code says so: results have
the same bits whatever LANES is, on every CPU with fused multiply-adds.
"""

import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

__all__ = [
    "LANES", "absolute", "filled", "fma", "fms", "fnma", "greater", "load", "narrow",
    "reciprocal_root", "splat", "spread", "store", "widen",
]  # fmt: skip

LANES = 16  # float32 numbers in one AVX-512 register, or in two of AVX2, which is faster there than one
ROOT = 0x5F370000
declared = cast(Any, intrinsic)  # its type hints demand the context, which Numba itself passes, at every call
Generated = tuple[Any, Callable[..., Any]]


class Vector(types.Type):
    """LANES floats of 32 or 64 bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(name=f"float{bits}x{LANES}")

    @property
    def llvm(self) -> ir.VectorType:
        """The corresponding type of LLVM."""
        return ir.VectorType(ir.FloatType() if self.bits == 32 else ir.DoubleType(), LANES)


SINGLE, DOUBLE = Vector(32), Vector(64)


@register_model(Vector)
class _Model(PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


def _of(scalar: Any) -> Vector:
    return SINGLE if scalar == types.float32 else DOUBLE


def _in(array: Any) -> Vector:
    if array.ndim != 1 or array.layout != "C":
        raise TypingError(f"a vector is of a contiguous array of one dimension, not of {array}")
    return _of(array.dtype)


def _operator(function: Callable, instruction: str) -> None:
    """Compile `function` of two vectors of the same type to one LLVM instruction."""

    class Template(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            one, other = args
            return signature(one, one, one) if isinstance(one, Vector) and one == other else None

    def lower(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return getattr(builder, instruction)(*args)

    infer_global(function)(Template)
    for vector in (SINGLE, DOUBLE):
        lower_builtin(function, vector, vector)(lower)


for _function, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _operator(_function, _instruction)


def _everywhere(builder: Any, vector: Vector, number: Any) -> Any:
    empty, integer = ir.Constant(vector.llvm, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(empty, number, ir.Constant(integer, 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(integer, LANES), [0] * LANES))


def _call(builder: Any, name: str, result: Vector, args: tuple) -> Any:
    """Call an intrinsic function of LLVM that exists for vectors of any width."""
    kind = ir.FunctionType(result.llvm, [arg.type for arg in args])
    full = f"llvm.{name}.v{LANES}f{result.bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, full), args)


def _address(context: Any, builder: Any, array: Any, args: tuple) -> Any:
    data = context.make_array(array)(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), _of(array.dtype).llvm.as_pointer())


@declared
def load(typing_context: Any, array: Any, start: Any) -> Generated:
    """The LANES numbers of a contiguous array from `start` on; bounds are not checked."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return builder.load(_address(context, builder, array, args), align=array.dtype.bitwidth // 8)

    return _in(array)(array, types.intp), generate


@declared
def spread(typing_context: Any, array: Any, place: Any) -> Generated:
    """One number of a contiguous array, in every lane; bounds are not checked."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        return _everywhere(builder, _of(array.dtype), builder.load(builder.gep(data, [args[1]])))

    return _in(array)(array, types.intp), generate


@declared
def store(typing_context: Any, array: Any, start: Any, vector: Any) -> Generated:
    """Write a vector into a contiguous array of its numbers' type, from `start` on."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        builder.store(args[2], _address(context, builder, array, args), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _in(array)), generate


@declared
def splat(typing_context: Any, number: Any) -> Generated:
    """A float in every lane."""
    vector = _of(number)

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return _everywhere(builder, vector, args[0])

    return vector(number), generate


@declared
def filled(typing_context: Any, number: Any, like: Any) -> Generated:
    """A float64 number in every lane of a vector of the same type as `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        number = args[0] if like.bits == 64 else builder.fptrunc(args[0], ir.FloatType())
        return _everywhere(builder, like, number)

    return like(types.float64, like), generate


def _fused(a: Vector, minus_product: bool, minus_c: bool) -> Generated:
    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        one, other, c = args
        one, c = builder.fneg(one) if minus_product else one, builder.fneg(c) if minus_c else c
        return _call(builder, "fmuladd", a, (one, other, c))

    return a(a, a, a), generate


@declared
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Generated:
    """a b + c, rounded once if the CPU has fused multiply-adds; the same holds for the next two functions."""
    return _fused(a, False, False)


@declared
def fms(typing_context: Any, a: Any, b: Any, c: Any) -> Generated:
    """a b - c."""
    return _fused(a, False, True)


@declared
def fnma(typing_context: Any, a: Any, b: Any, c: Any) -> Generated:
    """c - a b."""
    return _fused(a, True, False)


@declared
def absolute(typing_context: Any, a: Any) -> Generated:
    """|a|."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return _call(builder, "fabs", a, args)

    return a(a), generate


@declared
def narrow(typing_context: Any, a: Any) -> Generated:
    """The vector in float32."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return args[0] if a.bits == 32 else builder.fptrunc(args[0], SINGLE.llvm)

    return SINGLE(a), generate


@declared
def widen(typing_context: Any, a: Any, like: Any) -> Generated:
    """A float32 vector in the type of another vector."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return args[0] if like.bits == 32 else builder.fpext(args[0], like.llvm)

    return like(a, like), generate


@declared
def greater(typing_context: Any, a: Any, b: Any, one: Any, other: Any) -> Generated:
    """`one` where a > b, `other` elsewhere, including where a or b is NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return one(a, a, one, one), generate


@declared
def reciprocal_root(typing_context: Any, a: Any) -> Generated:
    """1 / sqrt(a) to within 4 %, for a > 0 in float32.

    A float's bits, read as an integer, are about 2^23 (log2 of it + 127). So the integer ROOT minus half of
    a's bits gives about the bits of r = 1 / sqrt(a); ROOT makes 1 - a r^2 vary least
    (scripts/fit_polynomials.py). CPUs' own estimates are not used, as they differ from CPU to CPU.
    """

    def generate(context: Any, builder: Any, signature: Any, args: tuple) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        half = builder.lshr(builder.bitcast(args[0], integers), ir.Constant(integers, [1] * LANES))
        return builder.bitcast(builder.sub(ir.Constant(integers, [ROOT] * LANES), half), SINGLE.llvm)

    return SINGLE(a), generate
