"""`binarize`: the dense layers and convolutions of any PyTorch model, turned into binary ones.

Each becomes a layer of this package that starts from the trained weights (rules: from_float.py). Two things a
float network does not bring along have to be seen to.

**What a sign sees.** Behind a ReLU every number is >= 0, and sign(ReLU(x)) is +1 everywhere: a binary layer
put in the place of a float one there would receive nothing at all. XNOR-Net (arXiv 1603.05279, section 3.2)
puts a BatchNorm before the sign, so that the sign asks whether a channel is above its own mean. So does
`norm="batch"`: a layer with a binarized input gets a BatchNorm in front unless it stands directly behind a
normalization that centres. The ReLU stays: trained weights expect large and small numbers behind it, and with
it the sign says "large", where without it it would say "above average, be it large or below 0".

XNOR-Net's own order, BatchNorm → sign → convolution → pool, has no ReLU between two binary layers, whose
derivative keeps the gradient from every unit below 0. `reorder=True` leaves it out where nothing else can see
its output: in an nn.Sequential, with only pools, dropouts, flattening or a BatchNorm between it and the next
layer that is made binary. That is farther from the float network, and was behind in our short fine-tunings
(docs/binarize.md); in a long training it has the better gradient.

**BatchNorm's statistics.** They are those of the float network, and of the new BatchNorms mean 0 and variance
1: call `reestimate_batch_norm_(model, batches)` before anything else.
"""

from __future__ import annotations

import copy
import difflib
import fnmatch
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from onebit.nn import quantizers
from onebit.nn.batch_norm import BatchNormFeatures
from onebit.nn.binarize_report import BinarizeLayerReport, BinarizeReport, weigh
from onebit.nn.binary_layer import BinaryLayer, InputScale, WeightScale, check_choice, check_count
from onebit.nn.binary_linear import BinaryLinear
from onebit.nn.from_float import BinaryOptions, binary_from_float
from onebit.nn.module_scan import Calls, holds_products, keep_calling_layers_, obstacles, record_calls
from onebit.nn.sequences import dropout_notes, normalized, padded, reordered, replaced
from onebit.nn.wrappers import inner_wrappers, without_parallel

__all__ = ["NormedLayer", "Skip", "binarize", "binarize_report"]

Norm = Literal["batch"]
LayerRule = str | type[nn.Module] | Callable[[str, nn.Module], bool]
Skip = LayerRule | Iterable[LayerRule]

_REPORT = "_onebit_binarize_report"


# What model code asks a torch.nn layer for: weight, bias, and what it was made with, by torch's own lists.
_ANSWERS = {"weight", "bias"}.union(nn.Linear.__constants__, nn.Conv1d.__constants__, ("transposed",))


class NormedLayer(nn.Sequential):
    """A BatchNorm and the binary layer behind it, in the place of one float layer: `norm`, `product`.

    x as the float layer took it -> as the float layer gave it. `weight`, `bias`, `in_features`, `stride` and
    whatever else the float layer was asked for are those of the binary layer, to read and to set.
    """

    def __init__(self, norm: nn.Module, product: BinaryLayer) -> None:
        super().__init__(OrderedDict(norm=norm, product=product))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._modules["product"], name) if name in _ANSWERS else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _ANSWERS:
            setattr(self._modules["product"], name, value)
        else:
            super().__setattr__(name, value)


def binarize(
    model: nn.Module,
    *,
    weights: str | nn.Module | None = "ste_sign",
    inputs: str | nn.Module | None = "ste_sign",
    weight_scale: WeightScale | None = "channel_mean",
    input_scale: InputScale | None = None,
    norm: Norm | None = "batch",
    reorder: bool = False,
    skip: Skip = (),
    keep_ends: bool = True,
    min_terms: int = 64,
    depthwise: bool = False,
    example: Any = None,
    inplace: bool = False,
) -> nn.Module:
    """Turn the nn.Linear, nn.Conv1d and nn.Conv2d layers of a model into binary ones that start from its
    weights; returns the model, which is a copy unless inplace=True, and of DistributedDataParallel or
    DataParallel the module inside.

        binary = onebit.nn.binarize(model, example=images[:2])
        print(onebit.nn.binarize_report(binary))               # what is binary, what stayed real, and why
        onebit.nn.reestimate_batch_norm_(binary, batches)      # then fine-tune in the ordinary loop

    Stride, padding, dilation, groups, bias, dtype, device, mode and names stay; a layer that got a BatchNorm
    in front is a `NormedLayer`, or has it in front of the pad that stands before it. A layer that cannot be
    replaced safely is left real, and the report says why: weights shared, parametrized, computed by a hook or
    read in a forward pass without calling the layer; subclasses; other paddings than by zeros; layers without
    weights yet.

    weights, inputs: quantizers for the weights and the inputs of the layers: a name of
        `onebit.nn.quantizers.names()`, a module (each layer gets a copy) or None (stays real:
        inputs=None is BWN, weights=None the first of ReActNet's two steps). Not both None.
    weight_scale, input_scale: as in `BinaryConv2d`; the default is XNOR-Net's α without K. With weights=None
        there is no scale. Grouped convolutions get no K.
    norm: "batch", or None: no layer gets a BatchNorm in front. Nothing gets one with inputs=None.
    reorder: leave out a ReLU between two layers of an nn.Sequential of which the second is made binary, its
        input too: XNOR-Net's order.
    skip: what to leave real: names or glob patterns of modules ("layer4.*"; naming a module that has
        children covers them), classes, functions (name, module) -> bool, or several of these.
    keep_ends: leave the first and the last product layer real, as the papers do; an embedding counts as one.
        First and last by execution if there is an `example`, else in the order of registration.
    min_terms: layers whose sums have fewer terms than this, in_channels/groups · kernel size, stay real:
        they gain little and lose much (1×1 convolutions of few channels).
    depthwise: True to include convolutions whose groups have one channel each.
    example: an input of the model (a tuple: several arguments, a mapping: keywords), with which it is run
        once, in eval mode. With it: the true order of the layers, layers that are never called stay real, and
        no BatchNorm goes in where a normalization already stands, a subclass with an activation inside apart.

    ValueError for a skipped name that is not in the model, for options that do not go together, and if no
    layer could be made binary.
    """
    model = _checked(model, inplace)
    options = _options(weights, inputs, weight_scale, input_scale)
    check_choice("norm", norm, (None, *get_args(Norm)))
    check_count("min_terms", min_terms)
    if not inplace:
        model = copy.deepcopy(model)
    calls = None if example is None else record_calls(model, example)
    reasons = dict(obstacles(model))
    for name, module in model.named_modules():
        if holds_products(module) and name not in reasons:
            reason = _too_small(module, min_terms, depthwise) or _uncalled(name, calls)
            if reason:
                reasons[name] = reason
    reasons.update(_skipped(model, skip))
    if keep_ends:
        reasons.update(_ends(model, calls, reasons))
    chosen = [
        name for name, module in model.named_modules() if holds_products(module) and name not in reasons
    ]
    if not chosen:
        raise ValueError(_nothing(model, reasons))
    if inplace and chosen == [""]:
        raise ValueError("a single layer cannot be replaced in place: use what binarize returns")
    _, bits_before = weigh(model.modules())
    layers = {name: cast("nn.Linear | nn.Conv1d | nn.Conv2d", model.get_submodule(name)) for name in chosen}
    ids = {id(layer) for layer in layers.values()} if inputs is not None else set()
    notes = reordered(model, ids, calls) if reorder else []
    notes += dropout_notes(model, ids, calls)
    normed = ids - normalized(model, calls) if norm is not None else set()
    pads = padded(model, calls)
    done: dict[str, str] = {}
    for name, layer in layers.items():
        binary, done[name] = _binary(layer, options)
        new: nn.Module = binary
        if id(layer) in normed:
            new, where = _normed(model, layer, binary, pads.get(id(layer)))
            done[name] += where
        model = replaced(model, name, layer, new)
    if any(isinstance(m, nn.TransformerEncoderLayer) for m in model.modules()):
        keep_calling_layers_(model)
        notes.append("nn.TransformerEncoderLayer: its fast path, which skips the layers, is switched off")
    setattr(model, _REPORT, _report(model, done, reasons, bits_before, notes))
    return model


def binarize_report(model: nn.Module) -> BinarizeReport:
    """What `binarize` did to this model: rows, totals, and a table when printed.

    ValueError for a model that did not come out of `binarize`.
    """
    report = getattr(model, _REPORT, None)
    if not isinstance(report, BinarizeReport):
        raise ValueError(f"this {type(model).__name__} did not come out of onebit.nn.binarize")
    return report


def _checked(model: nn.Module, inplace: bool) -> nn.Module:
    """The module itself, out of a wrapper that spreads batches; TypeError for what is no plain module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"binarize takes a torch.nn.Module; got {type(model).__name__}")
    inside = without_parallel(model)
    if inplace and inside is not model:
        raise TypeError(
            f"a {type(model).__name__} would go on training the layers that it was made with: binarize its "
            ".module in place, and wrap that again"
        )
    for name, module in inside.named_modules():
        kind = type(module).__name__
        if kind in ("OptimizedModule", "FullyShardedDataParallel") or isinstance(
            module, torch.jit.ScriptModule
        ):
            raise TypeError(
                f"{name or 'the model'} is a {kind}: binarize the plain module first, then compile, script "
                "or distribute it"
            )
    for name, fix in inner_wrappers(inside):
        raise TypeError(f"{name} is a DistributedDataParallel: {fix}")
    return inside


def _options(
    weights: str | nn.Module | None,
    inputs: str | nn.Module | None,
    weight_scale: WeightScale | None,
    input_scale: InputScale | None,
) -> BinaryOptions:
    if weights is None and inputs is None:
        raise ValueError("weights=None and inputs=None leave nothing to binarize: name a quantizer for one")
    try:
        options: BinaryOptions = {
            "input_quantizer": quantizers.resolve(inputs, "input_quantizer"),
            "weight_quantizer": quantizers.resolve(weights, "weight_quantizer"),
            "weight_scale": weight_scale if weights is not None else None,
            "input_scale": input_scale,
        }
        with torch.device("meta"):
            BinaryLinear(1, 1, **options)  # refuses what does not go together, before anything is changed
    except (TypeError, ValueError) as error:  # in the words of this function's options
        words = str(error).replace("input_quantizer", "inputs").replace("weight_quantizer", "weights")
        raise type(error)(words) from None
    return options


def _too_small(module: nn.Module, min_terms: int, depthwise: bool) -> str | None:
    weight = module._parameters["weight"]
    assert weight is not None
    if isinstance(module, (nn.Conv1d, nn.Conv2d)) and module.groups > 1 and weight.shape[1] == 1:
        return None if depthwise else "depthwise"
    terms = weight[0].numel()
    return f"sums of {terms} terms, fewer than {min_terms}" if terms < min_terms else None


def _uncalled(name: str, calls: Calls | None) -> str | None:
    return "never called with the example" if calls is not None and name not in calls.order else None


def _skipped(model: nn.Module, skip: Skip) -> dict[str, str]:
    """{name: reason} of the product layers that the user wants real."""
    rules = (skip,) if isinstance(skip, (str, type)) or callable(skip) else tuple(skip)
    modules = dict(model.named_modules(remove_duplicate=False))
    found = {}
    for rule in rules:
        for name in _matches(rule, modules):
            inside = (n for n in modules if n == name or n.startswith(f"{name}.") or not name)
            found.update({n: "skipped, as you asked" for n in inside if holds_products(modules[n])})
    # A layer with two names is reported under its first.
    first = {id(module): name for name, module in model.named_modules()}
    return {first[id(modules[name])]: reason for name, reason in found.items()}


def _matches(rule: Any, modules: Mapping[str, nn.Module]) -> list[str]:
    if isinstance(rule, str):
        matching = [name for name in modules if fnmatch.fnmatchcase(name, rule)]
        if not matching:
            near = difflib.get_close_matches(rule, modules, n=3)
            hint = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"skip={rule!r} is no module of this {type(modules['']).__name__}{hint}")
        return matching
    if isinstance(rule, type):
        return [name for name, module in modules.items() if isinstance(module, rule)]
    if callable(rule):
        return [name for name, module in modules.items() if rule(name, module)]
    raise TypeError(f"skip takes names, patterns, classes and functions (name, module); got {rule!r}")


def _ends(model: nn.Module, calls: Calls | None, reasons: Mapping[str, str]) -> dict[str, str]:
    """The first and the last product layer, unless they stay real for another reason."""
    names = calls.order if calls is not None else []
    names = names or [name for name, module in model.named_modules() if holds_products(module)]
    ends = {}
    for name, which in ((names[-1], "last"), (names[0], "first")) if names else ():
        if name not in reasons:
            ends[name] = f"{which} layer"
    return ends


def _nothing(model: nn.Module, reasons: Mapping[str, str]) -> str:
    why = "".join(f"\n  {name or '(the model)'}: {reason}" for name, reason in list(reasons.items())[:12])
    if not why:
        why = " it has no nn.Linear, nn.Conv1d or nn.Conv2d"
    return f"no layer of this {type(model).__name__} can be made binary:{why}"


def _binary(layer: nn.Linear | nn.Conv1d | nn.Conv2d, options: BinaryOptions) -> tuple[BinaryLayer, str]:
    """The layer's replacement, and what to say of it."""
    said = [
        "weights and inputs"
        if options["weight_quantizer"] and options["input_quantizer"]
        else "weights only"
        if options["weight_quantizer"]
        else "inputs only"
    ]
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups > 1 and options["input_scale"]:
        options = {**options, "input_scale": None}
        said.append("no K, as it is grouped")
    return binary_from_float(layer, options), ", ".join(said)


def _normed(
    model: nn.Module, layer: nn.Linear | nn.Conv1d | nn.Conv2d, binary: BinaryLayer, pad: str | None
) -> tuple[nn.Module, str]:
    """The layer's replacement with a BatchNorm in front, and what to say of it.

    Of a layer behind a pad the BatchNorm goes before the pad, into its place in `model`: the constant is for
    the convolution to see, not for the statistics, and only so can a Program have it.
    """
    norm = _norm_for(layer).to(device=layer.weight.device, dtype=layer.weight.dtype).train(layer.training)
    old = None if pad is None else model.get_submodule(pad)
    if pad is None or len(cast(Any, old).padding) != 2 * (layer.weight.ndim - 2):  # or it pads other axes
        return NormedLayer(norm, binary).train(layer.training), ", BatchNorm in front"
    assert old is not None
    replaced(model, pad, old, nn.Sequential(OrderedDict(norm=norm, pad=old)).train(old.training))
    return binary, ", BatchNorm in front of its padding"


def _norm_for(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> nn.Module:
    """ε as XNOR-Net's authors have it before their signs."""
    if isinstance(layer, nn.Linear):
        return BatchNormFeatures(layer.in_features, eps=1e-4)
    kind = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    return kind(layer.in_channels, eps=1e-4)


def _report(
    model: nn.Module,
    done: Mapping[str, str],
    reasons: Mapping[str, str],
    bits_before: int,
    notes: Iterable[str],
) -> BinarizeReport:
    layers = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        if name in done or name in reasons:
            parameters, bits = weigh(module.modules() if name in done else [module], seen)
            kind = type(module.product if isinstance(module, NormedLayer) else module).__name__
            reason = done.get(name) or reasons[name]
            layers.append(BinarizeLayerReport(name, kind, name in done, reason, parameters, bits))
    other_parameters, other_bits = weigh(model.modules(), seen)
    return BinarizeReport(tuple(layers), other_parameters, other_bits, bits_before, tuple(notes))
