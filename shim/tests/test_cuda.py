# SPDX-License-Identifier: Apache-2.0
"""test_cuda.py - what a GPU call must be beside right: capturable, on its own stream,
in any thread, under autograd, in a forked child; and what is said where it cannot be.
Every test is a process of its own, because kernels are loaded once in a process.
Numbers are compared with the CPU variant's; conformance judges them properly.
"""

import textwrap

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU here"
)

COMMON = """
import os, threading
import torch, mambarun, selective_scan_cuda
import causal_conv1d_cuda as conv

gpu = torch.device("cuda", 0)

def inputs(seed=0, batch=2, dim=96, length=777, states=16):
    g = torch.Generator().manual_seed(seed)
    def normal(*shape):
        return torch.randn(*shape, generator=g)
    return [normal(batch, dim, length), normal(batch, dim, length).abs() * 0.1,
            -normal(dim, states).abs(), normal(batch, 1, states, length),
            normal(batch, 1, states, length), normal(dim), None, normal(dim) * 0.1]

def there(tensors, device=gpu):
    return [t if t is None else t.to(device) for t in tensors]

def scan(tensors):
    return selective_scan_cuda.fwd(*tensors, True)[0]

# Every entry point once, on what fits of an input; what comes out of each.
def everything(tensors):
    u, dout = tensors[0], tensors[0].flip(0).contiguous()
    out, x = selective_scan_cuda.fwd(*tensors, True)[:2]
    found = [out, *selective_scan_cuda.bwd(*tensors, dout, x, None, None, True, False)]
    weight, bias = tensors[2][:, :4], tensors[5]
    found.append(conv.causal_conv1d_fwd(u, weight, bias, None, None, None, True))
    found += conv.causal_conv1d_bwd(u, weight, bias, dout, *[None] * 4, False, True)
    state = u[:, :, :4].clone()
    update = conv.causal_conv1d_update
    found += [update(u[:, :, 4:6], state, weight, bias, True, None, None), state]
    return [t for t in found if t is not None]

def right(out, tensors):
    want = scan(there(tensors, "cpu"))
    worst = (out.cpu() - want).abs().max() / want.abs().max()
    assert worst < 1e-5, worst
    return True

def all_near(found, wanted):
    assert len(found) == len(wanted) == 14
    for place, (a, b) in enumerate(zip(found, wanted)):
        worst = (a.cpu() - b.cpu()).abs().max() / b.abs().max().cpu()
        assert worst < 1e-5, (place, worst)
    return True

def pack(x, out):
    from mambarun.ops.selective_scan import FWD
    batch, dim, _ = out.shape
    pack.kept = out.new_empty(batch, dim, 1, 2 * x[2].shape[1])
    tensors = (*x, out, pack.kept, None)
    return FWD.pack(tensors, 1, device_type=2, device_id=0)

def enter(packed):
    from mambarun import _lib
    return _lib.entry("mbr_selective_scan_fwd", "int")(packed)

def last_error():
    from mambarun import _lib
    return _lib.library().mbr_last_error().decode()

def in_use(device_type):
    from mambarun import _lib
    import ctypes
    ask = _lib.library().mbr_variant_in_use
    ask.restype = ctypes.c_char_p
    return ask(device_type, 0).decode()

def message(call):
    try:
        call()
    except mambarun.Error as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("no error")
"""


@pytest.fixture
def alone(run):
    """alone(code, **environment): what COMMON and code print in a fresh interpreter."""

    def alone_(code, **environment):
        environment.setdefault("MAMBARUN_TRACE", "0")
        return run(COMMON + textwrap.dedent(code), **environment).stdout

    return alone_


def test_a_first_call_under_capture_says_what_to_do_and_spoils_nothing(alone):
    said = alone("""
        x = there(inputs())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            doubled = x[0] * 2
            print(message(lambda: scan(x)))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(doubled, x[0] * 2)
        assert right(scan(x), x)
    """)
    assert said.startswith(
        "CudaError: no variant can run selective_scan_fwd on cuda:0: "
    )
    assert "call mambarun.preload(0) before capturing" in said
    assert said.endswith("--explain MR116\n")


def test_after_preload_a_call_is_captured_and_replayed(alone):
    alone("""
        mambarun.preload(gpu)
        x = there(inputs())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = scan(x)
        for seed in range(3):
            x[0].copy_(inputs(seed)[0])
            out.fill_(float("nan"))
            graph.replay()
            torch.cuda.synchronize()
            assert right(out, x)
    """)


def test_every_entry_point_is_captured_and_replayed(alone):
    alone("""
        mambarun.preload(gpu)
        x = there(inputs())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = everything(x)
        for seed in range(3):
            for old, new in zip(x, inputs(seed)):
                if old is not None: old.copy_(new)
            for t in found: t.fill_(float("nan"))
            graph.replay()
            torch.cuda.synchronize()
            assert all_near(found, everything(x))
            assert all_near(found, everything(inputs(seed)))  # on the CPU
    """)


def test_a_call_runs_on_the_current_stream_and_waits_for_nothing(alone):
    alone("""
        mambarun.preload(gpu)
        x = there(inputs())
        torch.cuda.synchronize()
        streams, outs = [torch.cuda.Stream() for _ in range(2)], []
        for step in range(20):
            for stream in streams:
                with torch.cuda.stream(stream):
                    u = x[0] * (step + 1)  # made there just before
                    outs.append((step, scan([u, *x[1:]])))
        torch.cuda.synchronize()
        for step, out in outs:
            assert right(out, [x[0] * (step + 1), *x[1:]])
        with torch.cuda.stream(streams[0]):
            torch.cuda._sleep(500_000_000)
            out = scan(x)
        assert not streams[0].query()  # still sleeping when the call came back
        streams[0].synchronize()
        assert right(out, x)
    """)


def test_threads_that_come_together_all_get_their_results(alone):
    alone("""
        torch.zeros(1, device=gpu)
        sets = [there(inputs(seed)) for seed in range(8)]
        torch.cuda.synchronize()
        together, outs = threading.Barrier(8), {}
        def work(i):
            together.wait()
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(50):
                    outs[i] = scan(sets[i])
                torch.cuda.current_stream().synchronize()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(outs) == 8
        assert all(right(outs[i], sets[i]) for i in range(8))
    """)


def test_a_thread_without_a_context_gets_none_by_a_call(alone):
    alone("""
        import ctypes
        cuda = ctypes.CDLL("libcuda.so.1")
        def current():
            context = ctypes.c_void_p(1)
            assert cuda.cuCtxGetCurrent(ctypes.byref(context)) == 0
            return context.value
        x = there(inputs())
        want = scan(x)
        out, seen = torch.empty_like(x[0]), []
        packed = pack(x, out)
        def work():
            seen.extend([current(), enter(packed), current()])
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        torch.cuda.synchronize()
        assert seen == [None, 0, None], seen
        assert torch.equal(out, want)
    """)


def test_autograds_thread_may_call(alone):
    alone("""
        class Scan(torch.autograd.Function):
            @staticmethod
            def forward(ctx, u):
                ctx.save_for_backward(u)
                return u * 1
            @staticmethod
            def backward(ctx, _):
                threads.append(threading.current_thread())
                return scan([ctx.saved_tensors[0], *x[1:]])
        threads, x = [], there(inputs())
        u = x[0].clone().requires_grad_()
        Scan.apply(u).sum().backward()
        assert threads != [threading.main_thread()]
        assert right(u.grad, x)
    """)


def test_a_forked_child_may_use_cuda_if_its_parent_has_not(alone):
    alone("""
        child = os.fork()
        if child == 0:
            x = there(inputs())
            os._exit(0 if right(scan(x), x) else 1)
        assert os.waitpid(child, 0)[1] == 0
    """)


def test_a_forked_child_of_one_that_has_is_told(alone):
    said = alone("""
        x = there(inputs())
        packed = pack(x, scan(x))
        child = os.fork()
        if child == 0:  # torch itself would refuse to touch the tensors
            print(enter(packed), last_error(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """)
    assert said.startswith("4 selective_scan_fwd: ")
    assert "CUDA does not outlive a fork" in said
    assert said.endswith("--explain MR119\n")


def test_hidden_gpus_are_named_as_the_reason(alone):
    said = alone("print(message(lambda: mambarun.preload(0)))", CUDA_VISIBLE_DEVICES="")
    assert said.startswith("CudaError: no variant can run anything on cuda:0: ")
    assert "CUDA_VISIBLE_DEVICES" in said


def test_a_variant_for_another_gpu_is_refused_by_name(alone):
    major, _ = torch.cuda.get_device_capability()
    other = "cuda12_sm60" if major != 6 else "cuda12_sm90"
    said = alone("print(message(lambda: mambarun.preload(0)))", MAMBARUN_VARIANT=other)
    assert said.startswith("NoVariantError: no variant can run anything on cuda:0 (sm_")
    assert f"not asked for: MAMBARUN_VARIANT is {other}" in said


def test_a_gpu_without_a_variant_never_runs_on_the_cpu(alone):
    said = alone(
        "x = there(inputs())\nprint(message(lambda: scan(x)))",
        MAMBARUN_VARIANT="cuda12_sm60",
    )
    assert said.startswith("NoVariantError: u is on cuda:0: no variant can run ")
    assert "MAMBARUN_VARIANT is cuda12_sm60" in said


def test_a_cpu_variant_by_name_leaves_the_gpu_its_own(alone):
    said = alone(
        """
        x = there(inputs())
        assert right(scan(x), x)
        print(in_use(2), in_use(1))
        """,
        MAMBARUN_VARIANT="cpu_scalar",
    )
    on_gpu, on_cpu = said.split()
    assert on_gpu.startswith("cuda") and on_cpu == "cpu_scalar"


def test_ptx_by_name_is_compiled_and_right(alone):
    said = alone(
        """
        x = there(inputs())
        out = scan(x)
        print(in_use(2))
        assert right(out, x)
        """,
        MAMBARUN_VARIANT="cuda11_ptx80",
    )
    assert said == "cuda11_ptx80\n"


def test_tensors_of_two_devices_are_refused_by_name(alone):
    said = alone("""
        x = there(inputs())
        for place in (4, 0):
            mixed = list(x)
            mixed[place] = mixed[place].cpu()
            print(message(lambda: scan(mixed)))
        weight = torch.randn(96, 4)
        print(message(lambda: conv.causal_conv1d_fwd(
            x[0], weight, None, None, None, None, True)))
    """)
    assert "C is on cpu, the first tensor is on cuda:0" in said
    assert "delta is on cuda:0, the first tensor is on cpu" in said
    assert "weight is on cpu, the first tensor is on cuda:0" in said


two_gpus = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="there is one GPU only"
)


@two_gpus
def test_every_gpu_runs_its_own_tensors(alone):
    said = alone("""
        for i in (1, 0, 1):
            x = there(inputs(), torch.device("cuda", i))
            found = everything(x)
            assert found[0].device.index == i and torch.cuda.current_device() == 0
            assert all_near(found, everything(inputs()))
        x[4] = x[4].to(gpu)
        print(message(lambda: scan(x)))
    """)
    assert "C is on cuda:0, the first tensor is on cuda:1" in said


@two_gpus
def test_another_gpus_stream_is_used_while_the_first_is_current(alone):
    alone("""
        other = torch.device("cuda", 1)
        mambarun.preload(1)
        x = there(inputs(), other)
        torch.cuda.synchronize(other)
        stream = torch.cuda.Stream(other)
        with torch.cuda.stream(stream):
            torch.cuda._sleep(500_000_000)
        with torch.cuda.device(0):
            assert scan(there(inputs())).device.index == 0
        with torch.cuda.stream(stream):
            torch.cuda.set_device(0)
            out = scan(x)
        assert not stream.query()
        stream.synchronize()
        assert right(out, x)
    """)


@two_gpus
def test_a_second_gpu_captures_its_own_graph(alone):
    alone("""
        mambarun.preload(1)
        with torch.cuda.device(1):
            x = there(inputs(), torch.device("cuda", 1))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = scan(x)
            out.fill_(float("nan"))
            graph.replay()
            torch.cuda.synchronize()
        assert right(out, x)
    """)


@two_gpus
def test_a_thread_for_each_gpu(alone):
    alone("""
        sets = [there(inputs(i), torch.device("cuda", i)) for i in range(2)]
        together, outs = threading.Barrier(2), {}
        def work(i):
            together.wait()
            for _ in range(50):
                outs[i] = scan(sets[i])
            torch.cuda.synchronize(i)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert all(right(outs[i], sets[i]) for i in range(2))
    """)


def test_a_fault_of_the_gpu_is_told_by_the_next_call(alone):
    said = alone("""
        from mambarun.ops.selective_scan import FWD
        x = there(inputs())
        good = pack(x, scan(x))
        at = next(at for path, at, _ in FWD.fields() if path == "out.data")
        nowhere = (4096).to_bytes(8, "little")
        assert enter(good[:at] + nowhere + good[at + 8:]) == 0
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            pass
        print(enter(good), last_error(), flush=True)
        os._exit(0)
    """)
    assert said.startswith("4 selective_scan_fwd: ")
    assert "some earlier kernel touched memory that is not there" in said
    assert said.endswith("--explain MR117\n")
