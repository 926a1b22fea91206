"""A check of tensor shapes at run time, so that no public loss broadcasts silently."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def check_shapes(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: raise ValueError unless tensor arguments have the shapes of their jaxtyping annotations.

    Dimensions are plain names or numbers; one name means one size throughout the call. Unlike a type checker, this is
    always on. Types are not checked.

    >>> import torch
    >>> from jaxtyping import Float
    >>> from torch import Tensor
    >>> @check_shapes
    ... def distance(a: Float[Tensor, "n"], b: Float[Tensor, "n"]) -> Tensor:
    ...     return (a - b).norm()
    >>> distance(torch.zeros(2), torch.zeros(1))
    Traceback (most recent call last):
    ValueError: distance: b has shape [1], expected [n] with n = 2
    """
    wanted = _shapes_of(function)
    order = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        sizes: dict[str, int] = {}
        values: list[tuple[str, Any]] = [*zip(order, args, strict=False), *kwargs.items()]
        for name, value in values:
            if name in wanted and value is not None and not _fits(tuple(value.shape), wanted[name], sizes):
                known = ", ".join(f"{one} = {sizes[one]}" for one in wanted[name] if one in sizes)
                raise ValueError(
                    f"{function.__name__}: {name} has shape {list(value.shape)}, expected [{', '.join(wanted[name])}]"
                    + (f" with {known}" if known else "")
                )
        return function(*args, **kwargs)

    return checked


def _shapes_of(function: Callable[..., object]) -> dict[str, list[str]]:
    """Return the dimensions that the annotations of a function's tensors name."""
    found = {}
    for name, hint in typing.get_type_hints(function).items():
        for part in typing.get_args(hint) or (hint,):  # of `... | None`
            if name != "return" and hasattr(part, "dim_str"):
                found[name] = part.dim_str.split()
    return found


def _fits(shape: tuple[int, ...], dimensions: list[str], sizes: dict[str, int]) -> bool:
    """Whether a shape has these dimensions; sizes of new names are noted."""
    if len(shape) != len(dimensions):
        return False
    new: dict[str, int] = {}
    for size, name in zip(shape, dimensions, strict=True):
        expected = int(name) if name.isdecimal() else sizes.get(name, new.get(name, size))
        if size != expected:
            return False
        if not name.isdecimal():
            new[name] = size
    sizes.update(new)
    return True
