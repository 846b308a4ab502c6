"""What `binarize` must know of a foreign model before it may touch a layer.

A layer can be replaced only where the model uses it by calling it. PyTorch's own nn.MultiheadAttention reads
`out_proj.weight` and multiplies by itself; a replaced layer would be used with its latent weights, as if they
were real, and nobody would notice. So: known classes are named, the source of every parent is read for
`self.layer.weight`, as far as a forward pass may get there, and with an example input it is seen which layers
are called, and in which order.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from onebit.nn.binary_layer import BinaryLayer
from onebit.nn.modes import modes_kept

__all__ = ["Calls", "centred", "holds_products", "obstacles", "passes_through", "record_calls"]

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
_PADS = (nn.modules.padding._ConstantPadNd,)
_PASSING = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity, nn.Flatten, nn.Unflatten),
    *_PADS,
)
# Reading one of these of a weight does not use the weight.
_METADATA = {"dtype", "device", "shape", "size", "ndim", "requires_grad", "is_cuda", "layout"}
# Where a forward pass begins: what Python calls by itself.
_ROOTS = {"forward", "__call__", "__getattr__", "__getitem__", "__iter__", "__len__", "__contains__"}


def is_norm(module: nn.Module) -> bool:
    """A normalization that subtracts a mean, or a subclass of one, which may do more. (Not RMSNorm.)"""
    return isinstance(module, _NORMS)


def centred(module: nn.Module) -> bool:
    """A normalization whose output has zero mean, so that its sign says something.

    A subclass with a forward of its own may have an activation inside, as timm's BatchNormAct2d: its sign may
    be +1 everywhere. `record_calls` looks at what such a one gives.
    """
    own = type(module).forward.__module__.startswith(("torch.nn.", "onebit.nn."))
    return is_norm(module) and own and "forward" not in vars(module) and not module._forward_hooks


def _has_both_signs(y: Tensor) -> bool:
    """At least a tenth of the numbers below 0, and a tenth not: what follows has something to decide."""
    below = float((y < 0).float().mean())
    return 0.1 <= below <= 0.9


def passes_through(module: nn.Module) -> bool:
    """A module that changes no sign of what passes through it, in eval mode."""
    return isinstance(module, _PASSING)


def is_pad(module: nn.Module) -> bool:
    """A module that puts a constant around its input, ConstantPad2d or ZeroPad1d say."""
    return isinstance(module, _PADS)


def holds_products(module: nn.Module) -> bool:
    """The module itself multiplies by weights of its own: dense, convolution, embedding, recurrent …"""
    if isinstance(module, (BinaryLayer, nn.Linear, nn.Conv1d, nn.Conv2d)):
        return True
    return not is_norm(module) and any(
        "weight" in name and parameter is not None and (is_lazy(parameter) or parameter.ndim >= 2)
        for name, parameter in module._parameters.items()
    )


def obstacles(model: nn.Module) -> Mapping[str, str]:
    """{name: why the layer there cannot be replaced}, for every module of the model that `holds_products`."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(f"{name}.{key}".lstrip("."))
    direct = dict(_direct_uses(model))
    found = {}
    for name, module in model.named_modules():
        if holds_products(module):
            reason = _of_the_layer(module) or _of_its_parameters(module, owners) or direct.get(id(module))
            if reason:
                found[name] = reason
    return found


def _of_the_layer(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if isinstance(module, BinaryLayer):
        return "binary already"
    if any(p is not None and is_lazy(p) for p in module._parameters.values()):
        return f"{kind} has no weights yet: run one batch through the model first"
    if isinstance(module, nn.MultiheadAttention):
        return "nn.MultiheadAttention multiplies by its projections itself, without a layer"
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention reads its weight directly and never calls it"
    if parametrize.is_parametrized(module):
        return "parametrized: call torch.nn.utils.parametrize.remove_parametrizations first"
    if type(module) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
        base = next((c for c in (nn.Linear, nn.Conv1d, nn.Conv2d) if isinstance(module, c)), None)
        if base is None:
            return f"onebit has no binary form of {kind}"
        return f"{kind} is a subclass of {base.__name__} and may compute something else"
    if "weight" not in module._parameters or _has_hooks(module):
        return "its weight is computed by a hook, or it has hooks that would be lost: remove them first"
    if "forward" in vars(module):
        return "its forward has been replaced"
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and module.padding_mode != "zeros":
        return f"padding_mode={module.padding_mode!r}: binary convolutions pad with zeros"
    return None


def _has_hooks(module: nn.Module) -> bool:
    return any(value for key, value in vars(module).items() if key.startswith("_") and key.endswith("_hooks"))


def _of_its_parameters(module: nn.Module, owners: Mapping[int, list[str]]) -> str | None:
    for key, parameter in module._parameters.items():
        others = owners[id(parameter)] if parameter is not None else []
        if len(others) > 1:
            return f"its {key} is shared: {' = '.join(others)}"
    weight = module._parameters["weight"]
    assert weight is not None
    if not weight.is_floating_point():
        return f"its weights are {weight.dtype}"
    return None


def _direct_uses(model: nn.Module) -> Iterator[tuple[int, str]]:
    """(id of a layer, reason) where the source of a module says `self.path.to.layer.weight`."""
    methods = {kind: list(_methods(kind)) for kind in {type(module) for module in model.modules()}}
    within = _within_forward(itertools.chain.from_iterable(methods.values()))
    read = {
        kind: {p for m in found if m.name in within for p in _weights_read_in(m)}
        for kind, found in methods.items()
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer):  # `keep_calling_layers_` switches that off
            continue
        for path in read[type(module)]:
            try:
                layer = module.get_submodule(path)
            except AttributeError:
                continue
            where = f"{type(module).__name__}{f' ({name})' if name else ''}"
            yield id(layer), f"{where} reads {path}.weight directly"


def _methods(kind: type[nn.Module]) -> Iterator[ast.FunctionDef]:
    """The methods of class `kind`, bases included, as far as there is source."""
    for base in kind.__mro__:
        if base is nn.Module or not issubclass(base, nn.Module):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):  # no source: made by exec, or compiled
            continue
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _within_forward(methods: Iterable[ast.FunctionDef]) -> set[str]:
    """The names of the methods that a forward pass may come to, whoever owns them.

    By name alone: a method is within if one that is says its name, as an attribute or in a string. And if
    __init__ hands it on without calling it (`self.act = self._act`, `register_forward_hook(hook)`).
    """
    says: dict[str, set[str]] = {}
    names = set(_ROOTS)
    for method in methods:
        nodes = list(ast.walk(method))
        if method.name == "__init__":
            called = {node.func for node in nodes if isinstance(node, ast.Call)}
            names |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and node not in called}
            names |= {node.id for node in nodes if isinstance(node, ast.Name) and node not in called}
        said = says.setdefault(method.name, set())
        said |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        said |= {
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    while more := {said for name in names & says.keys() for said in says[name]} & says.keys() - names:
        names |= more
    return names


def _weights_read_in(function: ast.FunctionDef) -> Iterator[str]:
    harmless: set[ast.AST] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in _METADATA:
            harmless.add(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "getattr"):
            harmless.update(node.args)
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in ("weight", "bias") and node not in harmless:
            parts = ast.unparse(node).split(".")
            if len(parts) > 2 and parts[0] == "self" and all(part.isidentifier() for part in parts):
                yield ".".join(parts[1:-1])


def keep_calling_layers_(model: nn.Module) -> None:
    """Switch off what PyTorch's own encoder does in eval mode: one fused call on the layers' real weights."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


@dataclass
class Calls:
    """What one forward pass showed: the product layers in the order of their first call, those whose input
    came straight out of a centring normalization each time, how often each module was called, and which pad
    gave a product layer its input and nothing else anything."""

    order: list[str] = field(default_factory=list)
    normalized: set[str] = field(default_factory=set)
    called: Counter[str] = field(default_factory=Counter)
    padded: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def record_calls(model: nn.Module, example: Any) -> Calls:
    """Run `model` once on the example, in eval mode, and see. The model is left as it was.

    example: the input; a tuple is several arguments, a mapping keyword arguments.
    """
    calls = Calls()
    # id → (tensor, its version then): the tensor is kept alive so that its id stays its own, and an in-place
    # operation since (a ReLU, say) shows in the version.
    fresh: dict[int, tuple[Tensor, int]] = {}
    elsewhere: set[str] = set()
    pads: dict[int, tuple[str, Tensor, set[str]]] = {}  # id → a pad's name, what it gave, and to whom

    def is_fresh(inputs: tuple[Any, ...]) -> bool:
        kept = fresh.get(id(inputs[0])) if inputs else None
        return kept is not None and kept[0]._version == kept[1]

    def before(name: str, module: nn.Module) -> Any:
        def look(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            calls.called[name] += 1
            if inputs and id(inputs[0]) in pads and not module._modules:
                pads[id(inputs[0])][2].add(name)
            if holds_products(module):
                if name not in calls.order:
                    calls.order.append(name)
                (calls.normalized if is_fresh(inputs) else elsewhere).add(name)

        return look

    def after(name: str, module: nn.Module) -> Any:
        centres = centred(module)  # before it has a hook of ours

        def look(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if is_pad(module):
                pads[id(output)] = name, output, set()
            if isinstance(output, Tensor) and (
                centres
                or (is_norm(module) and _has_both_signs(output))
                or (passes_through(module) and is_fresh(inputs))
            ):
                fresh[id(output)] = (output, output._version)

        return look

    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(before(name, module)))
            handles.append(module.register_forward_hook(after(name, module)))
        with modes_kept(model):
            model.eval()
            if isinstance(example, Mapping):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
    calls.normalized -= elsewhere
    for pad, _, takers in pads.values():
        once = all(calls.called[name] == 1 for name in (pad, *takers))
        if once and len(takers) == 1 and takers <= set(calls.order):
            calls.padded[takers.pop()] = pad
    return calls
