# SPDX-License-Identifier: Apache-2.0
"""test_hook.py - who gets a promised name, through both doors. Each case is a fresh
interpreter of a virtual environment in which mambarun lies as pip installs it; other
modules of the same names come in through PYTHONPATH.
"""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import mambarun
import pytest
from mambarun import _hook

NAME = "selective_scan_cuda"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

# What became of the name, as one line of JSON.
REPORT = """
import json, sys, warnings
caught = []
warnings.showwarning = lambda message, *rest, **more: caught.append(str(message))
try:
    import {name} as module
    error = None
except ImportError as cause:
    module, error = None, type(cause).__name__ + ": " + str(cause)
import mambarun
functions = [getattr(module, f, None) for f in ("fwd", "bwd")]
print(json.dumps({{
    "error": error,
    "owners": [getattr(f, "__module__", None) for f in functions],
    "answer": module.answer() if hasattr(module, "answer") else None,
    "file": getattr(module, "__file__", None),
    "origin": module and module.__spec__ and module.__spec__.origin,
    "loader": module and type(module.__loader__).__name__,
    "same": module is sys.modules.get("{name}"),
    "warnings": caught,
    "which": mambarun.which("{name}"),
}}))
"""
MULTI = "multi-phase"
SINGLE = "single-phase"


def report(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ask(run, site):
    """ask(name, *flags, **environment): what an import of the name gives, by door one;
    with door=2, start-up files are not read and the finder is not there."""

    def ask_(name=NAME, *flags, door=1, before=(), after=(), code="", **environment):
        path = [*map(str, before)]
        if door == 2:
            flags = ("-S", *flags)
            path += [str(site.packages)]
        path += map(str, after)
        environment.setdefault("MAMBARUN_PATH", None)
        environment["PYTHONPATH"] = ":".join(path) or None
        done = run(
            code + REPORT.format(name=name), *flags, python=site.python, **environment
        )
        return report(done)

    return ask_


doors = pytest.mark.parametrize("door", [1, 2])


def is_ours(found, name=NAME):
    assert found["error"] is None, found
    assert found["owners"] == ["mambarun.ops.selective_scan"] * 2
    assert found["origin"] == found["file"] and found["same"]
    assert Path(found["file"]).parts[-2:] == (name, "__init__.py")
    assert found["loader"] == "SourceFileLoader"
    assert found["which"]["supplier"] == "mambarun" and found["which"]["loaded"]
    return True


def is_other(found, file):
    assert found["error"] is None, found
    assert found["answer"] == 42 and found["owners"] == [None, None]
    assert found["file"] == found["origin"] == str(file) and found["same"]
    assert found["warnings"] == []
    assert found["which"]["supplier"] == "other"
    assert found["which"]["path"] == str(file)
    return True


# ---- other modules of that name ---------------------------------------------------


def broken(folder, name=NAME):
    """A leftover that no dynamic linker takes."""
    folder.mkdir(exist_ok=True)
    file = folder / (name + SUFFIX)
    file.write_bytes(b"\x7fELF, cut off")
    return file


C_SOURCE = """
#include <Python.h>
#include <stdlib.h>
#include <stdio.h>
static PyObject *answer(PyObject *self, PyObject *args) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, 0}, {0}};
static void count(void) {
    const char *path = getenv("TEST_LOADED");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) { fputs("loaded\\n", file); fclose(file); }
}
#ifdef MULTI
static int run(PyObject *module) {
    count();
#ifdef FAILS
    PyErr_SetString(PyExc_ImportError, "this one never works");
    return -1;
#endif
    return 0;
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, run}, {0}};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "selective_scan_cuda", 0, 0, methods, slots};
PyMODINIT_FUNC PyInit_selective_scan_cuda(void) { return PyModuleDef_Init(&module); }
#else
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "selective_scan_cuda", 0, -1, methods};
PyMODINIT_FUNC PyInit_selective_scan_cuda(void) {
    count();
    return PyModule_Create(&module);
}
#endif
#ifdef UNDEFINED
void no_such_symbol(void);
void *needs = no_such_symbol;
#endif
"""


@pytest.fixture(scope="session")
def extension(tmp_path_factory):
    """extension(*definitions): a folder with that C extension in it, and its file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if compiler is None or not header.exists():
        pytest.skip(f"no compiler ({compiler}) or no {header}")

    def build(*definitions, libraries=()):
        folder = tmp_path_factory.mktemp("extension")
        source = folder / "module.c"
        source.write_text(C_SOURCE)
        file = folder / (NAME + SUFFIX)
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-I", str(header.parent), str(source)]
            + ["-D" + definition for definition in definitions]
            + ["-o", str(file), *libraries],
            check=True,
        )
        return folder, file

    return build


@pytest.fixture(scope="session", params=[SINGLE, MULTI])
def working(request, extension):
    return extension(*(["MULTI"] if request.param == MULTI else []))


# ---- nothing else of that name ----------------------------------------------------


@doors
@pytest.mark.parametrize(
    "name", [n for n in mambarun.PROMISED if n != "causal_conv1d_cuda"]
)
def test_ours_if_there_is_no_other(ask, door, name):
    found = ask(name, door=door)
    assert is_ours(found, name) and found["warnings"] == []
    assert found["which"]["reason"] == "there is no other module of that name"


@doors
def test_causal_conv1d_cuda_too(ask, door):
    found = ask("causal_conv1d_cuda", door=door)
    assert found["error"] is None
    assert found["which"]["supplier"] == "mambarun"


def test_isolated_mode_still_reads_start_up_files(ask):
    assert is_ours(ask(NAME, "-I"))


def test_without_site_nothing_is_there(run, site):
    done = run("import " + NAME, "-S", python=site.python, check=False, PYTHONPATH=None)
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr


def test_a_copy_on_pythonpath_needs_no_start_up_file(run, site, bare_site):
    """As `pip install --target` leaves it."""
    found = report(
        run(
            REPORT.format(name=NAME),
            python=bare_site.python,
            PYTHONPATH=site.packages,
            MAMBARUN_PATH=None,
        )
    )
    assert is_ours(found)


def test_the_finder_is_first_and_there_once(run, site):
    code = (
        "import sys, mambarun\n"
        "mambarun.install(); mambarun.install()\n"
        "assert sys.meta_path[0] is mambarun.Finder\n"
        "assert sys.meta_path.count(mambarun.Finder) == 1"
    )
    run(code, python=site.python, PYTHONPATH=None)
    run(code, "-S", python=site.python, PYTHONPATH=site.packages)


def test_the_finder_answers_for_promised_names_only():
    assert mambarun.Finder.find_spec("selective_scan") is None
    assert mambarun.Finder.find_spec("json") is None
    assert mambarun.Finder.find_spec("causal_conv1d") is None


# ---- a broken other one -----------------------------------------------------------


def test_a_broken_leftover_on_an_earlier_path_loses(ask, tmp_path):
    file = broken(tmp_path / "old")
    found = ask(before=[tmp_path / "old"])
    assert is_ours(found)
    (text,) = found["warnings"]
    assert text.startswith(f"mambarun: {NAME}: {file} does not load, mambarun takes")
    assert "ImportError" in text
    assert text.endswith("run: python -m mambarun --explain MR302")
    assert str(file) in found["which"]["reason"]


def test_a_broken_leftover_on_a_later_path_loses(ask, tmp_path):
    file = broken(tmp_path / "old")
    found = ask(door=2, after=[tmp_path / "old"])
    assert is_ours(found) and len(found["warnings"]) == 1
    assert str(file) in found["which"]["reason"]


@doors
def test_a_broken_leftover_in_the_same_folder_loses(run, tmp_path, site, door):
    folder = tmp_path / "packages"
    shutil.copytree(str(site.packages), str(folder))
    broken(folder)
    code = REPORT.format(name=NAME)
    if door == 1:
        code = f"import site; site.addsitedir({str(folder)!r})\n" + code
    path = None if door == 1 else folder
    found = report(run(code, "-S", PYTHONPATH=path, MAMBARUN_PATH=None))
    assert is_ours(found) and len(found["warnings"]) == 1


@pytest.mark.parametrize("definitions", [("UNDEFINED",), ("MULTI", "FAILS")])
def test_an_extension_that_fails_is_loaded_once_and_loses(
    ask, extension, tmp_path, definitions
):
    folder, file = extension(*definitions)
    found = ask(before=[folder], TEST_LOADED=tmp_path / "loaded")
    assert is_ours(found) and len(found["warnings"]) == 1
    reason = "no_such_symbol" if "UNDEFINED" in definitions else "this one never works"
    assert reason in found["warnings"][0] and reason in found["which"]["reason"]
    if "FAILS" in definitions:
        assert (tmp_path / "loaded").read_text() == "loaded\n"
    found = ask(door=2, after=[folder])
    assert is_ours(found) and reason in found["which"]["reason"]


def test_an_extension_that_wants_torch_first_is_told_so(ask, extension, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    (tmp_path / "empty.c").write_text("int c10_something;")
    library = tmp_path / "libc10.so"
    subprocess.run(
        [compiler, "-shared", str(tmp_path / "empty.c"), "-o", str(library)]
        + ["-Wl,-soname,libc10.so"],
        check=True,
    )
    folder, _ = extension(libraries=["-Wl,--no-as-needed", str(library)])
    library.unlink()
    found = ask(before=[folder])
    assert is_ours(found)
    assert "libc10.so: cannot open shared object file" in found["warnings"][0]
    assert "(torch was not imported before it)" in found["warnings"][0]


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError", "OSError"])
@doors
def test_a_package_that_raises_loses_and_leaves_nothing(ask, tmp_path, error, door):
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text(f"leftover = 1\nraise {error}('no luck')")
    side = "before" if door == 1 else "after"
    code = f"import {NAME}; assert not hasattr({NAME}, 'leftover')\n"
    found = ask(door=door, **{side: [tmp_path]}, code=code)
    assert is_ours(found)
    assert f"{error}: no luck" in found["which"]["reason"]


def test_a_failure_that_is_not_an_exception_is_passed_on(run, site, tmp_path):
    (tmp_path / (NAME + ".py")).write_text("raise KeyboardInterrupt")
    code = (
        f"try: import {NAME}\n"
        "except KeyboardInterrupt: print('passed on')\n"
        f"import sys; assert {NAME!r} not in sys.modules"
    )
    done = run(code, python=site.python, PYTHONPATH=tmp_path)
    assert done.stdout == "passed on\n"


# ---- a working other one ----------------------------------------------------------


def test_a_working_extension_is_left_alone(ask, working, tmp_path):
    folder, file = working
    loaded = tmp_path / "loaded"
    assert is_other(ask(before=[folder], TEST_LOADED=loaded), file)
    assert loaded.read_text() == "loaded\n"


def test_a_working_extension_on_a_later_path_is_left_alone(ask, working, tmp_path):
    folder, file = working
    loaded = tmp_path / "loaded"
    assert is_other(ask(door=2, after=[folder], TEST_LOADED=loaded), file)
    assert loaded.read_text() == "loaded\n"


@doors
def test_a_working_extension_in_the_same_folder_is_left_alone(
    run, tmp_path, site, working, door
):
    folder = tmp_path / "packages"
    shutil.copytree(str(site.packages), str(folder))
    shutil.copy(str(working[1]), str(folder))
    code = REPORT.format(name=NAME)
    if door == 1:
        code = f"import site; site.addsitedir({str(folder)!r})\n" + code
    path = None if door == 1 else folder
    found = report(run(code, "-S", PYTHONPATH=path, MAMBARUN_PATH=None))
    assert is_other(found, folder / working[1].name)


@doors
def test_a_working_package_and_file_are_left_alone(ask, tmp_path, door):
    side = "before" if door == 1 else "after"
    package, single = tmp_path / "package", tmp_path / "single"
    (package / NAME).mkdir(parents=True)
    (package / NAME / "__init__.py").write_text("from .part import answer")
    (package / NAME / "part.py").write_text("def answer(): return 42")
    assert is_other(ask(door=door, **{side: [package]}), package / NAME / "__init__.py")
    single.mkdir()
    (single / (NAME + ".py")).write_text("def answer(): return 42")
    assert is_other(ask(door=door, **{side: [single]}), single / (NAME + ".py"))


def test_another_finders_module_is_left_alone(ask, tmp_path):
    """As an editable install supplies it."""
    file = tmp_path / "elsewhere.py"
    file.write_text("def answer(): return 42")
    code = (
        "import sys, importlib.util\n"
        "class Editable:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name == {NAME!r}:\n"
        "            importlib.util.find_spec(name)\n"
        "            return importlib.util.spec_from_file_location(\n"
        f"                name, {str(file)!r})\n"
        "sys.meta_path.append(Editable)\n"
    )
    assert is_other(ask(code=code), file)


def test_a_folder_without_init_is_no_module(ask, tmp_path):
    (tmp_path / NAME / "csrc").mkdir(parents=True)
    assert is_ours(ask(before=[tmp_path]))


def test_the_folder_of_the_program_counts(run, site, tmp_path):
    (tmp_path / (NAME + ".py")).write_text("def answer(): return 42")
    found = report(
        run(REPORT.format(name=NAME), python=site.python, cwd=tmp_path, PYTHONPATH=None)
    )
    assert found["answer"] == 42


def test_a_second_copy_of_mambarun_is_no_other_module(ask, site, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copytree(str(site.packages / NAME), str(folder / NAME))
    found = ask(before=[folder])
    assert found["owners"] == ["mambarun.ops.selective_scan"] * 2
    assert found["warnings"] == []


def test_reload_and_find_spec_work(run, site, tmp_path):
    (tmp_path / (NAME + ".py")).write_text("def answer(): return 42")
    code = (
        "import importlib, importlib.util\n"
        f"spec = importlib.util.find_spec({NAME!r}); assert spec.origin, spec\n"
        f"module = importlib.import_module({NAME!r})\n"
        "assert importlib.reload(module) is module\n"
        "print(sorted(n for n in vars(module) if n[0] != '_'))"
    )
    done = run(code, python=site.python, PYTHONPATH=None)
    assert done.stdout == "['bwd', 'fwd']\n"
    done = run(code, python=site.python, PYTHONPATH=tmp_path)
    assert done.stdout == "['answer']\n"


def test_two_threads_may_import_at_once(run, site):
    code = (
        "import threading\n"
        "seen = set()\n"
        f"def load(): import {NAME} as m; seen.add((id(m), id(m.fwd)))\n"
        "threads = [threading.Thread(target=load) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(len(seen))"
    )
    assert run(code, python=site.python, PYTHONPATH=None).stdout == "1\n"


# ---- the environment --------------------------------------------------------------


@doors
@pytest.mark.parametrize("value", ["1", NAME, "causal_conv1d_cuda, " + NAME])
def test_disable_leaves_the_name_alone(ask, door, value, working):
    folder, file = working
    found = ask(door=door, MAMBARUN_DISABLE=value)
    assert found["error"].startswith(f"ModuleNotFoundError: No module named '{NAME}'")
    assert "MAMBARUN_DISABLE" in found["error"]
    assert found["which"]["supplier"] is None
    assert found["which"]["reason"] == "MAMBARUN_DISABLE leaves this name alone"
    found = ask(door=door, after=[folder], MAMBARUN_DISABLE=value)
    assert found["answer"] == 42 and found["file"] == str(file)


@doors
def test_disable_leaves_a_broken_one_broken(ask, door, tmp_path):
    broken(tmp_path)
    found = ask(door=door, after=[tmp_path], MAMBARUN_DISABLE="1")
    assert found["error"].startswith("ImportError: ") and found["warnings"] == []


@doors
def test_disable_of_other_names_changes_nothing(ask, door):
    assert is_ours(ask(door=door, MAMBARUN_DISABLE="causal_conv1d_cuda"))
    assert is_ours(ask(door=door, MAMBARUN_DISABLE="0"))
    assert is_ours(ask(door=door, MAMBARUN_DISABLE=""))


@pytest.mark.parametrize(
    "setting", [{"MAMBARUN_PREFER": "ours"}, {"MAMBARUN_VARIANT": "cpu_scalar"}]
)
def test_prefer_and_variant_do_not_even_look(ask, working, tmp_path, setting):
    folder, _ = working
    loaded = tmp_path / "loaded"
    for placed in ({"before": [folder]}, {"door": 2, "after": [folder]}):
        found = ask(**placed, TEST_LOADED=loaded, **setting)
        assert is_ours(found) and found["warnings"] == []
        assert found["which"]["reason"].startswith("MAMBARUN_PREFER or ")
    assert not loaded.exists()


def test_prefer_means_ours_or_nothing(ask, working):
    folder, file = working
    assert is_other(ask(before=[folder], MAMBARUN_PREFER="theirs"), file)


def test_disable_goes_before_prefer(ask, working):
    folder, file = working
    setting = {"MAMBARUN_DISABLE": "1", "MAMBARUN_PREFER": "ours"}
    assert ask(before=[folder], **setting)["file"] == str(file)


def test_trace_0_warns_of_nothing(ask, tmp_path):
    broken(tmp_path)
    found = ask(before=[tmp_path], MAMBARUN_TRACE="0")
    assert is_ours(found) and found["warnings"] == []


def test_trace_1_says_who_supplies_a_name(run, site, tmp_path):
    done = run(f"import {NAME}", python=site.python, PYTHONPATH=None, MAMBARUN_TRACE=1)
    lines = done.stderr.splitlines()
    assert lines == [
        f"mambarun: {NAME}: supplied by mambarun: there is no other module of that name"
    ]
    (tmp_path / (NAME + ".py")).write_text("")
    done = run(
        f"import {NAME}", python=site.python, PYTHONPATH=tmp_path, MAMBARUN_TRACE=1
    )
    assert done.stderr == f"mambarun: {NAME}: left to {tmp_path / (NAME + '.py')}\n"


@doors
def test_a_missing_library_is_an_import_error_and_a_warning(run, site, tmp_path, door):
    folder = tmp_path / "packages"
    shutil.copytree(str(site.packages), str(folder))
    shutil.rmtree(str(folder / "mambarun" / "_lib"))
    code = REPORT.format(name=NAME).replace("import mambarun\n", "import mambarun\n")
    if door == 1:
        code = f"import site; site.addsitedir({str(folder)!r})\n" + code
    path = None if door == 1 else folder
    found = report(run(code, "-S", PYTHONPATH=path, MAMBARUN_PATH=None))
    wanted = f"there is no libmambarun.so in {folder / 'mambarun' / '_lib'}"
    assert found["error"].startswith("ImportError: " + wanted)
    assert found["error"].endswith("run: python -m mambarun --explain MR001")
    assert len(found["warnings"]) == 1 and wanted in found["warnings"][0]


def test_a_damaged_library_is_an_import_error_and_a_warning(run, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "libmambarun.so").write_bytes(b"\x7fELF, cut off")
    done = run(
        "import warnings, torch\n"
        "warnings.showwarning = lambda text, *rest, **more: print('warned:', text)\n"
        "import selective_scan_cuda as s\n"
        "u, A, B = torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1, 1, 1)\n"
        "for _ in range(2):\n"
        "    try: s.fwd(u, u, A, B, B, None, None, None, True)\n"
        "    except ImportError as error: print('raised:', error)\n",
        MAMBARUN_PATH=tmp_path,
    )
    assert done.stdout.count("warned:") == 1 and done.stdout.count("raised:") == 2
    assert done.stdout.count("libmambarun.so cannot be used: ") == 3
    assert "--explain MR001" in done.stdout


def test_path_comes_before_the_installed_library(run, site, tmp_path):
    for file in (site.packages / "mambarun" / "_lib").iterdir():
        shutil.copy(str(file), str(tmp_path))
    done = run(
        "import mambarun; print(mambarun.info()['library'])",
        python=site.python,
        PYTHONPATH=None,
        MAMBARUN_PATH=tmp_path,
    )
    assert done.stdout == f"{tmp_path / 'libmambarun.so'}\n"


def test_path_without_a_library_leaves_the_installed_one(run, site, tmp_path):
    done = run(
        "import mambarun; print(mambarun.info()['library'])",
        python=site.python,
        PYTHONPATH=None,
        MAMBARUN_PATH=tmp_path,
    )
    assert done.stdout.startswith(str(site.packages))


# ---- which ------------------------------------------------------------------------


def test_which_imports_nothing(run, site, working):
    folder, file = working
    code = (
        "import json, sys, mambarun\n"
        f"before = mambarun.which({NAME!r})\n"
        f"assert {NAME!r} not in sys.modules\n"
        "print(json.dumps(before))"
    )
    found = json.loads(run(code, python=site.python, PYTHONPATH=folder).stdout)
    assert found["supplier"] == "other" and found["loaded"] is False
    assert found["path"] == str(file)
    found = json.loads(run(code, python=site.python, PYTHONPATH=None).stdout)
    assert found["supplier"] == "mambarun" and found["loaded"] is False


def test_which_of_a_module_made_by_hand(run, site):
    code = (
        "import sys, types, mambarun\n"
        f"sys.modules[{NAME!r}] = types.ModuleType({NAME!r})\n"
        f"print(mambarun.which({NAME!r})['supplier'])"
    )
    assert run(code, python=site.python, PYTHONPATH=None).stdout == "other\n"


def test_which_of_another_name_is_a_value_error():
    with pytest.raises(ValueError) as caught:
        mambarun.which("json")
    assert "selective_scan_cuda" in str(caught.value)


def test_start_up_files_say_the_same():
    """`.start` is read from Python 3.15 on, `.pth` before."""
    startup = Path(__file__).resolve().parents[1] / "startup"
    assert (startup / "mambarun.pth").read_text() == (
        "import mambarun; mambarun.install()\n"
    )
    assert (startup / "mambarun.start").read_text() == "mambarun:install\n"


def test_a_stand_in_is_promised_and_every_promise_has_one():
    folder = Path(_hook._standin(NAME).origin).parents[1]
    for name in mambarun.PROMISED:
        assert (folder / name / "__init__.py").exists()
        assert (folder / name / "__init__.pyi").exists()
