"""The verifier: what must hold before anything else may trust a Program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite

import numpy as np

from onebit.errors import ProgramError
from onebit.program import limits
from onebit.program.errors import fail, shorten
from onebit.program.graph import CLASSES, Constant, Graph, Node
from onebit.program.ops import OPS, AttrKind, Op, Role
from onebit.program.tensors import WORD_BITS, Array, DType, TensorType

_BLOCK = 1 << 18  # elements looked at together, so that checking a large constant needs little memory
_RESERVED = "__metadata__"  # safetensors keeps its metadata under this tensor name


def verify(program: Graph) -> None:
    """Check every rule of a Program; raise ProgramError at the first one broken.

    The message names the place (node, layer, constant, input or output), the rule, what was found and what
    was expected. Runs on load, after every lowering pass and before an engine is built; allocates little.
    """
    _check_containers(program)
    for name, constant in program.constants.items():
        _check_constant(name, constant)
    defined = _check_inputs(program)
    producers = {node.output: index for index, node in enumerate(program.nodes)}
    used: set[str] = set()
    for index, node in enumerate(program.nodes):
        place = describe(index, node)
        _check_node(program, node, place, defined, producers)
        used.update(node.inputs)
        defined.add(node.output)
    _check_outputs(program, defined)
    _check_class_count(program)
    extra = next((name for name in program.values if name not in defined), None)
    if extra is not None:
        fail(f"value {shorten(extra)}", "every typed value is used", "no input or output of this name", "one")
    unused = next((name for name in program.constants if name not in used), None)
    if unused is not None:
        fail(f"constant {shorten(unused)}", "every constant is used", "no node that uses it", "at least one")


def describe(index: int, node: Node) -> str:
    """The place of a node as errors name it, e.g. "node 3 'threshold' (layer 'features.4')"."""
    layer = f" (layer {shorten(node.layer)})" if node.layer else ""
    return f"node {index} {shorten(node.op)}{layer}"


def _type_name(value: object) -> str:
    return type(value).__name__


def _check_name(place: str, name: object) -> None:
    if not isinstance(name, str):
        fail(place, "a name is text", shorten(name), "a str")
    if not 1 <= len(name) <= limits.MAX_NAME:
        expected = f"1 to {limits.MAX_NAME}"
        fail(place, "length of a name", f"{len(name)} characters ({shorten(name)})", expected)
    if not name.isprintable():
        fail(place, "characters of a name", shorten(name), "printable characters")


def _check_tensor_name(place: str, name: object) -> None:
    _check_name(place, name)
    if name == _RESERVED:
        fail(place, "a name", repr(name), "any other: safetensors reserves this one")


def check_type(place: str, type_: TensorType, constant: bool) -> None:
    """Rank, sizes and total size of a tensor type are within the limits."""
    if not isinstance(type_, TensorType) or not isinstance(type_.dtype, DType):
        fail(place, "type", shorten(type_), "a TensorType with a DType")
    shape = type_.shape
    if not isinstance(shape, tuple):
        fail(place, "shape", shorten(shape), "a tuple of ints")
    if len(shape) > limits.MAX_RANK:
        fail(place, "rank", len(shape), f"at most {limits.MAX_RANK}")
    for size in shape:
        if type(size) is not int or not 1 <= size <= limits.MAX_DIMENSION:
            fail(place, "each size of a shape", shorten(size), f"an int from 1 to {limits.MAX_DIMENSION}")
    if type_.dtype is DType.BITS and not shape:
        fail(place, "rank of a bits tensor", 0, "at least 1 (bits are packed along the last axis)")
    if constant and type_.nbytes > limits.MAX_CONSTANT_BYTES:
        fail(place, "size of a constant", f"{type_.nbytes} bytes", f"at most {limits.MAX_CONSTANT_BYTES}")
    if not constant and type_.elements > limits.MAX_VALUE_ELEMENTS:
        expected = f"at most {limits.MAX_VALUE_ELEMENTS} in one sample"
        fail(place, "size of a value", f"{type_.elements} elements", expected)


def _check_containers(program: Graph) -> None:
    counts = (
        ("nodes", len(program.nodes), limits.MAX_NODES),
        ("constants", len(program.constants), limits.MAX_TENSORS),
        ("values", len(program.values), limits.MAX_TENSORS),
    )
    for what, count, most in counts:
        if count > most:
            fail("program", f"number of {what}", count, f"at most {most}")
    for what, least, names in (("inputs", 1, program.inputs), ("outputs", 1, program.outputs)):
        if not isinstance(names, tuple) or len(names) < least:
            fail("program", what, shorten(names), f"a tuple of at least {least} name")
    for key, text in program.metadata.items():
        _check_name("metadata key", key)
        if key == CLASSES:
            _check_classes(text)
        elif not isinstance(text, str) or not _is_unicode(text):
            fail(f"metadata {shorten(key)}", "its text", shorten(text), "a str of Unicode characters")


def _check_classes(names: object) -> None:
    place = f"metadata {CLASSES!r}"
    if not isinstance(names, (list, tuple)):
        fail(place, "type", shorten(names), "a list of names")
    if not 1 <= len(names) <= limits.MAX_CLASSES:
        fail(place, "number of names", len(names), f"1 to {limits.MAX_CLASSES}")
    for index, name in enumerate(names):
        _check_name(f"{place}[{index}]", name)


def _check_class_count(program: Graph) -> None:
    """There is a name for each channel of the first output."""
    shape = program.values[program.outputs[0]].shape
    channels = shape[-1] if shape else 1
    if CLASSES in program.metadata and len(program.classes) != channels:
        expected = f"{channels}, one for each channel of the output {shorten(program.outputs[0])}"
        fail(f"metadata {CLASSES!r}", "number of names", len(program.classes), expected)


def _is_unicode(text: str) -> bool:
    """No lone surrogates: such a str has no UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_inputs(program: Graph) -> set[str]:
    defined: set[str] = set()
    for name in program.inputs:
        place = f"input {shorten(name)}"
        _check_tensor_name(place, name)
        if name in defined:
            fail(place, "names are unique", "two inputs of this name", "one")
        if name in program.constants:
            fail(place, "names are unique", "a constant of the same name", "values and constants to differ")
        if name not in program.values:
            fail(place, "every input has a type", "no entry in values", "one")
        check_type(place, program.values[name], constant=False)
        defined.add(name)
    return defined


def _check_outputs(program: Graph, defined: set[str]) -> None:
    seen: set[str] = set()
    for name in program.outputs:
        place = f"output {shorten(name)}"
        _check_name(place, name)
        if name in seen:
            fail(place, "outputs are unique", "the name twice", "once")
        if name in program.constants:
            fail(place, "an output is a value", "a constant", "an input or a node's output")
        if name not in defined:
            fail(place, "an output exists", "no such value", "an input or a node's output")
        seen.add(name)


def _check_constant(name: str, constant: Constant) -> None:
    place = f"constant {shorten(name)}"
    _check_tensor_name(place, name)
    if not isinstance(constant, Constant):
        fail(place, "type", _type_name(constant), "a Constant")
    check_type(place, constant.type, constant=True)
    array, type_ = constant.array, constant.type
    if not isinstance(array, np.ndarray):
        fail(place, "storage", _type_name(array), "a NumPy array")
    if array.dtype != type_.storage_dtype:
        fail(place, f"storage dtype of {type_}", array.dtype, type_.storage_dtype)
    if array.shape != type_.storage_shape:
        fail(place, f"storage shape of {type_}", array.shape, type_.storage_shape)
    if not array.flags.c_contiguous:
        fail(place, "storage layout", f"strides {array.strides}", "a C-contiguous array")
    if type_.dtype is DType.BITS:
        _check_padding(place, array, type_.channels)
    if type_.dtype is DType.F32 and not all(np.isfinite(block).all() for block in _blocks(array)):
        where, value = next((i, v) for i, v in np.ndenumerate(array) if not isfinite(v))
        fail(place, "constants are finite", f"{value} at index {where}", "finite numbers")


def _blocks(array: Array) -> Iterable[Array]:
    flat = array.reshape(-1)
    return (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))


def _check_padding(place: str, array: Array, channels: int) -> None:
    used = channels % WORD_BITS
    if not used:
        return
    padding = np.uint32((0xFFFFFFFF << used) & 0xFFFFFFFF)
    last = array.reshape(-1, array.shape[-1])[:, -1]
    for start in range(0, last.size, _BLOCK):
        wrong = np.flatnonzero(last[start : start + _BLOCK] & padding)
        if wrong.size:
            row = start + int(wrong[0])
            found = f"{int(last[row]):#010x} as the last word of row {row}"
            fail(place, f"bits beyond channel {channels - 1} are zero", found, "padding bits of 0")


def _check_node(
    program: Graph, node: Node, place: str, defined: set[str], producers: Mapping[str, int]
) -> None:
    _check_name(f"{place}, op", node.op)
    if node.layer != "":
        _check_name(f"{place}, layer", node.layer)
    op = OPS.get(node.op)
    if op is None:
        known = ", ".join(sorted(OPS))
        fail(place, "unknown op", repr(node.op), f"one of {known}; if a newer onebit wrote this, upgrade")
    if type(node.version) is not int or node.version != op.version:
        hint = "; a newer onebit wrote this program, upgrade to read it"
        newer = type(node.version) is int and node.version > op.version
        fail(place, "version of the op", shorten(node.version), f"{op.version}{hint if newer else ''}")
    _check_operands(program, node, op, place, defined, producers)
    _check_attrs(node, op, place)
    try:
        inferred = op.infer(program.call_of(node))
    except ProgramError as error:
        raise ProgramError(f"{place}: {error}") from None
    _check_output(program, node, place, defined, inferred)


def _check_operands(
    program: Graph, node: Node, op: Op, place: str, defined: set[str], producers: Mapping[str, int]
) -> None:
    operands = op.operands_for(len(node.inputs)) if isinstance(node.inputs, tuple) else op.operands
    if not isinstance(node.inputs, tuple) or len(node.inputs) != len(operands):
        names = ", ".join(operand.name for operand in op.operands)
        found: object = len(node.inputs) if isinstance(node.inputs, tuple) else shorten(node.inputs)
        count = f"{len(op.operands)} or more" if op.variadic else str(len(op.operands))
        fail(place, "number of inputs", found, f"{count} ({names})")
    for operand, name in zip(operands, node.inputs, strict=True):
        at = f"{place}, input {operand.name} = {shorten(name)}"
        _check_name(at, name)
        if name in program.constants:
            if operand.role is Role.VALUE:
                fail(at, "its role", "a constant", operand.role.value)
        elif name in defined:
            if operand.role is Role.CONST:
                fail(at, "its role", "a value", operand.role.value)
        elif name in producers:
            producer = f"the output of node {producers[name]}"
            fail(at, "nodes stand in topological order without cycles", producer, "one of an earlier node")
        else:
            fail(at, "every input is defined", "no value or constant of this name", "one")


def _check_attrs(node: Node, op: Op, place: str) -> None:
    if set(node.attrs) != set(op.attrs):
        fail(place, "attributes", shorten(list(node.attrs)), list(op.attrs))
    for name, kind in op.attrs.items():
        value = node.attrs[name]
        if kind is AttrKind.INT:
            good = type(value) is int and abs(value) <= limits.MAX_INTEGER
        elif kind is AttrKind.FLOAT:
            good = type(value) is float and isfinite(value)
        else:
            least = 1 if kind is AttrKind.SIZES else 0
            good = isinstance(value, tuple) and all(
                type(size) is int and least <= size <= limits.MAX_DIMENSION for size in value
            )
            if good and isinstance(value, tuple) and len(value) > limits.MAX_RANK:
                fail(place, f"rank of attribute {name}", len(value), f"at most {limits.MAX_RANK}")
        if not good:
            fail(place, f"attribute {name}", f"{shorten(value)} ({_type_name(value)})", kind.value)


def _check_output(program: Graph, node: Node, place: str, defined: set[str], inferred: TensorType) -> None:
    at = f"{place}, output {shorten(node.output)}"
    _check_tensor_name(at, node.output)
    if node.output in defined or node.output in program.constants:
        fail(at, "names are unique", "a name already taken", "a new one")
    if node.output not in program.values:
        fail(at, "every output has a type", "no entry in values", str(inferred))
    declared = program.values[node.output]
    check_type(at, declared, constant=False)
    if declared != inferred:
        fail(at, "declared type", declared, f"{inferred}, which the op gives")
