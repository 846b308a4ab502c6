"""What must hold before a model is captured: mode, dtype, device, example inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onebit.errors import ConversionError, Problem
from onebit.nn.wrappers import inner_wrappers


def check(model: Any, example_inputs: Any, name: Any = None) -> tuple[Tensor, ...]:
    """The example inputs as a tuple of tensors; ConversionError with every problem otherwise."""
    if not isinstance(model, torch.nn.Module):
        why = f"it is {_described(model)}, not a torch.nn.Module"
        raise ConversionError([Problem("", type(model).__name__, "", why, "pass the model itself")])
    problems = [
        Problem(path, type(model.get_submodule(path)).__name__, "", "it spreads batches over processes", fix)
        for path, fix in inner_wrappers(model)
    ]
    problems += [*_check_mode(model), *_check_tensors(model)]
    inputs = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    problems += _check_inputs(model, inputs)
    if name is not None and not (isinstance(name, str) and _is_unicode(name)):
        why, fix = f"its name is {name!r:.80}, no text", "pass name= as a str of Unicode characters"
        problems.append(Problem("", type(model).__name__, "", why, fix))
    if problems:
        raise ConversionError(problems)
    return tuple(inputs)


def _described(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _is_unicode(text: str) -> bool:
    return text.isascii() or text.encode(errors="ignore").decode() == text


def _check_mode(model: torch.nn.Module) -> list[Problem]:
    training = [(path, module) for path, module in model.named_modules() if module.training]
    if not training:
        return []
    if model.training:
        return [Problem("", type(model).__name__, "", "it is in training mode", "call model.eval() first")]
    path, module = training[0]
    why = "it is in training mode while the model is in eval mode"
    return [Problem(path, type(module).__name__, "", why, "call model.eval(), which reaches every layer")]


def _check_tensors(model: torch.nn.Module) -> list[Problem]:
    problems = []
    wrong_dtype: list[tuple[str, Tensor]] = []
    wrong_device: list[tuple[str, Tensor]] = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype is not torch.float32):
            wrong_dtype.append((name, tensor))
        if tensor.device.type != "cpu":
            wrong_device.append((name, tensor))
    for wrong, what, fix in (
        (wrong_dtype, "dtype", "call model.float() first: conversion takes float32 models"),
        (wrong_device, "device", "call model.cpu() first: conversion runs on the CPU"),
    ):
        if wrong:
            name, tensor = wrong[0]
            path, _, leaf = name.rpartition(".")
            more = f" (and {len(wrong) - 1} more tensors)" if len(wrong) > 1 else ""
            kind = type(model.get_submodule(path)).__name__
            why = f"its '{leaf}' has {what} {getattr(tensor, what)}{more}"
            problems.append(Problem(path, kind, "", why, fix))
    return problems or _check_numbers(model)


def _check_numbers(model: torch.nn.Module) -> list[Problem]:
    """A NaN has no sign, and folding a latent weight into its bit would hide it: refused here, by name."""
    problems = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            path, _, leaf = name.rpartition(".")
            where = tuple(tensor.isnan().nonzero()[0].tolist())
            why = f"its '{leaf}' holds a NaN, at index {where}, and a NaN has no sign"
            fix = "train again from a checkpoint whose numbers are finite, or set it to a number"
            problems.append(Problem(path, type(model.get_submodule(path)).__name__, "", why, fix))
    return problems


def _check_inputs(model: torch.nn.Module, inputs: tuple[Any, ...] | list[Any]) -> list[Problem]:
    kind = type(model).__name__
    if not inputs:
        fix = "pass one tensor an input, batch first, e.g. torch.zeros(1, 784)"
        return [Problem("", kind, "example inputs", "there are none", fix)]
    problems = []
    for position, x in enumerate(inputs):
        why_fix = _judge_input(x)
        if why_fix is not None:
            problems.append(Problem("", kind, f"example input {position}", *why_fix))
    if not problems and len({x.shape[0] for x in inputs}) > 1:
        why = f"their batch sizes differ: {', '.join(str(x.shape[0]) for x in inputs)}"
        problems.append(Problem("", kind, "example inputs", why, "use the same number of samples in each"))
    return problems


def _judge_input(x: Any) -> tuple[str, str] | None:
    if not isinstance(x, Tensor):
        return f"it is {_described(x)}, not a tensor", "pass torch tensors, e.g. torch.from_numpy(array)"
    if x.dtype not in (torch.float32, torch.uint8):
        return f"it has dtype {x.dtype}", "pass torch.float32, or torch.uint8 for bytes"
    if x.device.type != "cpu":
        return f"it is on {x.device}", "pass x.cpu()"
    if x.dim() < 2:
        return f"it has shape {tuple(x.shape)}", "pass (batch, ...), e.g. x[None] for one sample"
    if x.numel() == 0:
        return f"it has shape {tuple(x.shape)}, without elements", "pass at least one sample"
    return None
