# SPDX-License-Identifier: Apache-2.0
"""mambarun - supplies selective_scan_cuda, causal_conv1d_cuda and VMamba's modules by
one C library, for any torch. Existing code imports those names; what follows is for
those who want to know or to decide.

    mambarun.which("selective_scan_cuda")   who supplies a name, and why
    mambarun.info()                         version, library, machine, variants, names
    mambarun.preload("cpu")                 choose and open a device's variant now
    mambarun.install()                      put the import hook in place
    mambarun.__version__                    of the library, which it opens
    mambarun.Error, .ArgumentError, ...     what calls raise; all are RuntimeError

Importing this opens no library and imports no torch.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Sequence

    from ._hook import which
    from ._info import info, preload
    from ._lib import (
        ArgumentError,
        CudaError,
        Error,
        InternalError,
        NoVariantError,
        UnsupportedError,
    )

    __version__: str

PROMISED = (
    "selective_scan_cuda",
    "selective_scan_cuda_core",
    "selective_scan_cuda_oflex",
    "selective_scan_cuda_nrow",
    "selective_scan_cuda_ndstate",
    "causal_conv1d_cuda",
)
_LATER = {  # name -> the module it is in; nothing needs them when an interpreter starts
    "which": "_hook",
    "info": "_info",
    "preload": "_info",
    "Error": "_lib",
    "ArgumentError": "_lib",
    "UnsupportedError": "_lib",
    "NoVariantError": "_lib",
    "CudaError": "_lib",
    "InternalError": "_lib",
}
__all__ = [
    "PROMISED",
    "ArgumentError",
    "CudaError",
    "Error",
    "InternalError",
    "NoVariantError",
    "UnsupportedError",
    "info",
    "install",
    "preload",
    "which",
]


class Finder:
    """What install() puts on sys.meta_path: hands promised names to _hook.py."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in PROMISED:
            return None
        from . import _hook

        return _hook.find_spec(name)


def install() -> None:
    """Put the finder first on sys.meta_path, so that promised names get mambarun's
    modules unless other ones work. A start-up file calls this; again changes nothing.
    """
    import sys

    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("._info", __name__).version()
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("." + _LATER[name], __name__), name)
