# SPDX-License-Identifier: Apache-2.0
"""test_check.py - the command mambarun-check: its options, exit statuses, languages,
widths and manners. What it says about machines is in test_machines.py.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import mambarun
import pytest
from mambarun.check import Report, cli, diagnose, layout
from mambarun.check.facts import Facts
from mambarun.check.finding import STATUSES, Finding
from mambarun.check.layout import Style, columns
from mambarun.check.machine import Machine
from mambarun.check.texts import HEADLINES, SECTIONS, TEXTS, words

ROOT = Path(__file__).resolve().parents[2]
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def main(*arguments, cwd=None, **environment):
    """mambarun-check in a process of its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("LC_ALL", "LANG")}
    env.update({"LANG": "C.UTF-8", **environment})
    env = {k: v for k, v in env.items() if v is not None}
    command = [sys.executable, "-m", "mambarun", *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=env, cwd=cwd, timeout=300
    )


def gpu(**more):
    """What a child says of a machine with one good GPU."""
    variants = [
        {"name": "cpu_scalar", "mode": "cpu", "usable": False, "reason": "for CPU"},
        {
            "name": "cuda12_sm80",
            "mode": "cubin",
            "usable": True,
            "reason": "cubin for sm_80, which runs on sm_80",
        },
    ]
    card = {
        "name": "NVIDIA A800 80GB PCIe",
        "capability": 80,
        "memory": 80 << 30,
        "multiprocessors": 108,
        "integrated": False,
        "mode": 0,
        "variants": variants,
    }
    cpu = [{**v, "usable": v["mode"] == "cpu"} for v in variants]
    return {
        "stage": "done",
        "ended": None,
        "stderr": "",
        "library": {"path": "/opt/libmambarun.so", "version": "0.1.0"},
        "cpu_variants": cpu,
        "cpu_variant": "cpu_scalar",
        "nvml": {"driver": "535.104.12", "gpus": [card["name"]], "mig": False},
        "driver": {"path": "/usr/lib64/libcuda.so.1", "why": "", "api": 12020},
        "cuda": {},
        "gpus": [card],
        **more,
    }


def fabricated(tmp_path, facts, **more):
    """A bare machine on which a child would say these facts."""
    (tmp_path / "home/user").mkdir(parents=True, exist_ok=True)
    return Machine(root=str(tmp_path), probe=lambda machine: facts, **more)


def codes(report, status):
    return {f.code for f in report.findings if f.status == status}


# ---- this machine -----------------------------------------------------------------


def test_the_verdict_comes_first_and_the_status_last():
    done = main()
    lines = done.stdout.splitlines()
    assert done.stderr == "" and done.returncode == 0, done.stdout
    assert lines[0].startswith(f"mambarun {mambarun.__version__}  ->  selective scan: ")
    assert re.search(r"^Usable.*\.   exit 0$", done.stdout, re.M)


def test_quiet_is_one_line():
    done = main("-q")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1 and "selective scan" in done.stdout


def test_verbose_shows_every_check_and_every_variant():
    done = main("-v")
    shown = set(re.findall(r"\bMR\d{3}\b", done.stdout))
    assert {"MR001", "MR020", "MR201", "MR301", "MR504", "MR601"} <= shown
    assert re.search(r"cuda12_sm80 ", done.stdout)
    assert main().stdout.count("\n") < done.stdout.count("\n")


def test_it_takes_less_than_a_second_and_imports_no_torch(run):
    code = (
        "import sys, time; begin = time.perf_counter()\n"
        "from mambarun.check import cli\n"
        "status = cli.main(['-q', '--no-run'])\n"
        "print(time.perf_counter() - begin)\n"
        "print([m for m in ('torch', 'mamba_ssm', 'numpy') if m in sys.modules])\n"
        "print(status)"
    )
    run(code)  # files into memory
    _, seconds, imported, status = run(code).stdout.splitlines()
    assert float(seconds) < 1.0
    assert imported == "[]" and status == "0"


def test_nothing_is_left_in_the_caller(run):
    code = (
        "import os, sys, threading\n"
        "def state(): return (list(sys.path), list(sys.meta_path), dict(os.environ),\n"
        "    os.getcwd(), threading.active_count(), len(os.listdir('/proc/self/fd')))\n"
        "before = state()\n"
        "from mambarun.check import diagnose\n"
        "diagnose(run=False)\n"
        "assert state() == before, (state(), before)\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libcuda.so' not in maps and 'libtorch' not in maps"
    )
    run(code)


def test_nothing_is_written(tmp_path):
    before = sorted(tmp_path.rglob("*"))
    main("-v", cwd=str(tmp_path), HOME=str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m mambarun -v | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("mambarun ") and done.stderr == ""


def test_the_command_is_the_module():
    assert (
        'mambarun-check = "mambarun.__main__:main"'
        in (ROOT / "pyproject.toml").read_text()
    )
    from mambarun import __main__

    assert __main__.main is cli.main


# ---- JSON, report -----------------------------------------------------------------

SHAPE = {
    "schema": int,
    "mambarun": str,
    "verdict": str,
    "sentence": str,
    "exit": int,
    "selected": dict,
    "machine": dict,
    "tables": str,
    "variants": list,
    "modules": list,
    "checks": list,
    "failures": dict,
}


def test_json_is_one_object_of_the_promised_shape():
    done = main("--json")
    whole = json.loads(done.stdout)
    assert done.stderr == ""
    assert {key: type(value) for key, value in whole.items()} == SHAPE
    assert whole["exit"] == done.returncode
    assert whole["verdict"] in ("ok", "degraded", "unusable", "unknown")
    assert set(whole["selected"]) == {"gpu", "variant", "mode"}
    for variant in whole["variants"]:
        assert set(variant) == {"id", "accepted", "reason"} and variant["reason"]
    assert [m["name"] for m in whole["modules"]] == list(mambarun.PROMISED)
    for module in whole["modules"]:
        assert set(module) == {"name", "provider", "file", "shadowed"}
    for check in whole["checks"]:
        assert set(check) == {"id", "status", "summary", "evidence", "fix"}
        assert check["id"] in TEXTS and check["status"] in STATUSES


def test_json_is_english_and_comes_with_a_bad_status_too(tmp_path):
    done = main("--json", "--lang", "zh", "--require", "sm_75", MAMBARUN_TRACE="1")
    whole = json.loads(done.stdout)
    assert done.returncode == whole["exit"] == 1 and whole["verdict"] == "unusable"
    assert not CHINESE.search(done.stdout)
    unmet = [c for c in whole["checks"] if c["id"] == "MR005"]
    assert unmet[0]["status"] == "error" and "sm_75" in unmet[0]["summary"]


def test_report_writes_everything_to_a_file(tmp_path):
    file = tmp_path / "report.txt"
    done = main("-q", "--report", str(file))
    text = file.read_text()
    assert done.returncode == 0 and "MR020" in text
    whole = json.loads(text[text.index("\n{") :])
    assert whole["schema"] == 1


def test_a_report_has_paths_that_are_no_utf8(tmp_path):
    file = tmp_path / "report.txt"
    done = main("-q", "--report", str(file), CUDA_HOME="/opt/\udcff")
    assert done.returncode == 0 and "/opt/\\udcff" in file.read_text()


def test_a_report_that_cannot_be_written_is_no_verdict(tmp_path):
    done = main("--report", str(tmp_path / "no" / "such" / "folder"))
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "cannot write the report: " in done.stderr


# ---- options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"],
        ["--only", "MR999"],
        ["--explain", "MR999"],
        ["--require", "a-unicorn"],
        ["--lang", "fr"],
        ["argument"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    done = main(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert "mambarun-check" in done.stderr


@pytest.mark.parametrize(
    "arguments, run", [([], None), (["--run"], True), (["--no-run"], False)]
)
def test_run_is_for_the_check_to_decide_unless_said(arguments, run):
    assert cli._parser().parse_args(arguments).run is run


def test_only_shows_and_counts_these_codes():
    done = main("--only", "MR020,mr301", "-v")
    shown = re.findall(r"\bMR\d{3}\b", done.stdout)
    assert done.returncode == 0 and set(shown) == {"MR020", "MR301"}
    assert "Usable.   exit 0" in done.stdout


def test_list_checks_lists_all():
    done = main("--list-checks")
    assert re.findall(r"^MR\d{3}", done.stdout, re.M) == sorted(TEXTS)


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("code", sorted(TEXTS))
def test_explain(code, lang, capsys):
    assert cli.main(["--explain", code.lower(), "--lang", lang]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{code}: ") and len(printed) > 60
    assert all(columns(line) <= 80 for line in printed.splitlines())
    assert bool(CHINESE.search(printed)) == (lang == "zh")


def test_strict_counts_warnings_as_errors(tmp_path):
    facts = gpu(gpus=[], driver={"path": None, "why": "none", "api": 0}, nvml={})
    machine = fabricated(tmp_path, facts)
    assert diagnose(machine, run=False).of("warn")
    assert diagnose(machine, run=False, only=["MR101"]).exit == 0
    assert diagnose(machine, run=False, only=["MR101"], strict=True).exit == 1


@pytest.mark.parametrize(
    "wanted, met",
    [
        ("gpu", True),
        ("sm_80", True),
        ("sm_90", False),
        ("cuda12_sm80", True),
        ("cuda12_sm90", False),
        ("cpu_scalar", True),
        ("torch", False),
        ("causal_conv1d_cuda", False),
    ],
)
def test_require(tmp_path, wanted, met):
    report = diagnose(
        fabricated(tmp_path, gpu()), run=False, only=["MR005"], require=[wanted]
    )
    assert (report.exit == 0) == met
    assert codes(report, "ok" if met else "error") == {"MR005"}


# ---- exit statuses ----------------------------------------------------------------


def test_a_good_gpu_is_the_verdict(tmp_path):
    report = diagnose(fabricated(tmp_path, gpu()), run=False, only=["MR120"])
    assert report.exit == 0 and report.verdict == "ok"
    assert "variant cuda12_sm80 (cubin) on NVIDIA A800" in report.sentence()


def test_no_gpu_is_a_warning(tmp_path):
    facts = gpu(gpus=[], driver={"path": None, "why": "none", "api": 0}, nvml={})
    report = diagnose(fabricated(tmp_path, facts), run=False, only=["MR101"])
    assert report.exit == 0 and report.verdict == "degraded"
    assert "CPU only" in report.sentence()


@pytest.mark.parametrize("how", ["SIGSEGV", "timeout", "exit 1"])
def test_a_child_that_ends_early_leaves_no_verdict(tmp_path, how):
    facts = gpu(ended=how, stage="cuInit")
    for key in ("gpus", "cuda"):
        del facts[key]
    report = diagnose(fabricated(tmp_path, facts), run=False)
    assert report.exit == 3 and report.verdict == "unknown"
    assert "MR112" in codes(report, "error")
    assert "cuInit" in report.sentence()
    part = diagnose(fabricated(tmp_path, facts), run=False, only=["MR020"])
    assert part.exit == 3 and "no verdict" in part.sentence()


def test_a_check_that_breaks_takes_no_other_with_it(tmp_path, monkeypatch):
    from mambarun.check import driver

    def check(facts):
        yield Finding("MR101", "ok", "here", {"release": "1"})
        raise KeyError("unforeseen")

    monkeypatch.setattr(driver, "check", check)
    report = diagnose(fabricated(tmp_path, gpu()), run=False)
    assert report.exit == 3 and "unforeseen" in report.failures["driver"]
    assert {"MR101", "MR020", "MR501"} <= codes(report, "ok")
    lines = "\n".join(report.lines("en", Style()))
    assert "KeyError" in lines and "exit 3" in lines
    assert "Traceback" not in lines
    assert "Traceback" in "\n".join(report.lines("en", Style(), verbose=True))


def test_a_failure_of_the_check_itself_is_one_line(monkeypatch, capsys):
    def breaks(*_, **__):
        raise KeyError("unforeseen\nand of two lines")

    monkeypatch.setattr(cli, "diagnose", breaks)
    assert cli.main([]) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "KeyError" in said[0] and "test_check.py:" in said[0]


@pytest.mark.parametrize("option", ["-q", "-v"])
def test_a_full_disk_under_stdout_is_one_line(option):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mambarun", option],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
    said = done.stderr.splitlines()
    assert done.returncode == 3 and len(said) == 1 and "No space left" in said[0]


# ---- the child --------------------------------------------------------------------

BAD_DRIVERS = {
    "crashes": ("int cuInit(unsigned f) { return *(volatile int *)0; }", "SIGSEGV"),
    "sleeps": ("int cuInit(unsigned f) { sleep(60); return 0; }", "timeout"),
    "exits": ("int cuInit(unsigned f) { _exit(7); }", "exit 7"),
    "crashes when opened": (
        "__attribute__((constructor)) void c(void) { abort(); } "
        "int cuInit(unsigned f) { return 0; }",
        "SIGABRT",
    ),
    "sleeps when opened": (
        "__attribute__((constructor)) void c(void) { sleep(60); } "
        "int cuInit(unsigned f) { return 0; }",
        "timeout",
    ),
}
OTHER_SYMBOLS = re.findall(
    r"^MBR_DRIVER\((\w+),",
    (ROOT / "libmambarun" / "core" / "driver.def").read_text(),
    re.M,
)


def compiled(folder, source):
    """A libcuda.so.1 with this cuInit, in a folder for LD_LIBRARY_PATH."""
    others = "".join(
        f"int {name}(void) {{ return 999; }}\n"
        for name in OTHER_SYMBOLS
        if name not in ("cuInit", "cuDriverGetVersion")
    )
    text = f"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int cuDriverGetVersion(int *v) {{ *v = 12040; return 0; }}
{source}
{others}"""
    (folder / "driver.c").write_text(text)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-w", "-o", "libcuda.so.1", "driver.c"],
        cwd=str(folder),
        check=True,
    )
    return str(folder)


def with_driver(folder, limit=10.0):
    machine = Machine.here()
    machine.environ["LD_LIBRARY_PATH"] = folder
    machine.limit = limit
    return machine


@pytest.mark.parametrize("kind", sorted(BAD_DRIVERS))
def test_a_sick_driver_neither_hangs_nor_crashes_the_check(tmp_path, kind):
    source, ended = BAD_DRIVERS[kind]
    machine = with_driver(compiled(tmp_path, source), limit=3.0)
    begin = time.monotonic()
    report = diagnose(machine, run=False)
    assert time.monotonic() - begin < 10
    assert report.facts.probe["ended"] == ended
    assert report.exit == 3 and "MR112" in codes(report, "error")
    assert report.facts.probe["cpu_variant"].startswith("cpu_")  # was said before


def test_a_driver_that_prints_does_not_disturb_the_pipe(tmp_path):
    source = """
__attribute__((constructor)) void hello(void) { puts("{\\"gpus\\": 7}"); }
int cuInit(unsigned f) {
    puts("{\\"ended\\": \\"SIGILL\\"}");
    fflush(stdout);
    return 100;
}
"""
    report = diagnose(with_driver(compiled(tmp_path, source)), run=False)
    assert report.facts.probe["ended"] is None and report.facts.probe["gpus"] == []
    assert "MR109" in codes(report, "warn") and not report.failures


# ---- texts ------------------------------------------------------------------------


def pairs():
    for code, text in TEXTS.items():
        yield f"{code} title", text.title
        yield f"{code} explanation", text.explanation
        for name, case in text.cases.items():
            yield f"{code} {name}", case.what
            yield f"{code} {name} fix", case.fix
    for section, cases in HEADLINES.items():
        for name, pair in cases.items():
            yield f"headline {section} {name}", pair
    for group in ("VERDICTS", "REASONS", "LAST", "LABELS"):
        for name, pair in getattr(words, group).items():
            yield f"{group} {name}", pair


@pytest.mark.parametrize("name, pair", list(pairs()))
def test_every_text_has_both_languages_and_the_same_blanks(name, pair):
    if isinstance(pair, str):  # a command
        assert not CHINESE.search(pair)
        return
    english, chinese = pair
    assert not CHINESE.search(english) and english
    blanks = set(re.findall(r"\{\w+\}", english))
    assert blanks == set(re.findall(r"\{\w+\}", chinese)), name
    if re.search(r"[a-z]{3,} [a-z]{3,}", re.sub(r"\{\w+\}", "", english)):
        assert CHINESE.search(chinese), name


def test_every_case_is_said_somewhere():
    """A sentence that no check says is dead, and one that is said has to be there."""
    sources = [
        path.read_text()
        for path in (Path(mambarun.__file__).parent / "check").glob("*.py")
    ]
    whole = "\n".join(sources)
    for code, text in TEXTS.items():
        for case in text.cases:
            assert f'"{case}"' in whole, f"{code} {case}"


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("verbose", [False, True])
def test_lines_fit_80_columns(tmp_path, lang, verbose):
    """But for commands and paths, which are not broken."""
    every = [
        Finding(code, "warn", case, anything())
        for code, text in TEXTS.items()
        for case in text.cases
    ]
    facts = Facts(fabricated(tmp_path, gpu()))
    heads = diagnose(facts.machine, run=False).headlines
    report = Report(facts, every, heads, {})
    lines = list(report.lines(lang, Style(unicode_=True), verbose))
    assert len(lines) > len(every)
    for line in lines:
        longest = max(map(columns, line.split()), default=0)
        assert columns(line) <= 80 or longest > 40, line


def anything():
    """A word for every blank."""
    names = {n for _, p in pairs() for n in re.findall(r"\{(\w+)\}", "".join(p))}
    paths = ("path", "folder", "file", "remove", "site")
    return {name: "/usr/lib/x" if name in paths else "12.1" for name in names}


def test_sections_are_those_of_the_texts():
    assert {text.section for text in TEXTS.values()} == set(SECTIONS)
    assert set(HEADLINES) == set(SECTIONS)


@pytest.mark.parametrize(
    "text, width", [("abc", 3), ("中文", 4), ("用 CUDA，", 9), ("✓", 1), ("", 0)]
)
def test_columns(text, width):
    assert columns(text) == width


def test_a_wrapped_command_can_be_pasted():
    command = "pip install " + " ".join(f"package-{i}" for i in range(12))
    command += " 'one word  of several'"
    lines = list(layout.wrap_command(command, " " * 10, " " * 10 + "fix: "))
    assert len(lines) > 1 and all(columns(line) <= 80 for line in lines)
    done = subprocess.run(
        ["sh", "-c", "echo " + "\n".join(lines).replace("fix: ", "")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == command.replace("'", "")


# ---- language, colours, marks -----------------------------------------------------


@pytest.mark.parametrize(
    "environment, chinese",
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "zh_CN.UTF-8", "PYTHONIOENCODING": "ascii"}, False),
    ],
)
def test_the_language_is_the_locales(environment, chinese):
    done = main("-q", **environment)
    assert bool(CHINESE.search(done.stdout)) == chinese


def test_lang_overrules_the_locale():
    assert CHINESE.search(main("-q", "--lang", "zh").stdout)
    done = main("-q", "--lang", "en", LANG="zh_CN.UTF-8")
    assert not CHINESE.search(done.stdout)


def test_ascii_where_the_locale_is_not_utf8():
    done = main("-v", LANG="POSIX")
    assert done.stdout.isascii() and "[ok]" in done.stdout
    assert "✓" in main("-v").stdout


class Terminal:
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.mark.parametrize(
    "environment, colours",
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_only_where_they_are_wanted(environment, colours):
    assert Style.of(Terminal(), environment).colours == colours
    assert not Style.of(sys.stdin, {"TERM": "xterm"}).colours or sys.stdin.isatty()
    assert ("\033[" in Style.of(Terminal(), environment).mark("ok")) == colours


# ---- privacy ----------------------------------------------------------------------


def test_the_home_folder_is_not_shown(tmp_path):
    home = str(tmp_path / "alice-in-chains")
    os.mkdir(home)
    done = main(
        "-v",
        HOME=home,
        LD_LIBRARY_PATH=f"{home}/lib",
        CUDA_HOME=f"{home}/cuda",
        CUDA_CACHE_PATH=f"{home}/cache",
    )
    assert "alice-in-chains" not in done.stdout and "~/cuda" in done.stdout
    whole = main("--json", HOME=home, CUDA_HOME=f"{home}/cuda").stdout
    assert "alice-in-chains" not in whole and "~/cuda" in whole


def test_only_the_home_folder_is_shortened(tmp_path):
    environ = {"CUDA_HOME": "/data/home/user/cuda", "CUDA_PATH": "/home/user/cuda"}
    report = diagnose(fabricated(tmp_path, gpu(), environ=environ), run=False)
    text = "\n".join(report.lines("en", Style()))
    assert "/data/home/user/cuda" in text and " ~/cuda" in text


def test_a_home_folder_that_is_a_link_is_shortened_too(tmp_path):
    machine = fabricated(tmp_path, gpu(), environ={"CUDA_HOME": "/disk1/alice/cuda"})
    (tmp_path / "home/user").rmdir()
    (tmp_path / "home/user").symlink_to("/disk1/alice")
    report = diagnose(machine, run=False)
    assert " ~/cuda" in "\n".join(report.lines("en", Style()))
    assert "alice" not in json.dumps(report.json())


@pytest.mark.parametrize("serial", ["GPU-8f1e2d3c", "MIG-GPU-8f1e2d3c-aaaa/1/0"])
def test_the_beginning_of_a_serial_number_is_not_shown(tmp_path, serial):
    environ = {"CUDA_VISIBLE_DEVICES": serial}
    facts = gpu(gpus=[], cuda={"error": "cuInit fails", "code": "MR109"})
    report = diagnose(fabricated(tmp_path, facts, environ=environ), run=False)
    assert "GPU-..." in report.sentence() + "".join(report.lines("en", Style()))
    assert "8f1e2d3c" not in json.dumps(report.json())


def test_serial_numbers_and_other_variables_are_not_shown(tmp_path):
    serial = "GPU-8f1e2d3c-aaaa-bbbb-cccc-0123456789ab"
    facts = gpu(gpus=[], cuda={"error": "cuInit fails", "code": "MR109"})
    environ = {"CUDA_VISIBLE_DEVICES": serial, "SECRET_TOKEN": "swordfish"}
    report = diagnose(fabricated(tmp_path, facts, environ=environ), run=False)
    text = "\n".join(report.lines("en", Style(), verbose=True))
    text += json.dumps(report.json())
    assert "GPU-..." in text and "8f1e2d3c" not in text and "swordfish" not in text


def test_host_names_are_not_shown(monkeypatch):
    import platform

    name = "zebra-host-" + "q" * 8
    monkeypatch.setattr(platform, "node", lambda: name)
    report = diagnose(run=False)
    assert name not in json.dumps(report.json())
    assert name not in "\n".join(report.lines("en", Style(), verbose=True))


# ---- MR001 ------------------------------------------------------------------------


def installed(tmp_path, version="0.1.0", content=b"the library"):
    """A machine with mambarun as pip leaves it, and one file of its own."""
    import base64
    import hashlib

    site = "/usr/lib/python3.10/site-packages"
    folder = Path(f"{tmp_path}{site}")
    (folder / "mambarun/_lib").mkdir(parents=True)
    (folder / "mambarun/_lib/libmambarun.so").write_bytes(content)
    (folder / f"mambarun-{version}.dist-info").mkdir()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    (folder / f"mambarun-{version}.dist-info/RECORD").write_text(
        f"mambarun/_lib/libmambarun.so,sha256={digest.decode()},{len(content)}\n"
        f"mambarun-{version}.dist-info/RECORD,,\n"
    )
    machine = fabricated(tmp_path, gpu(), sys_path=[site], own=(f"{site}/mambarun",))
    return machine, folder / "mambarun/_lib/libmambarun.so"


def own_files(machine):
    report = diagnose(machine, run=False, only=["MR001"])
    return report.findings[0].status, report.findings[0].case, report.exit


def test_files_are_compared_with_the_wheels_record(tmp_path):
    machine, file = installed(tmp_path)
    assert own_files(machine) == ("ok", "intact", 0)
    file.write_bytes(b"the librarY")  # same size
    assert own_files(machine) == ("error", "changed", 1)
    file.write_bytes(b"the library and more")
    assert own_files(machine) == ("error", "changed", 1)
    file.unlink()
    assert own_files(machine) == ("error", "changed", 1)


def test_a_pipe_in_a_files_place_is_not_waited_for(tmp_path):
    machine, file = installed(tmp_path, content=b"")
    file.unlink()
    os.mkfifo(file)  # of size 0, too
    assert own_files(machine) == ("error", "changed", 1)


@pytest.mark.parametrize(
    "line", ["a,md7=abc,11", "a,sha256=abc,eleven", "\0a,sha256=abc,11", 'a,"b,11']
)
def test_a_damaged_record_is_no_crash(tmp_path, line):
    machine, file = installed(tmp_path)
    record = next(Path(file).parents[2].glob("*.dist-info/RECORD"))
    (file.parents[2] / "a").write_bytes(b"eleven long")
    record.write_text(record.read_text() + line + "\n")
    assert own_files(machine)[1:] in (("changed", 1), ("intact", 0))


def test_files_are_compared_also_if_the_library_kills_the_child(tmp_path):
    machine, file = installed(tmp_path)
    dead = {"stage": "libmambarun", "ended": "SIGBUS", "stderr": ""}
    machine.probe = lambda _: dead
    assert own_files(machine) == ("skip", "unknown", 3)
    file.write_bytes(b"the libr")
    assert own_files(machine) == ("error", "changed", 3)


def test_a_package_of_another_version_than_its_library(tmp_path):
    machine, _ = installed(tmp_path, version="0.2.0")
    assert own_files(machine) == ("error", "versions", 1)


def test_a_source_tree_has_no_record(tmp_path):
    machine = fabricated(tmp_path, gpu(), own=("/home/user/shim/mambarun",))
    assert own_files(machine) == ("info", "tree", 0)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library at all"])
def test_a_damaged_library_is_an_error_of_its_own(tmp_path, content):
    (tmp_path / "libmambarun.so").write_bytes(content)
    done = main("--json", MAMBARUN_PATH=str(tmp_path))
    whole = json.loads(done.stdout)
    assert done.returncode == 1 and whole["verdict"] == "unusable"
    assert whole["sentence"].startswith("unusable: MR001")
    mine = [c for c in whole["checks"] if c["id"] == "MR001"]
    assert mine[0]["fix"].startswith("pip install --force-reinstall")


def test_a_library_cut_off_by_a_full_disk_does_not_crash_the_check(tmp_path):
    whole = Path(mambarun.info()["library"]).read_bytes()
    (tmp_path / "libmambarun.so").write_bytes(whole[: len(whole) // 2])
    done = main(MAMBARUN_PATH=str(tmp_path))
    assert done.returncode in (1, 3) and done.stderr == ""


# ---- run --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trials():
    pytest.importorskip("torch")
    machine = Machine.here()
    if machine.hook is None:  # a source tree: as an installation would
        machine.hook = 0
    return diagnose(machine, run=True)


def test_run_compares_every_module_with_another_variant(trials):
    shown = [(f.code, f.status, f.what()) for f in trials.findings if f.code > "MR6"]
    assert not any(status == "error" for _, status, _ in shown), shown
    match = next(f for f in trials.findings if f.case == "match")
    assert match.values["count"] == len(mambarun.PROMISED)
    assert match.values["calls"] >= 50
    assert {"MR601", "MR602", "MR603"} <= codes(trials, "ok")


def test_run_shows_each_module(trials):
    each = [f for f in trials.findings if f.case == "module"]
    assert [f.values["module"] for f in each] == list(mambarun.PROMISED)
    for finding in each:
        assert "float16" in finding.values["cases"] and "ms" in finding.values["times"]


def answer(**more):
    result = {"module": "m", "call": "fwd", "case": "float32", "device": "cuda:0"}
    return {"result/0": {**result, "seconds": 0.1, "outputs": [text([1.0])], **more}}


def text(numbers):
    import base64
    from array import array

    return base64.b64encode(array("f", numbers).tobytes()).decode()


@pytest.mark.parametrize(
    "more, case",
    [
        ({}, "match"),
        ({"outputs": [text([1.00001])]}, "match"),
        ({"outputs": [text([1.001])]}, "differs"),
        ({"outputs": [text([float("nan")])]}, "differs"),
        ({"outputs": [text([1.0, 1.0])]}, "differs"),
        ({"outputs": []}, "differs"),
        ({"error": "RuntimeError: no", "trace": ["RuntimeError: no"]}, "raises"),
        ({"module": "other"}, "no_reference"),
    ],
)
def test_results_are_judged(tmp_path, more, case):
    from mambarun.check import run

    facts = Facts(fabricated(tmp_path, gpu()))
    found = list(run._compare(facts, answer(**more), answer(), "cuda:0", ""))
    assert found[0].case == case
    assert found[0].status == ("ok" if case == "match" else "error")


def test_how_long_kernels_take_to_load_and_how_they_were_built_is_shown():
    from mambarun.check import run

    load = {"variant": "cuda11_ptx80", "seconds": 31.415, "build": "NVRTC 11.8"}
    answer = {
        "load/cuda:0": {"device": "cuda:0", **load},
        "load/cuda:1": {"device": "cuda:1", "error": "CudaError: no"},
        "load/cpu": {"device": "cpu", **load},
    }
    (found,) = run._loads(answer)
    assert "cuda11_ptx80 were ready on cuda:0 after 31.41 s" in found.what()
    assert found.evidence == ("NVRTC 11.8",)


def test_a_torch_that_does_not_import_is_shown_with_its_traceback(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/version.py").write_text("__version__ = '2.2.0+cu121'\n")
    (tmp_path / "torch/__init__.py").write_text("raise OSError('libcudart.so.12: no')")
    machine = Machine.here()
    machine.sys_path = [str(tmp_path), *machine.sys_path]
    report = diagnose(machine, run=True)
    assert report.exit == 1 and "MR603" in codes(report, "error")
    broken = next(f for f in report.findings if f.code == "MR603")
    assert "libcudart.so.12: no" in broken.what()
    assert any("torch/__init__.py" in line for line in broken.evidence)


# ---- the loader's folders ---------------------------------------------------------


def test_folders_of_ld_so_conf_are_the_loaders(tmp_path):
    from mambarun.check import modules

    program(tmp_path, "/etc/ld.so.conf", "include ld.so.conf.d/*.conf\n/opt/a/lib\n")
    program(tmp_path, "/etc/ld.so.conf.d/cuda.conf", "# CUDA\n/opt/cuda/lib64\n")
    folders = list(modules._loader_folders(fabricated(tmp_path, gpu())))
    assert "/usr/lib/x86_64-linux-gnu" in folders
    assert folders[-2:] == ["/opt/a/lib", "/opt/cuda/lib64"]


# ---- PATH -------------------------------------------------------------------------


def program(tmp_path, path, text="#!/bin/sh\n"):
    file = Path(f"{tmp_path}{path}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@pytest.mark.parametrize(
    "first_line, case",
    [
        ("#!/opt/env/bin/python", "same"),
        ("#!/usr/bin/python3", "pip"),
        ("#!/usr/bin/env python3", "same"),
        ("#!/bin/sh", "same"),  # pip's own, where the path is too long
        ("\x7fELF", "same"),
    ],
)
def test_pip_of_another_python(tmp_path, first_line, case):
    program(tmp_path, "/opt/env/bin/python")
    program(tmp_path, "/opt/env/bin/pip", first_line + "\n")
    machine = fabricated(
        tmp_path,
        gpu(),
        environ={"PATH": "/opt/env/bin:/usr/bin"},
        prefix="/opt/env",
        executable="/opt/env/bin/python",
    )
    report = diagnose(machine, run=False, only=["MR022"])
    assert [f.case for f in report.findings] == [case]
