# SPDX-License-Identifier: Apache-2.0
"""test_locate.py - which copies of CUDA's libraries are found on fabricated machines,
and which of them torch would load. Once the system's own loader is asked the same.
"""

import os
import shutil
import subprocess

import pytest
from machines import parts
from machines.builder import build
from machines.elf_writer import elf
from mambarun import ArgumentError
from mambarun._locate import locate

SITE = "/opt/conda/envs/mamba/lib/python3.10/site-packages"
RUNTIME = f"{SITE}/nvidia/cuda_runtime/lib/libcudart.so.12"
CACHE_MAGIC = b"glibc-ld.so.cache1.1"


def ask(builder, what=None):
    machine = builder.machine()
    torch = f"{builder.site}/torch"
    return locate(
        what,
        root=machine.root,
        torch=torch if machine.is_folder(torch) else None,
        executable=machine.executable,
        prefix=machine.prefix,
        sys_path=machine.sys_path,
        library_path=machine.environ.get("LD_LIBRARY_PATH"),
        program_path=machine.environ.get("PATH"),
        cuda_home=machine.environ.get("CUDA_HOME"),
    )


def lines(finds):
    """Each find as a line: path, version, how; behind > what takes it, if anything."""
    return [
        f"{f['path']} {f['version']} {f['how']}" + (f" > {f['by']}" * f["used"])
        for f in finds
    ]


@pytest.fixture
def make(tmp_path):
    return lambda *which: build(tmp_path, parts.conda(), *which)


def ld_cache(*entries, old=False):
    """ld.so.cache with these (name, path), in the form of glibc before 2.32 if old."""
    begin = 48 + 24 * len(entries)
    texts, rows = b"", b""
    for name, path in entries:
        at = begin + len(texts)
        rows += b"".join(
            n.to_bytes(4, "little") for n in (0x303, at, at + len(name) + 1, 0, 0, 0)
        )
        texts += f"{name}\0{path}\0".encode()
    counts = len(entries).to_bytes(4, "little") + len(texts).to_bytes(4, "little")
    new = CACHE_MAGIC + counts + bytes(20) + rows + texts
    if not old:
        return new
    head = b"ld.so-1.7.0\0" + (1).to_bytes(4, "little") + bytes(12)
    return head + bytes(-len(head) % 8) + new


# ---- wheels, conda, system --------------------------------------------------------


def test_a_wheels_copy_is_taken_by_the_path_in_torchs_libraries(make):
    found = lines(ask(make(parts.torch()), "cudart"))
    assert found == [f"{RUNTIME} 12.1.105 wheel > DT_RUNPATH"]


def test_the_version_is_of_the_metadata_whose_major_fits(make):
    b = make(parts.torch())
    for number in ("11.8.89", "12.1.105", "13.0.96"):
        b.package(f"nvidia_cuda_runtime_cu{number[:2]}", number, {})
    assert [f["version"] for f in ask(b, "cudart")] == ["12.1.105"]


def test_a_user_may_be_called_nvidia(tmp_path):
    b = build(tmp_path, parts.venv())
    b.prefix = "/home/nvidia/env"
    parts.torch()(b)
    assert [f["version"] for f in ask(b, "cudart")] == ["12.1.105"]


@pytest.mark.parametrize("tag", ["DT_RPATH", "DT_RUNPATH"])
def test_the_environment_comes_between_the_two_kinds_of_path(make, tag):
    folder = "/usr/local/cuda-12.1/lib64"
    library_path = parts.env(LD_LIBRARY_PATH=f"/nowhere::{folder}")
    found = ask(make(parts.torch(tag=tag), parts.toolkit(), library_path), "cudart")
    other = f"{folder}/libcudart.so.12 12.1.105 LD_LIBRARY_PATH"
    if tag == "DT_RPATH":
        assert lines(found) == [f"{RUNTIME} 12.1.105 wheel > DT_RPATH", other]
    else:
        assert lines(found) == [
            f"{RUNTIME} 12.1.105 wheel",
            other + " > LD_LIBRARY_PATH",
        ]


def test_a_copy_in_torchs_own_folder(make):
    b = make(parts.torch("1.12.1", "11.3", bundled=True, cudnn="8.3.2"))
    assert lines(ask(b, "cudart")) == [
        f"{SITE}/torch/lib/libcudart.so.11.0 11.0 torch > DT_RUNPATH"
    ]
    assert lines(ask(b, "cudnn")) == [
        f"{SITE}/torch/lib/libcudnn.so.8 8 torch > DT_RUNPATH"
    ]


def test_a_hashed_name_is_found(make):
    b = make(parts.torch(cuda=None))
    name = "libcudart-80664282.so.10.2"
    parts.library(f"{SITE}/torch/lib/{name}", name)(b)
    data = elf(needed=[name], runpath="$ORIGIN")
    b.file(f"{SITE}/torch/lib/libtorch_global_deps.so", data)
    assert lines(ask(b, "cudart")) == [
        f"{SITE}/torch/lib/{name} 10.2 torch > DT_RUNPATH"
    ]


def test_condas_copy_is_taken(make):
    b = make(parts.conda_torch())
    assert lines(ask(b, "cudart")) == [
        "/opt/conda/envs/mamba/lib/libcudart.so.12 12.1.105 conda > DT_RPATH"
    ]


def test_the_interpreters_path_is_tried_unless_the_library_has_its_own(make):
    for search, taken in (({}, "conda > DT_RPATH"), ({"runpath": "/x"}, "conda")):
        b = make(parts.torch())
        prefix = b.prefix
        program = elf(rpath="$ORIGIN/../lib")
        b.at(f"{prefix}/bin/{b.python}").write_bytes(program)
        parts.library(f"{prefix}/lib/libcudart.so.12", "libcudart.so.12")(b)
        data = elf(needed=["libcudart.so.12"], **search)
        b.file(f"{SITE}/torch/lib/libtorch_global_deps.so", data)
        conda = [f for f in lines(ask(b, "cudart")) if " conda" in f]
        assert conda == [f"{prefix}/lib/libcudart.so.12 12 {taken}"]
        shutil.rmtree(str(b.root))


def test_cuda_13s_one_folder(make):
    b = make(parts.torch("2.9.0", "13.0", cudnn=None, tag="DT_RPATH"))
    shutil.rmtree(str(b.at(f"{SITE}/nvidia/cuda_runtime")))
    parts.library(f"{SITE}/nvidia/cu13/lib/libcudart.so.13")(b)
    b.package("nvidia_cuda_runtime", "13.0.96", {})
    assert lines(ask(b, "cudart")) == [
        f"{SITE}/nvidia/cu13/lib/libcudart.so.13 13.0.96 wheel > preload"
    ]


def test_what_torch_preloads_lies_anywhere_on_sys_path(make, tmp_path):
    """Wheels in two folders: $ORIGIN/../../nvidia leads nowhere, torch searches."""
    b = make(parts.torch())
    b.after.append("/srv/packages")
    os.makedirs(str(b.at("/srv/packages")))
    b.at(f"{SITE}/nvidia").rename(b.at("/srv/packages/nvidia"))
    assert lines(ask(b, "cudart"))[0] == (
        "/srv/packages/nvidia/cuda_runtime/lib/libcudart.so.12 12 wheel > preload"
    )


@pytest.mark.parametrize("old", [False, True])
def test_ld_so_cache_is_read(make, old):
    b = make(parts.torch(), parts.toolkit("12.4"))
    shutil.rmtree(str(b.at(f"{SITE}/nvidia")))
    path = "/usr/local/cuda-12.4/lib64/libcudart.so.12"
    entries = [("libc.so.6", "/lib/libc.so.6"), ("libcudart.so.12", path)]
    b.file("/etc/ld.so.cache", ld_cache(*entries, old=old))
    assert f"{path} 12.4.105 ld.so.cache > ld.so.cache" in lines(ask(b, "cudart"))


def test_what_is_nowhere_is_said(make):
    b = make(parts.torch())
    shutil.rmtree(str(b.at(f"{SITE}/nvidia/cudnn")))
    (missing,) = ask(b, "cudnn")
    assert missing["used"] and missing["path"] == ""
    assert missing["name"] == "libcudnn.so.8"


def test_torch_without_cuda_loads_none(make):
    b = make(parts.torch(cuda=None), parts.toolkit())
    assert lines(ask(b, "cudart")) == [
        "/usr/local/cuda-12.1/lib64/libcudart.so.12 12.1.105 toolkit"
    ]


def test_nvjitlink_is_asked_for_by_the_cusparse_that_torch_takes(make):
    b = make(parts.torch(), parts.toolkit("12.1"))
    cusparse = elf(needed=["libnvJitLink.so.12"], runpath="$ORIGIN/../../nvjitlink/lib")
    b.file(f"{SITE}/nvidia/cusparse/lib/libcusparse.so.12", cusparse)
    parts.wheel("nvjitlink", "libnvJitLink.so.12", "12.4.127")(b)
    b.file(
        f"{SITE}/torch/lib/libtorch_cuda.so",
        elf(needed=["libcusparse.so.12"], rpath="$ORIGIN/../../nvidia/cusparse/lib"),
    )
    wheel = f"{SITE}/nvidia/nvjitlink/lib/libnvJitLink.so.12 12.4.127 wheel"
    toolkit = "/usr/local/cuda-12.1/lib64/libnvJitLink.so.12 12.1.105"
    assert lines(ask(b, "nvjitlink")) == [wheel + " > DT_RUNPATH", toolkit + " toolkit"]
    b.environ["LD_LIBRARY_PATH"] = "/usr/local/cuda-12.1/lib64"
    assert lines(ask(b, "nvjitlink")) == [
        wheel,
        toolkit + " LD_LIBRARY_PATH > LD_LIBRARY_PATH",
    ]


# ---- the driver's libraries -------------------------------------------------------


def test_the_drivers_libraries_are_those_of_the_loader(make):
    b = make(parts.driver("535.104.12"))
    for what, stem in (("libcuda", "libcuda"), ("nvml", "libnvidia-ml")):
        assert lines(ask(b, what)) == [
            f"{parts.LIB}/{stem}.so.1 535.104.12 system > system"
        ]


@pytest.mark.parametrize(
    "folder", ["/usr/lib/wsl/lib", "/usr/local/nvidia/lib64", "/usr/lib64/nvidia"]
)
def test_a_driver_that_no_loader_finds_is_listed(make, folder):
    b = make(parts.driver("535.104.12", folder=folder))
    path = f"{folder}/libnvidia-ptxjitcompiler.so.1"
    finds = [f for f in ask(b, "ptxjitcompiler") if f["path"]]
    assert lines(finds) == [f"{path} 535.104.12 driver"]


def test_a_library_for_another_processor_is_passed_over(make):
    b = make(parts.driver("535.104.12"))
    parts.library("/opt/32/libcuda.so.1", bits=32, machine="i386")(b)
    parts.library("/opt/arm/libcuda.so.1", machine="aarch64")(b)
    b.file("/opt/text/libcuda.so.1", "not a library\n")
    b.file("/opt/cut/libcuda.so.1", elf(soname="libcuda.so.1")[:90])
    b.environ["LD_LIBRARY_PATH"] = "/opt/32:/opt/arm:/opt/text:/opt/cut"
    finds = ask(b, "libcuda")
    assert [f["fits"] for f in finds] == [False, False, False, False, True]
    assert [f["path"] for f in finds if f["used"]] == [f"{parts.LIB}/libcuda.so.1"]


# ---- toolkits ---------------------------------------------------------------------


def test_toolkits_in_the_order_of_torchs_cpp_extension(make):
    b = make(parts.toolkit("11.8"), parts.toolkit("12.4"), parts.toolkit("12.1"))
    b.link("/usr/local/cuda", "cuda-12.4")
    paths = ["cuda-11.8", "cuda-12.1", "cuda-12.4"]
    one, two, three = (f"/usr/local/{p}" for p in paths)
    assert lines(ask(b, "toolkit")) == [
        "/usr/local/cuda 12.4.1 /usr/local/cuda > /usr/local/cuda",
        f"{one} 11.8.1 installed",
        f"{two} 12.1.1 installed",
    ]
    b.first_on_path.append(one + "/bin")
    assert lines(ask(b, "toolkit"))[0] == f"{one} 11.8.1 PATH > PATH"
    b.environ["CUDA_HOME"] = two
    assert lines(ask(b, "toolkit"))[0] == f"{two} 12.1.1 CUDA_HOME > CUDA_HOME"
    b.environ["CUDA_HOME"] = "/usr/local/cuda-12.2"
    assert not any(f["used"] for f in ask(b, "toolkit"))


def test_older_toolkits_say_their_version_elsewhere(make):
    b = make()
    b.file("/usr/local/cuda-10.2/version.txt", "CUDA Version 10.2.89\n")
    b.file("/usr/local/cuda-9.2/include/cuda.h", "#define CUDA_VERSION 9020\n")
    b.file("/usr/local/cuda-12.2/compat/libcuda.so.1", elf())
    assert lines(ask(b, "toolkit")) == [
        "/usr/local/cuda-10.2 10.2.89 installed",
        "/usr/local/cuda-9.2 9.2 installed",
    ]


# ---- odd machines -----------------------------------------------------------------


def test_each_file_is_listed_once(make):
    b = make(parts.toolkit("12.1"))
    b.link("/usr/local/cuda", "/usr/local/cuda-12.1")
    b.environ["LD_LIBRARY_PATH"] = "/usr/local/cuda/lib64:/usr/local/cuda-12.1/lib64"
    (find,) = ask(b, "cudart")
    assert find["path"] == "/usr/local/cuda/lib64/libcudart.so.12"


def test_links_that_lead_nowhere_or_in_circles_are_no_copies(make):
    b = make()
    b.link("/lib64/libcudart.so.12", "libcudart.so.12")
    b.link("/usr/lib64/libcudart.so.12", "/nowhere/libcudart.so.12")
    b.link("/usr/local/cuda", "cuda-1")
    b.link("/usr/local/cuda-1", "cuda")
    b.link("/srv/deep", "deep/deep")
    b.environ["LD_LIBRARY_PATH"] = "/usr/local/cuda/lib64:/srv/deep:" + "/x" * 3000
    assert ask(b, "cudart") == []


def test_a_folder_where_a_file_should_be(make):
    b = make(parts.torch())
    os.makedirs(str(b.at("/lib64/libcudart.so.12")))
    b.at(f"{SITE}/torch/lib/libtorch_global_deps.so").unlink()
    os.makedirs(str(b.at(f"{SITE}/torch/lib/libtorch_global_deps.so")))
    b.environ["LD_LIBRARY_PATH"] = "/lib64"
    finds = ask(b, "cudart")
    assert [f["fits"] for f in finds if f["path"].startswith("/lib64")] == [False]
    assert [f["path"] for f in finds if f["used"]] == [RUNTIME]


@pytest.mark.parametrize("size", [0, 17, 40, 100])
def test_a_damaged_cache_is_as_none(make, size):
    b = make(parts.torch())
    b.file("/etc/ld.so.cache", ld_cache(("libcudart.so.12", "/a"))[:size] + b"\xff" * 9)
    assert lines(ask(b, "cudart")) == [f"{RUNTIME} 12.1.105 wheel > DT_RUNPATH"]


def test_a_cache_that_claims_more_than_it_has(make):
    b = make(parts.torch())
    data = bytearray(ld_cache(("libcudart.so.12", "/a")))
    data[20:24] = b"\xff" * 4  # number of entries
    data[52:56] = b"\xff" * 4  # where the first name lies
    b.file("/etc/ld.so.cache", bytes(data))
    assert len(ask(b, "cudart")) == 1


def test_torchs_libraries_cut_anywhere_harm_nobody(make):
    b = make(parts.torch())
    path = f"{SITE}/torch/lib/libtorch_global_deps.so"
    whole = b.at(path).read_bytes()
    for size in range(0, len(whole), 11):
        b.file(path, whole[:size])
        assert [f["name"] for f in ask(b, "cudart")] == ["libcudart.so.12"]


def test_everything_in_the_order_of_the_rows(make):
    b = make(parts.torch(), parts.driver(), parts.toolkit())
    kinds = list(dict.fromkeys(f["what"] for f in ask(b)))
    assert kinds == [
        *("cudart", "cudnn", "nvjitlink"),
        *("libcuda", "nvml", "ptxjitcompiler", "toolkit"),
    ]
    assert ask(b) == [f for what in kinds for f in ask(b, what)]


def test_more_copies_than_there_is_room_for(make):
    b = make()
    folders = [f"/lib/copies/{n}" for n in range(100)]
    for folder in folders:
        parts.library(f"{folder}/libcudart.so.12")(b)
    b.environ["LD_LIBRARY_PATH"] = ":".join(folders)
    assert len(ask(b, "cudart")) == 100


def test_another_word_is_refused():
    with pytest.raises(ArgumentError, match="what is cuda: must be one of cudart, "):
        locate("cuda")


def test_nothing_given_is_this_machine():
    assert isinstance(locate(), list)


# ---- the loader itself ------------------------------------------------------------


@pytest.mark.parametrize("tag", ["rpath", "runpath", "none"])
@pytest.mark.parametrize("library_path", [False, True])
def test_the_loader_of_this_system_takes_the_same(tmp_path, tag, library_path):
    """Libraries by the compiler; `ldd` says what the loader does with them."""
    cc, ldd = shutil.which("cc"), shutil.which("ldd")
    if cc is None or ldd is None:
        pytest.skip("NotSupported: there is no cc or no ldd here")
    torch, wheels, other = (tmp_path / n for n in ("torch", "nvidia", "other"))
    for folder in (torch / "lib", wheels / "cuda_runtime" / "lib", other):
        folder.mkdir(parents=True)
    source = tmp_path / "a.c"
    source.write_text("int answer(void) { return 42; }\n")
    soname = "-Wl,-soname,libcudart.so.12"
    shared = [cc, "-shared", "-fPIC", "-nostdlib", str(source)]
    for folder in (wheels / "cuda_runtime" / "lib", other):
        out = folder / "libcudart.so.12"
        subprocess.run([*shared, soname, "-o", str(out)], check=True)
    flags = {"rpath": "--disable-new-dtags", "runpath": "--enable-new-dtags"}
    search = "-Wl,-rpath,$ORIGIN/../../nvidia/cuda_runtime/lib"
    extra = [] if tag == "none" else [f"-Wl,{flags[tag]}", search]
    deps = torch / "lib" / "libtorch_global_deps.so"
    needs = ["-Wl,--no-as-needed", str(other / "libcudart.so.12")]
    subprocess.run([*shared, *extra, *needs, "-o", str(deps)], check=True)
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    if library_path:
        environ["LD_LIBRARY_PATH"] = str(other)
    said = subprocess.run(
        [ldd, str(deps)], env=environ, stdout=subprocess.PIPE, check=True
    )
    (line,) = [n for n in said.stdout.decode().splitlines() if "libcudart" in n]
    taken = line.split("=> ")[1].split(" (")[0]
    finds = locate(
        "cudart",
        torch=str(torch),
        library_path=environ.get("LD_LIBRARY_PATH"),
    )
    (used,) = [f for f in finds if f["used"]]
    nothing = "not found" in taken
    assert used["path"] == ("" if nothing else os.path.realpath(taken))
