# SPDX-License-Identifier: Apache-2.0
"""test_fake_gpu.py - calls with tensors on a GPU, on a machine that has none: which
variant gets them, on whose stream, and what is said where none can. The driver is
libmambarun's fake one, whose kernels do nothing; the tensors are objects that have what
a call reads of one. test_cuda.py has what only a GPU can show.
"""

import re
import textwrap

import pytest
from conftest import ROOT, library_folder

FAKES = ROOT / "build/test/fakes"
pytestmark = pytest.mark.skipif(
    not (FAKES / "cuda/libmambarun_cuda12_sm90.so").exists(),
    reason="build/test/fakes is not built: cmake --build --preset test",
)

COMMON = """
import ctypes, os, threading, torch, mambarun
from mambarun.ops.causal_conv1d import UPDATE

torch._C._cuda_getCurrentRawStream = lambda device: 0x5150 + device

class OnGpu:
    dtype, layout = torch.float32, torch.strided
    is_meta = False
    def __init__(self, device, *shape):
        self.device, self.shape = torch.device("cuda", device), torch.Size(shape)
    stride = lambda self: torch.empty(self.shape, device="meta").stride()
    get_device = lambda self: self.device.index
    data_ptr = lambda self: 4096
    dim = lambda self: len(self.shape)
    is_conj = is_neg = is_complex = lambda self: False
    numel = lambda self: self.shape.numel()

def update(device=0, **other):
    tensors = dict(
        x=OnGpu(device, 2, 8, 1), conv_state=OnGpu(device, 2, 8, 3),
        weight=OnGpu(device, 8, 4), bias=None, cache_seqlens=None,
        conv_state_indices=None, out=OnGpu(device, 2, 8, 1))
    tensors.update(other)
    UPDATE([tensors[name] for name in UPDATE.tensors], True)

class Launch(ctypes.Structure):
    _fields_ = [("kernel", ctypes.c_char * 128), ("context", ctypes.c_void_p),
                ("stream", ctypes.c_size_t), ("sizes", ctypes.c_uint32 * 7),
                ("size", ctypes.c_size_t), ("params", ctypes.c_ubyte * 4096)]

class Log(ctypes.Structure):
    _fields_ = [("log", ctypes.c_char * 32768), ("launches", ctypes.c_int32),
                ("launch", Launch), ("each", Launch * 4), ("capturing", ctypes.c_int32)]

fake = Log.in_dll(ctypes.CDLL("libcuda.so.1"), "mbr_fake_driver_log")

def lines(word):
    return [line for line in fake.log.decode().splitlines() if line.startswith(word)]

def in_use(device=0, kind=2):
    from mambarun import _lib
    ask = _lib.library().mbr_variant_in_use
    ask.restype = ctypes.c_char_p
    return (ask(kind, device) or b"none").decode()

def message(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except mambarun.Error as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("no error")
"""


@pytest.fixture
def gpu(run, tmp_path):
    """gpu(code, variants=..., driver=..., **environment): what COMMON and code print,
    with two GPUs of capability 9.0 and the fakes of those folders."""
    libraries = [library_folder() / "libmambarun.so"]
    libraries += library_folder().glob("libmambarun_cpu_*.so")

    def gpu_(code, variants="cuda", driver="driver", common=COMMON, **environment):
        lib = tmp_path / "lib"
        lib.mkdir()
        for file in (*libraries, *(FAKES / variants).glob("libmambarun_cuda*.so")):
            (lib / file.name).symlink_to(file)
        return run(
            common + textwrap.dedent(code),
            **{
                "LD_LIBRARY_PATH": FAKES / driver,
                "MAMBARUN_PATH": lib,
                "MAMBARUN_TRACE": "0",
                "FAKE_CAPABILITY": "90,90",
                "FAKE_DEVICES": "2",
                **environment,
            },
        ).stdout

    return gpu_


# ---- calls that run ---------------------------------------------------------------


@pytest.mark.parametrize("driver", ["driver", "driver_old"])
def test_a_call_is_launched_on_the_stream_of_its_tensors_gpu(gpu, driver):
    said = gpu(
        """
        for device in (1, 0, 1):
            update(device)
            print(fake.launch.kernel.decode(), hex(fake.launch.stream), in_use(device))
        print(fake.launches, len(lines("cuDevicePrimaryCtxRetain")))
        """,
        driver=driver,
    )
    assert said.splitlines() == [
        "causal_conv1d_update 0x5151 cuda12_sm90",
        "causal_conv1d_update 0x5150 cuda12_sm90",
        "causal_conv1d_update 0x5151 cuda12_sm90",
        "3 2",
    ]


def test_threads_leave_no_context_behind(gpu):
    said = gpu("""
        threads = [threading.Thread(target=update, args=(i % 2,)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        pushed, popped = lines("cuCtxPush"), lines("cuCtxPop")
        print(fake.launches, len(pushed) == len(popped) >= 8)
    """)
    assert said == "8 True\n"


def test_preload_loads_and_says_which(gpu):
    said = gpu("""
        print(mambarun.preload(1), len(lines("cuKernelGetFunction")) > 0)
        before = lines("cuLibrary")
        update(1)
        print(lines("cuLibrary") == before, in_use(0))
    """)
    assert said.splitlines() == ["cuda12_sm90 True", "True none"]


@pytest.mark.parametrize(
    "forced, on_gpu, on_cpu",
    [
        ("cuda11_ptx80", "cuda11_ptx80", "cpu"),
        ("cuda12_sm90", "cuda12_sm90", "cpu"),
        ("cpu_scalar", "cuda12_sm90", "cpu_scalar"),
    ],
)
def test_a_variant_by_name_is_taken_for_its_kind_of_device(gpu, forced, on_gpu, on_cpu):
    said = gpu(
        """
        update()
        print(in_use(), mambarun.preload())
        """,
        variants="good",
        MAMBARUN_VARIANT=forced,
    ).split()
    assert said[0] == on_gpu and said[1].startswith(on_cpu)


# ---- calls that cannot run --------------------------------------------------------


def test_a_gpu_without_a_variant_is_named_with_every_row_and_never_the_cpu(gpu):
    said = gpu("print(message(update))", FAKE_CAPABILITY="52")
    first, *rows, last = said.splitlines()
    assert first == (
        "NoVariantError: x is on cuda:0: no variant can run causal_conv1d_update on "
        "cuda:0 (sm_52, driver API 12.4)"
    )
    assert "  cuda12_sm60   needs sm_60, device is sm_52" in rows
    assert all(row.startswith("  cuda") for row in rows)
    assert last == "  run: python -m mambarun --explain MR120"


@pytest.mark.parametrize(
    "forced, why",
    [
        ("cuda12_sm80", "  cuda12_sm80   needs sm_80, device is sm_90"),
        ("cuda13_sm90", "  cuda13_sm90   needs driver API 13.0, driver has 12.4"),
        ("cuda11_sm90", "  cuda11_sm90   not installed: "),
    ],
)
def test_a_variant_by_name_that_does_not_fit_is_all_that_is_tried(gpu, forced, why):
    said = gpu("print(message(update))", MAMBARUN_VARIANT=forced)
    assert said.startswith("NoVariantError: x is on cuda:0: no variant can run ")
    assert why in said
    assert f"  cuda12_sm90   not asked for: MAMBARUN_VARIANT is {forced}\n" in said


def test_tensors_of_other_devices_are_named_and_nothing_is_asked(gpu):
    said = gpu("""
        on_cpu = torch.zeros(8, 4)
        print(message(update, weight=on_cpu))
        print(message(update, weight=OnGpu(1, 8, 4)))
        print(message(update, x=torch.zeros(2, 8, 1)))
        print(repr(fake.log.decode()))
    """)
    lines = said.splitlines()
    assert lines[0].startswith("ArgumentError: Expected weight.is_cuda() to be true, ")
    assert lines[0].endswith(": weight is on cpu, the first tensor is on cuda:0")
    same = "ArgumentError: Expected all tensors to be on the same device: "
    assert lines[1] == same + "weight is on cuda:1, the first tensor is on cuda:0"
    assert lines[2] == same + "conv_state is on cuda:0, the first tensor is on cpu"
    assert lines[3] == "''"


def test_a_first_call_under_capture_says_what_to_do(gpu):
    said = gpu("""
        fake.capturing = 1
        print(message(update, 1))
        fake.capturing = 0
        update(1)
        fake.capturing = 1
        update(1)
        print(fake.launches)
    """)
    assert said.startswith("CudaError: no variant can run causal_conv1d_update on cuda")
    assert "call mambarun.preload(1) before capturing" in said
    assert said.endswith("--explain MR116\n2\n")


def test_a_child_of_one_that_used_the_gpu_is_told_to_spawn(gpu):
    said = gpu("""
        update()
        child = os.fork()
        if child == 0:
            for device in (0, 1):
                print(message(update, device), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        update()
        print(fake.launches)
    """)
    lines = said.splitlines()
    assert lines[0].startswith("CudaError: causal_conv1d_update: ")
    assert lines[2].startswith("CudaError: no variant can run causal_conv1d_update on")
    for first, last in (lines[:2], lines[2:4]):
        assert "; CUDA does not outlive a fork: start this process by spawn" in first
        assert last == "  run: python -m mambarun --explain MR119"
    assert lines[4] == "2"


def test_a_child_of_one_that_has_not_may_use_the_gpu(gpu):
    said = gpu("""
        child = os.fork()
        update()
        os.write(1, (in_use() + chr(10)).encode())
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
    """)
    assert said == "cuda12_sm90\n" * 2


@pytest.mark.parametrize(
    "driver, settings, words, code",
    [
        ("driver", {"FAKE_cuInit": "100"}, "CUDA_VISIBLE_DEVICES", "MR109"),
        ("driver", {"FAKE_DEVICES": "0"}, "the driver shows 0 devices", "MR109"),
        ("driver", {"FAKE_cuInit": "802"}, "fabric manager does not run", "MR107"),
        ("driver", {"FAKE_cuInit": "803"}, "reboot after an update", "MR106"),
        ("driver_stub/stubs", {}, "link-time stub, not a driver", "MR105"),
        ("driver_without/cuLaunchKernel", {}, "driver lacks cuLaunchKernel", "MR102"),
        ("driver_not_elf", {}, "no NVIDIA driver: ", "MR102"),
    ],
)
def test_a_driver_that_cannot_says_why(gpu, driver, settings, words, code):
    said = gpu(
        """
        import mambarun
        try: mambarun.preload(0)
        except mambarun.CudaError as error: print(error)
        """,
        common="",
        driver=driver,
        **settings,
    )
    assert said.startswith("no variant can run anything on cuda:0: ")
    assert words in said and said.endswith(f"--explain {code}\n")


def test_each_answer_of_the_driver_arrives_with_its_sentence_and_code(gpu):
    text = (ROOT / "libmambarun/core/driver_errors.def").read_text()
    row = re.compile(r'^MBR_DRIVER_ERROR\((\d+),.*(MBR_CODE_\w+), *"(.*)"\)', re.M)
    rows = row.findall(text)
    codes = dict(
        re.findall(
            r'define (MBR_CODE_\w+)\s+"(MR\d+)"',
            (ROOT / "libmambarun/core/status.h").read_text(),
        )
    )
    said = gpu(f"""
        update()
        for number in {[int(number) for number, *_ in rows]}:
            os.environ["FAKE_cuLaunchKernel"] = str(number)
            print(message(update).replace(chr(10), " "))
    """).splitlines()
    assert len(said) == len(rows) > 30
    for line, (number, code, sentence) in zip(said, rows):
        assert line.startswith("CudaError: causal_conv1d_update: ")
        assert f"({number})" in line and f"; {sentence} " in line
        assert line.endswith(f"--explain {codes[code]}")


# ---- any shape --------------------------------------------------------------------

RANDOM = """
import random
from mambarun.ops import causal_conv1d as conv, selective_scan as scan
from mambarun import _lib

MOST = 1 << 36  # elements: no GPU holds more of them
chance = random.Random(SEED)
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

def size():
    near = chance.choice((1, 8, 16, 32, 64, 128, 256, 2048, 4096, 65536, 1 << 20))
    return max(1, near + chance.choice((-1, 0, 0, 1)))

# Anywhere that its dtype allows; its axes in any order, perhaps with gaps.
def tensor(dtype, *shape, dense=False):
    order, step, strides = list(range(len(shape))), 1, [0] * len(shape)
    if not dense and chance.random() < 0.5: chance.shuffle(order)
    for axis in reversed(order):
        strides[axis] = step
        step = step * shape[axis] + chance.choice((0, 0, 0, 1, 8)) * (not dense)
    bytes = torch.empty(0, dtype=dtype).element_size()
    address = (1 << 44) + chance.choice((0, 0, 1, 2, 4)) * bytes
    found = OnGpu(0, *shape)
    found.dtype, found.is_complex = dtype, lambda: dtype.is_complex
    found.stride, found.data_ptr = lambda: tuple(strides), lambda: address
    return found

def perhaps(value):
    return value if chance.random() < 0.5 else None

def call(params, tensors, *tail, **more):
    where = dict(device_type=2, device_id=0, **more)
    packed = params.pack(tensors, *tail, **where)
    if params._workspace_at is not None:
        size = _lib.entry(f"mbr_{params.op}_workspace", "size_t")(packed)
        packed = params.pack(tensors, *tail, workspace=(1 << 43, size), **where)
    if _lib.entry(f"mbr_{params.op}", "int")(packed):
        text = _lib.library().mbr_last_error().decode()
        given = [(n, t.shape, t.stride(), t.dtype) for n, t in tensors.items() if t]
        raise SystemExit(f"{text}: {given}")

def some_scan():
    while True:
        batch, groups, length = size(), chance.choice((1, 1, 2, 4, size())), size()
        dim, states = groups * min(size(), 4096), min(size(), 256)
        if batch * length * max(dim, groups * states) < MOST: break
    weight = chance.choice((torch.float32, torch.float32, torch.complex64))
    dtype = chance.choice(FLOATS)
    wide, rates = (batch, dim, length), (dim, states)
    columns = batch, groups, states, length * (2 if weight.is_complex else 1)
    B, C = (tensor(dtype, *columns, dense=weight.is_complex) for _ in "BC")
    if groups == 1:
        B, C = (chance.choice((x, x, x, tensor(weight, *rates))) for x in (B, C))
    z = perhaps(tensor(dtype, *wide))
    result = dtype if z else chance.choice((dtype, torch.float32))
    given = dict(
        u=tensor(dtype, *wide), delta=tensor(dtype, *wide), A=tensor(weight, *rates),
        B=B, C=C, D=perhaps(tensor(torch.float32, dim)), z=z,
        delta_bias=perhaps(tensor(torch.float32, dim)), out=tensor(result, *wide),
        x=tensor(weight, batch, dim, (length + 2047) // 2048, 2 * states, dense=True))
    out_z = z and tensor(dtype, *wide)
    call(scan.FWD, dict(given, out_z=out_z), 1)
    like = {"d" + n: given[n] for n in ("u", "delta", "A", "B", "C", "D", "z")}
    like.update(ddelta_bias=given["delta_bias"], dout=tensor(result, *wide))
    if not z: del given["out"]
    call(scan.BWD, dict(given, **like, out_z=perhaps(out_z)), 1,
         flags=chance.randrange(2))

def some_convolution():
    while True:
        batch, dim, length = size(), size(), size()
        if batch * dim * length < MOST: break
    dtype, width, silu = chance.choice(FLOATS), chance.choice((2, 3, 4)), 1
    rows = lambda length: tensor(dtype, batch, dim, length)
    x, bias = rows(length), perhaps(tensor(torch.float32, dim))
    weight, before = tensor(torch.float32, dim, width), perhaps(rows(width - 1))
    given = dict(x=x, weight=weight, bias=bias, initial_states=before,
                 seq_idx=perhaps(tensor(torch.int32, batch, length)))
    out, after = chance.choice((x, rows(length))), perhaps(rows(width - 1))
    call(conv.FWD, dict(given, out=out, final_states_out=after), silu)
    call(conv.BWD, dict(given, dout=rows(length), dx=rows(length), dweight=weight,
         dbias=bias, dinitial_states=before), silu, 0)
    call(conv.UPDATE, dict(x=rows(1), conv_state=rows(width), weight=weight, bias=bias,
         out=rows(1)), silu)

_lib.wake()
for _ in range(500):
    some_scan()
    some_convolution()
    fake.log = b""
print(fake.launches)
"""


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_gpu_holds_is_launched_in_sizes_that_it_takes(gpu, seed):
    """The fake refuses others. A call is a launch or more."""
    assert int(gpu(RANDOM.replace("SEED", str(seed)))) > 5 * 500
