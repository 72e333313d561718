# SPDX-License-Identifier: Apache-2.0
"""test_processes.py - the functions inside threads, autograd's workers, loaders of data
by fork and spawn, and two processes that train together.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import mambarun
import pytest
import selective_scan_cuda_oflex as oflex
import torch
from causal_conv1d_cuda import causal_conv1d_fwd

BATCH, DIM, SEQLEN, STATES = 2, 4, 33, 3


class Scan(torch.autograd.Function):
    """As VMamba calls the extension."""

    threads = set()

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D):
        out, x = oflex.fwd(u, delta, A, B, C, D, None, True, 1, True)
        ctx.save_for_backward(u, delta, A, B, C, D, x)
        return out

    @staticmethod
    def backward(ctx, dout):
        Scan.threads.add(threading.get_ident())
        *forward, x = ctx.saved_tensors
        return tuple(oflex.bwd(*forward, None, dout.contiguous(), x, True, 1)[:6])


class Net(torch.nn.Module):
    """A linear layer and a scan: enough to have gradients of both."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(DIM, DIM)
        self.A = torch.nn.Parameter(-torch.rand(DIM, STATES))
        self.D = torch.nn.Parameter(torch.rand(DIM))

    def forward(self, u):
        u = self.linear(u.transpose(1, 2)).transpose(1, 2)
        B = u[:, :STATES, :].unsqueeze(1)
        return Scan.apply(u, u.tanh(), self.A, B, B * 2, self.D).square().mean()


def batches(count):
    torch.manual_seed(1)
    return [torch.randn(BATCH, DIM, SEQLEN) for _ in range(count)]


def gradients(net, data):
    net.zero_grad()
    net(data).backward()
    return [parameter.grad.clone() for parameter in net.parameters()]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second))


# ---- threads ----------------------------------------------------------------------


def test_many_threads_may_call_at_once():
    data = batches(16)
    nets = [Net() for _ in data]  # here: they seed the one generator of the process
    alone = [gradients(*pair) for pair in zip(nets, data)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(gradients, nets, data))
    assert all(equal(a, b) for a, b in zip(alone, together))


def test_the_backward_may_run_in_another_thread():
    """As autograd's workers do it for devices other than the caller's."""
    net, (data,) = Net(), batches(1)
    expected = gradients(net, data)
    loss = net(data)
    net.zero_grad()
    Scan.threads.clear()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    assert Scan.threads == {thread.ident}
    assert equal([p.grad for p in net.parameters()], expected)


def test_a_scan_does_not_hold_the_interpreter():
    """The GIL is free during the call: another thread runs Python meanwhile."""
    u = torch.randn(4, 256, 4096)
    A, B = -torch.rand(256, 16), torch.randn(4, 1, 16, 4096)
    done = threading.Event()
    before, during = [0], [0]

    def count():
        while not done.is_set():
            during[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    before[0] = during[0]
    oflex.fwd(u, u, A, B, B, None, None, True, 1, True)
    after = during[0]
    done.set()
    counter.join()
    assert after - before[0] > 100


def test_results_do_not_depend_on_the_number_of_threads():
    net, (data,) = Net(), batches(1)
    data = data.repeat(1, 1, 100)
    count = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients(net, data))
    finally:
        torch.set_num_threads(count)
    assert equal(found[0], found[1]) and equal(found[0], found[2])


def test_the_number_of_threads_is_torchs(monkeypatch):
    from mambarun import _lib
    from mambarun.ops.causal_conv1d import FWD

    packed = []
    causal_conv1d_fwd(torch.ones(1, 4, 4), torch.ones(4, 2), None, False)
    monkeypatch.setattr(FWD, "_entry", lambda data: packed.append(data) or 0)
    count = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            causal_conv1d_fwd(torch.ones(1, 4, 4), torch.ones(4, 2), None, False)
    finally:
        torch.set_num_threads(count)
    offset = {path: at for path, at, _ in FWD.fields()}["call.threads"]
    found = [int.from_bytes(data[offset : offset + 4], "little") for data in packed]
    assert found == [1, 3] and _lib.CALL[5] == ("threads", "i")


# ---- processes --------------------------------------------------------------------


class Scanned(torch.utils.data.Dataset):
    """Items that a worker computes with our functions."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        torch.manual_seed(i)
        u = torch.randn(1, DIM, SEQLEN)
        A, B = -torch.ones(DIM, STATES), torch.ones(1, 1, STATES, SEQLEN)
        out = oflex.fwd(u, u, A, B, B, None, None, True, 1, True)[0]
        return causal_conv1d_fwd(out, torch.ones(DIM, 4), None, True)[0]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_of_a_data_loader(how):
    """The parent has used the library, with threads, before it forks."""
    assert torch.get_num_threads() >= 1
    expected = torch.stack([Scanned()[i] for i in range(8)])
    loader = torch.utils.data.DataLoader(
        Scanned(), batch_size=4, num_workers=2, multiprocessing_context=how
    )
    assert torch.equal(torch.cat(list(loader)), expected)


def test_a_fork_while_another_thread_scans():
    """The child has only the forking thread; the pool of the library is its own. (In
    such a child torch's own parallel loops may hang in libgomp: it uses none here.)"""
    context = torch.multiprocessing.get_context("fork")
    u = torch.randn(2, 64, 512)
    A, B = -torch.rand(64, 8), torch.randn(2, 1, 8, 512)
    stop = threading.Event()

    def scan():
        out = oflex.fwd(u, u, A, B, B, None, None, True, 1, True)[0]
        return out[-1, -1, -9:].tolist()

    def keep_on():
        while not stop.is_set():
            scan()

    def child(queue):
        torch.set_num_threads(2)
        queue.put(scan())

    expected = scan()
    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        for _ in range(5):
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,), daemon=True)
            process.start()
            process.join(60)
            if process.exitcode is None:
                process.kill()
            assert process.exitcode == 0
            assert queue.get() == expected
    finally:
        stop.set()
        thread.join()


def train(rank, address, results):
    """One of two processes: half of each batch, gradients averaged by DDP."""
    torch.distributed.init_process_group(
        "gloo", init_method=address, rank=rank, world_size=2
    )
    net = torch.nn.parallel.DistributedDataParallel(Net())
    found = []
    for batch in batches(3):
        net.zero_grad()
        net(batch[rank : rank + 1]).backward()
        found.append([p.grad.tolist() for p in net.parameters()])
    results[rank] = found
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no distributed"
)
def test_two_processes_train_together(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        address = f"file://{tmp_path}/meeting"
        torch.multiprocessing.spawn(train, (address, results), nprocs=2)
        first, second = results[0], results[1]
    assert first == second
    for batch, found in zip(batches(3), first):
        for gradient, wanted in zip(found, gradients(Net(), batch)):
            torch.testing.assert_close(
                torch.tensor(gradient), wanted, rtol=1e-4, atol=1e-6
            )


def test_one_warning_per_process(run):
    code = (
        "import torch, warnings\n"
        "from causal_conv1d_cuda import causal_conv1d_fwd as f\n"
        "seen = []\n"
        "warnings.simplefilter('always')\n"
        "warnings.showwarning = lambda text, kind, file, *rest, **more: (\n"
        "    seen.append((kind.__name__, file)), print(text))\n"
        "for _ in range(3): f(torch.ones(1, 4, 4), torch.ones(4, 2), None, False)\n"
        "print(seen)"
    )
    lines = run(code).stdout.splitlines()
    assert len(lines) == 2 and lines[1] == "[('RuntimeWarning', '<string>')]"
    assert "on the CPU" in lines[0] and "MAMBARUN_TRACE=0" in lines[0]
    assert run(code, MAMBARUN_TRACE="0").stdout == "[]\n"


def test_trace_1_says_what_is_opened(run):
    code = (
        "import torch\n"
        "from causal_conv1d_cuda import causal_conv1d_fwd as f\n"
        "f(torch.ones(1, 4, 4), torch.ones(4, 2), None, False)"
    )
    lines = run(code, MAMBARUN_TRACE="1").stderr.splitlines()
    opened = [line for line in lines if line.startswith("mambarun: opened ")]
    assert len(opened) == 1 and opened[0].endswith("libmambarun.so")
    assert any("cpu_" in line for line in lines)
    assert mambarun.preload().startswith("cpu_")
