"""Pruning in several threads of one process, beside forward passes and random numbers of others."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import assert_same, everything, images, mlp, narrow_resnet, seeded
from torch import nn

import synflow_lib as sf
from synflow_lib.fast.pieces import fixed_order
from synflow_lib.graphs import network
from synflow_lib.graphs.draws import draws
from synflow_lib.randomness import own_random_numbers

SECONDS = 60  # a deadlock fails instead of hanging


def with_dropout():
    net = seeded(lambda: nn.Sequential(*mlp(6, 12, 8), nn.Dropout(0.5), nn.Linear(8, 4)))
    net.input_shape = (6,)
    return net


def in_threads(jobs, threads=8):
    """What the jobs return, or the errors they raise."""

    def safely(job):
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return [done.result(SECONDS) for done in [pool.submit(safely, job) for job in jobs]]


class Beside:
    """A thread that repeats ``act`` until the block ends; ``counts`` and ``errors`` say how."""

    def __init__(self, act):
        self.act, self.count, self.errors, self.stop = act, 0, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            try:
                self.act()
            except Exception as error:
                self.errors.append(error)
            self.count += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


def test_masks_of_many_threads_are_those_of_one():
    nets = [narrow_resnet(stages=((3, 1),)), with_dropout()]
    work = [
        (net, method, images(net))
        for net in nets
        for method in ("synflow", "snip", "grasp", "magnitude", "random")
    ]
    jobs = [
        lambda net=net, method=method, batch=batch: sf.prune(
            net, method, 5, batch, iterations=4, schedule="linear"
        )
        for net, method, batch in work
    ]
    wanted = [job() for job in jobs]
    other, x = mlp(6, 9, 3), torch.randn(2, 6, dtype=torch.float64)
    y = other(x)

    def forward():
        assert torch.equal(other(x), y)
        time.sleep(1e-4)

    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with Beside(forward) as beside:
        found = in_threads(jobs * 2)
    pairs = zip(found, wanted * 2, strict=True)
    wrong = [mask for mask, want in pairs if not isinstance(mask, sf.Masks) or mask != want]
    print(f"{len(found)} masks in 8 threads, {len(wrong)} wrong; {beside.count} forwards beside,"
          f" {len(beside.errors)} failed")  # fmt: skip
    assert not wrong and not beside.errors and beside.count
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert nn.Module.__call__.__qualname__ == "Module._wrapped_call_impl"


def test_random_numbers_of_another_thread_go_on():
    net = narrow_resnet(stages=((3, 1),))
    batch = images(net)
    drawn, generator = [], torch.Generator().manual_seed(11)
    torch.manual_seed(11)

    def draw():
        drawn.append(torch.rand(3))
        time.sleep(1e-4)  # leaves the interpreter to the others

    with Beside(draw) as beside:
        for method in ("synflow", "snip", "grasp", "magnitude", "random"):
            sf.prune(net, method, 5, batch, iterations=2, schedule="linear")
            sf.is_collapsed(net, sf.Masks.ones(net), "path")
    assert not beside.errors
    wanted = torch.stack([torch.rand(3, generator=generator) for _ in drawn])
    print(f"{len(drawn)} draws beside pruning, all those of an undisturbed generator")
    assert torch.equal(torch.stack(drawn), wanted)


class Meanwhile(nn.Module):
    """Its forward waits for a forward pass of another network in another thread."""

    def __init__(self, other):
        super().__init__()
        self.fc, self.other, self.errors = nn.Linear(2, 2), [other], []

    def elsewhere(self):
        try:
            self.other[0](torch.zeros(1, 2))
        except Exception as error:
            self.errors.append(error)

    def forward(self, x):
        thread = threading.Thread(target=self.elsewhere)
        thread.start()
        thread.join()
        return self.fc(x)

    def __deepcopy__(self, memo):  # of its layer; what it looks at is one
        twin = copy.copy(self)
        twin._modules = {"fc": copy.deepcopy(self.fc, memo)}
        return twin


def test_a_forward_during_tracing_is_not_traced():
    other = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net = Meanwhile(other)
    traced = network.trace(net)
    assert not net.errors and [n.op for n in traced.graph.nodes][1:2] == ["call_module"]
    torch.fx.symbolic_trace(net)  # the control: what torch.fx itself does to that thread
    assert net.errors


def test_tracing_gives_the_graph_of_torch_fx():
    import networks

    for make in (networks.Mobile, networks.Shared, networks.Tied, networks.LongBranch):
        net = seeded(make).eval()
        mine, theirs = network.trace(net).graph, torch.fx.symbolic_trace(net).graph
        assert str(mine) == str(theirs)
    assert type(net) is networks.LongBranch


@pytest.mark.parametrize("block", [own_random_numbers, fixed_order])
def test_blocks_that_change_the_process_wait_for_each_other(block):
    inside, most, lock = [0], [0], threading.Lock()

    def enter():
        with block(), block():  # a thread does not wait for itself
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.002)
            with lock:
                inside[0] -= 1

    assert not [r for r in in_threads([enter] * 12) if r]
    assert most[0] == 1


class Draws(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.fc, self.draw = nn.Linear(4, 3), draw

    def forward(self, x):
        return self.fc(x) + self.draw(x)


DRAWS = {
    "torch.rand": lambda x: torch.rand(3),
    "normal_": lambda x: torch.empty(3).normal_(),
    "dropout": lambda x: nn.functional.dropout(torch.ones(3)),
    "dropout of the input": lambda x: nn.functional.dropout(x[:, :3]),
    "rand_like": lambda x: torch.rand_like(x)[:, :3],
    "random": lambda x: __import__("random").random(),
    "numpy": lambda x: float(__import__("numpy").random.rand()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_networks_that_draw_leave_no_trace(name):
    net = Draws(DRAWS[name])
    batch = torch.randn(6, 4), torch.arange(6) % 3
    before = everything(net)
    network.trace(net)
    for mode in ("train", "eval"):
        masks = [sf.prune(net, "snip", 2, batch, seed=1, mode=mode) for _ in range(2)]
        assert_same(before, everything(net))
        assert masks[0] == masks[1] and draws(net, training=mode == "train")


def test_networks_that_draw_nothing_are_known():
    for net in (narrow_resnet(), mlp(3, 4, 2, batch_norm=True)):
        assert not draws(net, training=True) and not draws(net, training=False)
    assert draws(with_dropout(), training=True)
    assert not draws(with_dropout(), training=False)


def test_networks_that_draw_in_every_pass_have_no_paths():
    for draw in (
        lambda x: torch.rand_like(x)[:, :3],
        lambda x: torch.zeros_like(x[:, :3]).normal_(),
    ):
        net = Draws(draw)
        net.input_shape = (4,)
        before = everything(net)
        for call in (
            lambda net=net: sf.score(net, "synflow"),
            lambda net=net: sf.is_collapsed(net, sf.Masks.ones(net), "path"),
        ):
            with pytest.raises(ValueError, match="do not know (rand|normal)"):
                call()
            assert_same(before, everything(net))


def test_operations_are_counted_beside_other_threads():
    nets = [
        nn.Sequential(
            nn.Linear(8 * i, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 16)), nn.Linear(16, 10)
        )
        for i in (1, 2, 3, 4)
    ]
    right = [[128 * i, 256, 160] for i in (1, 2, 3, 4)]

    def count(net):
        return sf.surgery.flops(net)["dense"].tolist()

    assert in_threads([lambda net=net: count(net) for net in nets * 20]) == right * 20
    stop, x = threading.Event(), torch.randn(16, 8)

    def forward():
        while not stop.is_set():
            nets[0](x)

    other = threading.Thread(target=forward)
    other.start()
    try:
        assert [count(nets[3]) for _ in range(20)] == [right[3]] * 20
    finally:
        stop.set()
        other.join()
