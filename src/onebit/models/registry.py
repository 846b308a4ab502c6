"""The list of models: what can be created by name, and what every whole-path test walks through."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor, nn

__all__ = [
    "Model",
    "ModelEntry",
    "convertible_names",
    "create",
    "create_small",
    "entry",
    "example_input",
    "names",
    "register",
]


class Model(Protocol):
    """What a registered class must offer beside being a torch.nn.Module."""

    def example_input(self, batch_size: int = 2) -> Tensor:
        """A random batch of the shape and dtype that the model takes, e.g. for `onebit.convert`."""
        ...


@dataclass(frozen=True)
class ModelEntry:
    """One model: its name, its class, the options that make it small enough for tests, the options that the
    name stands for where several names share a class, and why it cannot become a Program, if it cannot."""

    name: str
    factory: Callable[..., nn.Module]
    small: Mapping[str, Any]
    preset: Mapping[str, Any]
    unconvertible: str | None = None


_registry: dict[str, ModelEntry] = {}
_F = TypeVar("_F", bound=Callable[..., nn.Module])


def register(
    name: str,
    *,
    small: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
    unconvertible: str | None = None,
) -> Callable[[_F], _F]:
    """Class decorator: make a model available as `create(name)`.

    small: constructor options for a variant that tests run in milliseconds.
    preset: constructor options that `name` stands for; a class may be registered under several names.
    unconvertible: why `onebit.convert` refuses it. Tests then see to it that it does refuse.
    ValueError if the name is taken, TypeError if the class has no `example_input`.
    """

    def add(factory: _F) -> _F:
        if name in _registry:
            raise ValueError(f"model {name!r} is already registered, by {_registry[name].factory!r}")
        if not callable(getattr(factory, "example_input", None)):
            raise TypeError(f"model {name!r} needs a method example_input(batch_size) to be registered")
        _registry[name] = ModelEntry(name, factory, dict(small), dict(preset or {}), unconvertible)
        return factory

    return add


def names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_registry)


def convertible_names() -> list[str]:
    """The names of the models that `onebit.convert` turns into a Program, sorted."""
    return [name for name in names() if _registry[name].unconvertible is None]


def entry(name: str) -> ModelEntry:
    """The entry of that name; ValueError that lists the near names if there is none."""
    if name not in _registry:
        near = difflib.get_close_matches(name, _registry, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(f"unknown model {name!r}: {hint}Known are {', '.join(map(repr, names()))}.")
    return _registry[name]


def create(name: str, **options: Any) -> nn.Module:
    """A new model by name, in training mode, weights drawn from torch's global generator.

    ValueError for an unknown name; TypeError for an option that the model does not have.
    """
    factory, preset = entry(name).factory, entry(name).preset
    known = [p for p in inspect.signature(factory).parameters if p != "self"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(
            f"model {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(repr, known))}"
        )
    return factory(**{**preset, **options})


def create_small(name: str, **options: Any) -> nn.Module:
    """The model's test-sized variant; `options` override its small options."""
    return create(name, **{**entry(name).small, **options})


def example_input(model: nn.Module, batch_size: int = 2) -> Tensor:
    """`model.example_input(batch_size)`, for a model that came out of `create`."""
    return cast(Model, model).example_input(batch_size)
