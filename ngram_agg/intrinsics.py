"""Single instructions that numba has no function for."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic  # type: ignore[untyped-decorator]
def leading_zeros(_context: Any, _word: Any) -> Any:
    """Number of zero bits above the highest set bit of a uint64 (64 for 0)."""

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_context: Any, array: Any, index: Any) -> Any:
    """Asks the processor to fetch an element that will be read soon; `index` must be in range."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, arguments[0])
        where = [context.cast(builder, arguments[1], signature.args[1], types.intp)]
        element = cgutils.get_item_pointer(
            context, builder, signature.args[0], values, where, wraparound=False
        )
        pointer = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        )
        # To read (0), to keep in all levels of the cache (3), data (1).
        builder.call(function, [builder.bitcast(element, pointer), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, index), code


@intrinsic  # type: ignore[untyped-decorator]
def copy_word(_context: Any, source: Any, at: Any, target: Any, to: Any) -> Any:
    """Copies source[at:at + 8] to target[to:to + 8], arrays of bytes; both must be in range."""

    def pointer(
        context: Any, builder: Any, kind: Any, array: Any, index: Any, index_kind: Any
    ) -> Any:
        values = context.make_array(kind)(context, builder, array)
        where = [context.cast(builder, index, index_kind, types.intp)]
        byte = cgutils.get_item_pointer(context, builder, kind, values, where, wraparound=False)
        return builder.bitcast(byte, ir.IntType(64).as_pointer())

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        word = builder.load(
            pointer(context, builder, kinds[0], arguments[0], arguments[1], kinds[1]), align=1
        )
        place = pointer(context, builder, kinds[2], arguments[2], arguments[3], kinds[3])
        builder.store(word, place, align=1)
        return context.get_dummy_value()

    return types.void(source, at, target, to), code
