"""Pass 1: PyTorch model -> Captured, by torch.export."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from onebit.errors import ConversionError, Problem
from onebit.lowering.capture.captured import BatchSize, Captured, Input, Origin, Ref, ResultType, TorchCall
from onebit.lowering.capture.torch_export import export

_SOURCE_ROOTS = (Path(torch.__file__).parent, Path(__file__).parents[2] / "nn")
# Checks that export leaves in the graph; they compute nothing.
_ASSERTIONS = ("aten._assert_", "aten.sym_constrain_range", "aten._assert_tensor_metadata")


def capture(model: torch.nn.Module, example_inputs: tuple[Tensor, ...], name: str) -> Captured:
    """Export `model` (checked, in eval mode) with a free batch size and list its calls.

    Raises ConversionError for what export cannot follow and for outputs other than a tensor or a flat tuple.
    """
    exported = export(model, example_inputs)
    return _Reader(model, exported, example_inputs).read(name)


class _Reader:
    def __init__(
        self, model: torch.nn.Module, exported: ExportedProgram, examples: tuple[Tensor, ...]
    ) -> None:
        self._model = model
        self._exported = exported
        self._examples = examples
        self._alias: dict[str, str] = {}  # getitem(call, 0) -> call
        self._batch: set[str] = set()

    def read(self, name: str) -> Captured:
        self._check_signature()
        constants, constant_names, inputs = self._read_inputs()
        calls: list[TorchCall] = []
        for node in self._exported.graph.nodes:
            if node.op == "call_function" and not self._skip(node):
                calls.append(self._call(node))
        outputs = tuple(
            self._alias.get(o, o) for o in self._exported.graph_signature.user_outputs if isinstance(o, str)
        )
        return Captured(
            name, type(self._model).__name__, tuple(inputs), tuple(calls), outputs, constants, constant_names
        )

    def _read_inputs(self) -> tuple[dict[str, Tensor], dict[str, str], list[Input]]:
        constants: dict[str, Tensor] = {}
        names: dict[str, str] = {}
        inputs: list[Input] = []
        placeholders = {n.name: n for n in self._exported.graph.nodes if n.op == "placeholder"}
        examples = iter(self._examples)
        for spec in self._exported.graph_signature.input_specs:
            arg = spec.arg.name
            if spec.kind is InputKind.USER_INPUT:
                value = placeholders[arg].meta["val"]
                self._batch.add(str(value.shape[0]))
                inputs.append(Input(arg, value.dtype, tuple(next(examples).shape[1:])))
                continue
            target = str(spec.target)
            stored = self._exported.state_dict.get(target, self._exported.constants.get(target))
            if isinstance(stored, Tensor):
                constants[arg] = stored.detach()
                names[arg] = target
        return constants, names, inputs

    def _check_signature(self) -> None:
        signature = self._exported.graph_signature
        kind = type(self._model).__name__
        for spec in signature.output_specs:
            if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION):
                why = f"its forward writes to '{spec.target}', and a Program keeps no state"
                fix = "do not assign to buffers or inputs in eval mode"
                raise ConversionError([Problem("", kind, "", why, fix)])
        tree = self._exported.call_spec.out_spec
        flat = tree is not None and all(child.is_leaf() for child in tree.children())
        container = tree is not None and (tree.is_leaf() or (tree.type in (tuple, list) and flat))
        if not container or not all(isinstance(o, str) for o in signature.user_outputs):
            why = "it returns something other than a tensor or a flat tuple of tensors"
            raise ConversionError([Problem("", kind, "", why, "return a tensor or a tuple of tensors")])

    def _skip(self, node: fx.Node) -> bool:
        if str(node.target).startswith(_ASSERTIONS):
            return True
        if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, torch.SymFloat, int, float, bool)):
            return True  # arithmetic on the batch size; whoever uses it sees BatchSize
        if node.target is operator.getitem and node.args[1] == 0 and isinstance(node.args[0], fx.Node):
            source = node.args[0].name
            self._alias[node.name] = self._alias.get(source, source)
            return True
        return False

    def _call(self, node: fx.Node) -> TorchCall:
        value = node.meta.get("val")
        if isinstance(value, (tuple, list)) and value:
            value = value[0]
        return TorchCall(
            name=node.name,
            op=_op_name(node.target),
            function=node.target,  # type: ignore[arg-type]
            args=tuple(self._argument(a) for a in node.args),
            kwargs={k: self._argument(v) for k, v in node.kwargs.items()},
            origin=_origin(node, self._model),
            result=self._result(value) if isinstance(value, Tensor) else None,
        )

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            value = argument.meta.get("val")
            if isinstance(value, (torch.SymInt, torch.SymBool, torch.SymFloat)):
                return BatchSize(from_data=_reads_data(argument))
            if isinstance(value, (int, float, bool)):
                return value
            return Ref(self._alias.get(argument.name, argument.name))
        if isinstance(argument, (list, tuple)):
            return tuple(self._argument(a) for a in argument)
        return argument

    def _result(self, value: Tensor) -> ResultType:
        shape = tuple(value.shape)
        batched = len(shape) > 0 and str(shape[0]) in self._batch
        rest = shape[1:]
        sample = tuple(int(d) for d in rest) if batched and all(isinstance(d, int) for d in rest) else None
        return ResultType(value.dtype, sample, str(tuple(str(d) for d in shape)).replace("'", ""))


def _reads_data(node: fx.Node) -> bool:
    """Is this number, or what it is computed from, read out of a tensor?"""
    if "_local_scalar_dense" in str(node.target) or "aten.item" in str(node.target):
        return True
    return any(_reads_data(n) for n in node.all_input_nodes if not isinstance(n.meta.get("val"), Tensor))


def _op_name(target: Any) -> str:
    return "getitem" if target is operator.getitem else str(target)


def _origin(node: fx.Node, model: torch.nn.Module) -> Origin:
    stack = [entry for entry in (node.meta.get("nn_module_stack") or {}).values() if "." in str(entry[1])]
    path, kind = (
        (str(stack[-1][0]), str(stack[-1][1]).rsplit(".", 1)[-1]) if stack else ("", type(model).__name__)
    )
    return Origin(path, kind, _source(str(node.meta.get("stack_trace") or "")))


def _source(trace: str) -> str:
    """The innermost line of the user's own code in a PyTorch stack trace, as 'file.py:12 "code"'."""
    lines = trace.splitlines()
    best = ""
    for i, line in enumerate(lines):
        parts = line.strip().split('"')
        if len(parts) < 3 or not parts[0].startswith("File"):
            continue
        file = Path(parts[1])
        if any(root in file.parents for root in _SOURCE_ROOTS):
            continue
        number = parts[2].split("line ")[-1].split(",")[0]
        code = lines[i + 1].strip() if i + 1 < len(lines) else ""
        best = f'{file.name}:{number} "{code}"'
    return best
