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

from ._hook import install, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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

_LATER = {  # name -> the module it is in, which nobody needs at import
    "info": "_info",
    "preload": "_info",
    "Error": "_lib",
    "ArgumentError": "_lib",
    "UnsupportedError": "_lib",
    "NoVariantError": "_lib",
    "CudaError": "_lib",
    "InternalError": "_lib",
}
__all__ = ["install", "which", *_LATER]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("._info", __name__).version()
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("." + _LATER[name], __name__), name)
