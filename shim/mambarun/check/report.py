# SPDX-License-Identifier: Apache-2.0
"""report.py - the outcome of the checks: verdict and exit status, the report for a
terminal, the object for a script. Nothing that names the user, the host or a GPU's
serial number leaves through here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from .. import PROMISED
from . import driver, modules, tables
from .finding import ERROR, OK, SKIP, STATUSES, WARN, Finding, Headline, fill
from .layout import Style, pad, wrap, wrap_command
from .texts import SECTIONS, TEXTS
from .texts.words import LABELS, LAST, REASONS, VERDICTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from .facts import Facts

SCHEMA = 1
ASKED = ("copy", "bench")  # shown without -v: --bench has asked for them
BRIEF = 2  # items of evidence without -v; a traceback is whole
MARGIN = 5 + 10  # the mark and the section's name
DETAIL = " " * MARGIN
SERIAL = re.compile(r"\b(GPU|MIG)-[0-9a-f]{8}\b[-0-9a-f]*([/\d]*)", re.I)


@dataclass
class Report:
    """facts, findings and headlines as the groups gave them; failures: groups of checks
    that broke, with their last words."""

    facts: Facts
    findings: list[Finding]
    headlines: list[Headline]
    failures: dict[str, str]
    strict: bool = False

    # ---- the verdict --------------------------------------------------------------

    @property
    def exit(self) -> int:
        """0 usable, 1 not, 3 no verdict."""
        if self.facts.probe.get("ended") or self.failures:
            return 3
        if self.of(ERROR) or (self.strict and self.of(WARN)):
            return 1
        return 0

    @property
    def verdict(self) -> str:
        """ "ok", "degraded" (not on a GPU), "unusable" or "unknown"."""
        if self.exit:
            return "unusable" if self.exit == 1 else "unknown"
        gpu = self.selected["gpu"] is not None
        return "ok" if gpu and not self._disabled() else "degraded"

    @property
    def selected(self) -> dict[str, Any]:
        """gpu, variant and mode of what runs: on the first GPU, else on the CPU."""
        gpu = next(iter(self.facts.gpus), None)
        variant = driver.chosen(gpu) if gpu else None
        if gpu and variant and self._torch_has_cuda():
            return {"gpu": gpu["name"], "variant": variant, "mode": driver.mode(gpu)}
        variant = self.facts.probe.get("cpu_variant")
        return {"gpu": None, "variant": variant, "mode": "cpu" if variant else None}

    def of(self, status: str) -> list[str]:
        """The codes that have a finding of that status."""
        return list(dict.fromkeys(f.code for f in self.findings if f.status == status))

    def sentence(self, lang: str = "en") -> str:
        """The verdict in words."""
        if self.exit:
            return self._private(self._bad_sentence(lang))
        if self._disabled():
            return fill(VERDICTS["disabled"], {}, lang)
        if self.selected["gpu"]:
            mode = {"ptx": "JIT"}.get(self.selected["mode"], self.selected["mode"])
            return fill(VERDICTS["gpu"], {**self.selected, "mode": mode}, lang)
        reason = fill(REASONS[self._why_cpu()], {}, lang)
        return fill(VERDICTS["cpu"], {**self.selected, "reason": reason}, lang)

    def _bad_sentence(self, lang: str) -> str:
        status = ERROR if self.of(ERROR) else WARN
        worst = next((f for f in self.findings if f.status == status), None)
        if self.failures or worst is None:
            return fill(VERDICTS["failed"], {}, lang)
        kind = "unusable" if self.exit == 1 else "unknown"
        values = {"code": worst.code, "what": worst.what(lang)}
        return fill(VERDICTS[kind], values, lang)

    def _why_cpu(self) -> str:
        if not self.facts.api:
            return "driver"
        return "torch" if self.facts.gpus else "gpu"

    def _torch_has_cuda(self) -> bool:
        """True also without a torch: then nothing speaks for the CPU."""
        return self.facts.torch is None or bool(self.facts.torch.cuda)

    def _disabled(self) -> bool:
        return all(modules.disabled(self.facts.machine, name) for name in PROMISED)

    # ---- for a terminal -----------------------------------------------------------

    def lines(self, lang: str, style: Style, verbose: bool = False) -> Iterator[str]:
        """The report, line by line: the verdict first."""
        for line in self._lines(lang, style, verbose):
            yield self._private(line)

    def title(self, lang: str) -> str:
        return self._begin() + self.sentence(lang)

    def _begin(self) -> str:
        version = (self.facts.probe.get("library") or {}).get("version", "")
        return f"mambarun {version}".rstrip() + "  ->  "

    def _lines(self, lang: str, style: Style, verbose: bool) -> Iterator[str]:
        yield from wrap(self.sentence(lang), "    ", self._begin())
        yield ""
        for section in SECTIONS:
            yield from self._section(section, lang, style, verbose)
        if verbose and self.headlines:  # not under --only
            yield from self._variant_lines(lang, style)
            yield ""
            yield fill(LABELS["tables"], {"date": tables.DATE}, lang)
        for group, words in self.failures.items():
            yield ""
            yield from wrap(fill(LABELS["failed"], {"group": group}, lang), "", "")
            lines = words.splitlines()
            yield from (f"  {line}" for line in (lines if verbose else lines[-1:]))
        yield ""
        yield self._last(lang)
        worst = self.of(ERROR) + self.of(WARN)
        if worst and not verbose:
            yield from wrap(fill(LABELS["explain"], {"code": worst[0]}, lang), "")

    def _section(
        self, section: str, lang: str, style: Style, verbose: bool
    ) -> Iterator[str]:
        mine = [f for f in self.findings if TEXTS[f.code].section == section]
        head = next((h for h in self.headlines if h.section == section), None)
        if head is None and not mine:
            return
        worst = max((f.status for f in mine), key=_badness, default=OK)
        calm = head.status if head else OK
        mark = style.mark(worst if worst in (WARN, ERROR) else calm)
        name = pad(fill(SECTIONS[section], {}, lang), MARGIN - 5)
        words = head.what(lang) if head else ""
        first, *rest = wrap(words, DETAIL, DETAIL)
        yield (mark + name + first[MARGIN:]).rstrip()
        yield from rest
        for finding in mine:
            if verbose or finding.status in (WARN, ERROR) or finding.case in ASKED:
                yield from self._finding(finding, lang, style, verbose)

    def _finding(
        self, finding: Finding, lang: str, style: Style, verbose: bool
    ) -> Iterator[str]:
        mark = style.mark(finding.status) if verbose else ""
        inner = DETAIL + " " * (5 if verbose else 0) + " " * 6
        code = finding.code if verbose else style.paint(finding.code, finding.status)
        first, *rest = wrap(finding.what(lang), inner, inner)
        yield DETAIL + mark + code + " " + first[len(inner) :]
        yield from rest
        shown = finding.evidence
        if not verbose and TEXTS[finding.code].section != "run":
            shown = shown[:BRIEF]
        for line in "\n".join(shown).splitlines():
            yield from wrap(line, inner + "  ", inner)
        fix = finding.fix(lang)
        if fix and finding.status not in (OK, SKIP):
            label = inner + fill(LABELS["fix"], {}, lang)
            if isinstance(TEXTS[finding.code].cases[finding.case].fix, str):
                yield from wrap_command(fix, inner, label)
            else:
                yield from wrap(fix, inner, label)

    def _variant_lines(self, lang: str, style: Style) -> Iterator[str]:
        yield ""
        yield fill(LABELS["variants"], {}, lang)
        for v in self.variants():
            mark = style.mark(OK if v["accepted"] else SKIP)
            yield from wrap(v["reason"], " " * 22, mark + pad(v["id"], 17))

    def _last(self, lang: str) -> str:
        errors, warnings = len(self.of(ERROR)), len(self.of(WARN))
        count = errors or warnings
        if self.exit == 3:
            kind = "unknown"
        elif errors:
            kind = "error" if errors == 1 else "errors"
        elif self.exit:
            kind = "strict"
        else:
            kind = {0: "usable", 1: "warning"}.get(warnings, "warnings")
        word = fill(LABELS["exit"], {}, lang)
        return fill(LAST[kind], {"count": count}, lang) + f"   {word} {self.exit}"

    # ---- for a script -------------------------------------------------------------

    def json(self) -> dict[str, Any]:
        """The same as one object, in English whatever the language."""
        whole = {
            "schema": SCHEMA,
            "mambarun": (self.facts.probe.get("library") or {}).get("version"),
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "exit": self.exit,
            "selected": self.selected,
            "machine": self._machine(),
            "tables": tables.DATE,
            "variants": self.variants(),
            "modules": self._modules(),
            "checks": [self._check(f) for f in self.findings],
            "failures": self.failures,
        }
        return self._private_deep(whole)  # type: ignore[no-any-return]

    def variants(self) -> list[dict[str, Any]]:
        """Every variant, judged for the first GPU and for the CPU."""
        gpu = next(iter(self.facts.gpus), None)
        judged = {v["name"]: v for v in (gpu or {}).get("variants", ())}
        cuda = (self.facts.probe.get("cuda") or {}).get("error", "no GPU")
        cuda = cuda.replace("cannot use cuda:0: ", "")
        listed = []
        for v in self.facts.probe.get("cpu_variants", ()):
            if v["mode"] != "cpu":
                v = judged.get(v["name"], {**v, "reason": cuda})
            listed.append(
                {"id": v["name"], "accepted": v["usable"], "reason": v["reason"]}
            )
        return listed

    def _machine(self) -> dict[str, Any]:
        machine, torch = self.facts.machine, self.facts.torch
        return {
            "system": machine.system,
            "arch": machine.arch,
            "libc": " ".join(machine.libc).strip() or None,
            "python": ".".join(map(str, machine.python)),
            "torch": torch.version if torch else None,
            "driver": driver.kernel_release(self.facts) or None,
            "driver_api": self.facts.api or None,
            "gpus": [
                {key: gpu[key] for key in ("name", "capability", "memory")}
                for gpu in self.facts.gpus
            ],
            "libraries": self.facts.libraries,
        }

    def _modules(self) -> list[dict[str, Any]]:
        found = (modules.supplier(self.facts, name) for name in PROMISED)
        return [
            {
                "name": s.name,
                "provider": s.provider,
                "file": s.path or None,
                "shadowed": [c.path for c in s.others if c.path != s.path],
            }
            for s in found
        ]

    @staticmethod
    def _check(finding: Finding) -> dict[str, Any]:
        return {
            "id": finding.code,
            "status": finding.status,
            "summary": finding.what(),
            "evidence": list(finding.evidence),
            "fix": finding.fix() or None,
        }

    # ---- privacy ------------------------------------------------------------------

    def _private(self, text: str) -> str:
        """The text without the home folder and without serial numbers."""
        for home in self._homes:
            text = home.sub("~", text)
        return SERIAL.sub(r"\1-...", text)

    @cached_property
    def _homes(self) -> list[re.Pattern[str]]:
        """The home folder, and where it really lies if that is a link."""
        machine = self.facts.machine
        home = machine.home.rstrip("/")
        paths = {home, machine.real(home)} if home else ()
        return [re.compile(rf"(?<![\w.-]){re.escape(p)}(?![\w.-])") for p in paths]

    def _private_deep(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._private(value)
        if isinstance(value, dict):
            return {key: self._private_deep(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._private_deep(item) for item in value]
        return value


def _badness(status: str) -> int:
    return {SKIP: -1}.get(status, STATUSES.index(status))
