# SPDX-License-Identifier: Apache-2.0
"""What --provider names, and the providers that come from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calling import Unsupported
from .cases import Case
from .modules import Modules, forms, interfaces, open_module, supplied_by_mambarun
from .providers import Library, Provider, open_reference

KINDS = ("mambarun", "module", "file", "reference")
FORMAT = "mambarun:VARIANT, module:NAME, file:PATH or all"


@dataclass(frozen=True)
class Spec:
    """kind:name. interface: the module whose argument lists a module has, where its own
    name does not say that: module:my_scan=selective_scan_cuda_core."""

    kind: str
    name: str
    interface: str = ""

    def __str__(self) -> str:
        if self.kind == "reference":
            return self.kind
        own = self.interface in ("", stem(self.name))
        return f"{self.kind}:{self.name}" + ("" if own else f"={self.interface}")

    def concerns(self, room: str, case: Case) -> bool:
        """Whether the case can be put to it at all."""
        if self.kind == "mambarun":
            return True
        if self.kind == "reference":
            return not case.signature
        if case.signature:
            return case.signature.startswith(self.interface + ".")
        entries = [form.entry for form in forms() if form.module == self.interface]
        return any(entry.startswith(room) for entry in entries)


def stem(name: str) -> str:
    """A module's name, of a path to it too."""
    return name.replace("\\", "/").rpartition("/")[2].partition(".")[0]


def parse(text: str) -> Spec:
    """ValueError says what a provider may be called."""
    if text == "reference":
        return Spec("reference", "")
    kind, _, rest = text.partition(":")
    name, _, interface = rest.partition("=")
    if kind not in KINDS or not name:
        raise ValueError(f"it must be {FORMAT}")
    if kind == "mambarun":
        return Spec(kind, name)
    if kind == "file" and not Path(name).is_file():
        raise ValueError(f"there is no file {name}")
    interface = interface or stem(name)
    if interface not in interfaces():
        raise ValueError(
            f"{interface} is none of {', '.join(interfaces())}; "
            f"say whose argument lists it has: {kind}:{name}=selective_scan_cuda"
        )
    return Spec(kind, name, interface)


def every() -> list[Spec]:
    """Every variant of the manifest and every module that has a name here."""
    import mambarun

    variants = [Spec("mambarun", v["name"]) for v in mambarun.info()["variants"]]
    return variants + [Spec("module", name, name) for name in interfaces()]


class Opened:
    """The providers behind a Spec, in a process whose MAMBARUN_VARIANT is the spec's.
    Unsupported says why there are none here."""

    def __init__(self, spec: Spec, device: str = "", tight: bool = False) -> None:
        self.spec, self.tight = spec, tight
        self.device = device or default_device(spec)
        if self.device != "cpu":
            needs_gpu(self.device)
        self.by_module: dict[str, Provider] = {}
        self.main = self._main()

    def _main(self) -> Provider:
        if self.spec.kind == "reference":
            return open_reference()
        if self.spec.kind == "mambarun":
            import mambarun

            mambarun.install()  # of its modules are meant, even beside others

            verdict = variant(self.spec.name, self.device)
            if not verdict["usable"]:
                raise Unsupported(verdict["reason"])
            return Library(mambarun.info()["library"], self.device, self.tight)
        try:
            module = open_module(self.spec.kind, self.spec.name)
        except ModuleNotFoundError as error:
            raise Unsupported(str(error)) from None
        return self._modules(module, self.spec.interface)

    def _modules(self, module: Any, interface: str) -> Modules:
        ours = supplied_by_mambarun(module)
        return Modules(module, interface, self.device, self.tight, ours)

    def provider(self, case: Case) -> Provider:
        """For a case that wants a module's argument list, that module."""
        if not case.signature or self.spec.kind != "mambarun":
            return self.main
        name = case.signature.partition(".")[0]
        if name not in self.by_module:
            self.by_module[name] = self._modules(open_module("module", name), name)
        return self.by_module[name]


def variant(name: str, device: str) -> dict[str, Any]:
    """What mambarun says of a variant for a device. ValueError: there is none such."""
    import mambarun

    found = {v["name"]: v for v in mambarun.info(device)["variants"]}
    if name not in found:
        raise ValueError(f"{name} is none of {' '.join(found)}")
    return found[name]


def default_device(spec: Spec) -> str:
    """Of a variant, what it is for; of a module, a GPU if torch finds one."""
    import torch

    if spec.kind == "mambarun":
        return "cpu" if variant(spec.name, "cpu")["mode"] == "cpu" else "cuda:0"
    if spec.kind == "reference" or not torch.cuda.is_available():
        return "cpu"
    return "cuda:0"


def needs_gpu(device: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise Unsupported("this torch finds no GPU")
    if (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise Unsupported(f"{device}: this torch finds {torch.cuda.device_count()}")
