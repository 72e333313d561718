# SPDX-License-Identifier: Apache-2.0
"""test_import.py - importing mambarun and every promised name costs next to nothing:
no torch, no library, no thread, no file, no time; each claim by itself, in a fresh
interpreter.
"""

import os

import mambarun
import pytest

IMPORTS = "import sys\nimport mambarun, " + ", ".join(mambarun.PROMISED) + "\n"


@pytest.fixture
def fresh(run, site):
    """fresh(code, *flags): what the code prints after all imports; no torch is
    installed there."""

    def fresh_(code, *flags, before=""):
        done = run(
            before + IMPORTS + code,
            *flags,
            python=site.python,
            PYTHONPATH=None,
            MAMBARUN_PATH=None,
        )
        assert done.stderr == ""
        return done.stdout.strip()

    return fresh_


def test_torch_is_not_imported(run):
    """Here torch could be imported, unlike in the other tests."""
    done = run(IMPORTS + "print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout == "False False\n"


def test_torch_may_come_later(run):
    pytest.importorskip("torch")
    done = run(
        IMPORTS + "import torch\n"
        "u, A, B = torch.ones(1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1, 1, 1)\n"
        "print(selective_scan_cuda.fwd(u, u, A, B, B, None, None, None, False)[0])"
    )
    assert done.stdout == "tensor([[[1.]]])\n"


def test_no_library_is_opened(fresh):
    code = (
        "print([l for l in open('/proc/self/maps') if 'mambarun' in l or 'cuda' in l])"
    )
    assert fresh(code) == "[]"


def test_ctypes_is_not_imported(fresh):
    assert (
        fresh("print('ctypes' in sys.modules or '_ctypes' in sys.modules)") == "False"
    )


def test_no_thread_is_started(fresh):
    assert fresh("import os; print(len(os.listdir('/proc/self/task')))") == "1"


def test_nothing_is_written(fresh):
    before = (
        "import sys, os\n"
        "written = []\n"
        "WRITES = ('os.mkdir', 'os.rename', 'os.remove', 'os.symlink', 'os.link')\n"
        "def watch(event, arguments):\n"
        "    if event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR):\n"
        "        written.append(arguments[0])\n"
        "    if event in WRITES or event.startswith('socket.'):\n"
        "        written.append(event)\n"
        "sys.addaudithook(watch)\n"
    )
    assert fresh("print(written)", "-B", before=before) == "[]"
    both = before + "open('/dev/null', 'w')\n"
    assert fresh("print(written)", "-B", before=both) == "['/dev/null']"


def test_the_environment_is_not_changed(fresh):
    before = "import os; before = dict(os.environ)\n"
    assert fresh("print(before == dict(os.environ))", before=before) == "True"


def test_nothing_is_printed(fresh):
    assert fresh("") == ""


def test_it_takes_less_than_5_ms(run, site):
    """The package, and after it all of the names; the best of ten, as others use the
    machine too."""
    code = (
        "import time\n"
        "start = time.perf_counter()\nimport mambarun\n"
        "middle = time.perf_counter()\n"
        + IMPORTS.replace("import mambarun, ", "import ")
        + "end = time.perf_counter()\n"
        "print(middle - start, (end - middle) / 6)"
    )
    options = {"python": site.python, "PYTHONPATH": site.packages}
    runs = [run(code, "-S", **options).stdout.split() for _ in range(10)]
    for best in (min(float(r[i]) for r in runs) for i in (0, 1)):
        assert best < 5e-3


def test_an_interpreter_starts_as_fast_as_without(site, bare_site):
    """At most 1.1 times as long: processor time, the best of many interleaved runs."""

    def start(python):
        arguments = [str(python), "-c", "pass"]
        pid = os.posix_spawn(arguments[0], arguments, {"PATH": os.environ["PATH"]})
        _, status, used = os.wait4(pid, 0)
        assert status == 0
        return used.ru_utime + used.ru_stime

    best = {site: 1.0, bare_site: 1.0}
    for attempt in range(200):
        for place in best:
            best[place] = min(best[place], start(place.python))
        if attempt >= 40 and best[site] <= 1.1 * best[bare_site]:
            break
    print("with, without:", *best.values())
    assert best[site] <= 1.1 * best[bare_site], best


def test_the_start_up_file_is_what_installs_the_finder(run, site, bare_site):
    code = "import sys; print('mambarun' in sys.modules)"
    assert run(code, python=site.python, PYTHONPATH=None).stdout == "True\n"
    assert run(code, python=bare_site.python, PYTHONPATH=None).stdout == "False\n"


def test_start_up_imports_one_module_of_ours(run, site):
    code = "import sys; print(sorted(m for m in sys.modules if 'mambarun' in m))"
    done = run(code, python=site.python, PYTHONPATH=None)
    assert done.stdout == "['mambarun']\n"


@pytest.mark.parametrize("name", ["info", "Error", "__version__", "preload"])
def test_names_that_come_later_do_come(name):
    assert getattr(mambarun, name)
    assert name == "__version__" or name in mambarun.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError) as caught:
        mambarun.no_such_name()
    assert "no_such_name" in str(caught.value)
