"""A device that this machine lacks: tensors that say they are there, and refuse to meet those that are not.

Their numbers are this machine's own, so a run on it has the very weights of one on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map

DEVICE: Final = torch.device("xla:0")  # of a name that torch knows, and does not try to start
# Where tensors of two devices may meet: one is copied from, or what is elsewhere is looked up by places.
_COPIES: Final = {torch.Tensor.copy_, torch._has_compatible_shallow_copy_type}
_LOOKS_UP: Final = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


class Elsewhere(torch.Tensor):
    """A tensor on DEVICE."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return DEVICE
        if func is torch.Tensor.numpy:
            raise TypeError(f"a tensor on {DEVICE} has no numpy array")
        may_meet = func in _COPIES or (func in _LOOKS_UP and isinstance(args[0], cls))
        if not may_meet and tree_any(_is_on_cpu, (args, kwargs)):
            raise RuntimeError(f"{func} was given tensors of the CPU and of {DEVICE}")
        found = super().__torch_function__(func, types, args, kwargs)
        if func == torch.Tensor.grad.__get__ and found is not None:  # type: ignore[attr-defined]
            return found.as_subclass(cls)  # torch leaves it as it is
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        made = (
            torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied
        )
        memo[id(self)] = made
        return made


class _Factories(TorchFunctionMode):
    """Makes and moves tensors as torch does where there is such a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        wanted = torch.device("cpu") if func is torch.Tensor.cpu else _device_in(args, kwargs)
        if wanted is None:
            return func(*args, **kwargs)
        here, told = tree_map(_home, (args, kwargs))
        made = func(*here, **told)
        if not isinstance(made, torch.Tensor):  # it reads the device for another
            return func(*args, **kwargs)
        return made.as_subclass(Elsewhere if wanted.type == DEVICE.type else torch.Tensor)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Inside, DEVICE is there."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Factories():
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def _is_on_cpu(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not isinstance(value, Elsewhere) and value.ndim > 0


def _device_in(args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    return next((one for one in (*args, *kwargs.values()) if isinstance(one, torch.device)), None)


def _home(value: Any) -> Any:
    """The same on the CPU."""
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.as_subclass(torch.Tensor) if isinstance(value, Elsewhere) else value
