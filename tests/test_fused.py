"""The fast path's arithmetic: layers that write their own scores, in pieces, against autograd."""

import threading

import pytest
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.fast import fused, pieces


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(fused, "_LARGE", 1)
    monkeypatch.setattr(fused, "_MANY", 1)


LAYERS = {
    "linear": (nn.Linear(7, 5), (1, 7)),
    "linear, one output": (nn.Linear(7, 1), (1, 7)),
    "linear, three inputs": (nn.Linear(7, 5), (3, 7)),
    "small map": (nn.Conv2d(3, 6, 3, padding=1), (1, 3, 4, 4)),
    "stride, no padding": (nn.Conv2d(3, 6, 3, stride=2), (1, 3, 9, 7)),
    "dilated, oblong": (nn.Conv2d(2, 5, (3, 1), dilation=(2, 1), padding=(2, 0)), (1, 2, 8, 5)),
    "large map": (nn.Conv2d(3, 70, 3, padding=1), (1, 3, 20, 20)),
    "large map, stride": (nn.Conv2d(4, 33, 5, stride=3, padding=2), (1, 4, 40, 31)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("onward", [True, False])
def test_outputs_gradients_and_scores_are_those_of_autograd(name, onward):
    layer, shape = LAYERS[name]
    layer = layer.double()
    with torch.no_grad():
        layer.bias.zero_()
    x = torch.rand(shape, dtype=torch.float64, requires_grad=onward)
    expected = layer(x)
    weights = torch.rand_like(expected)
    grads = torch.autograd.grad((expected * weights).sum(), [layer.weight, *[x] * onward])

    scores = torch.full_like(layer.weight, torch.nan)
    run = fused.fused(layer, lambda: scores)
    with pieces.fixed_order():
        found = run(x)
        back = torch.autograd.grad(
            (found * weights).sum(), [layer.weight, *[x] * onward], allow_unused=True
        )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert back[0] is None, "the weight's gradient must end as scores"
    torch.testing.assert_close(scores, grads[0] * layer.weight.detach(), rtol=1e-12, atol=1e-12)
    if onward:
        torch.testing.assert_close(back[1], grads[1], rtol=1e-12, atol=1e-12)


def test_the_large_maps_above_are_convolutions_and_the_small_ones_products():
    kinds = {n: len(s) == 4 and fused.works_as_product(m, torch.rand(s)) for n, (m, s) in
             LAYERS.items()}  # fmt: skip
    assert kinds["small map"] and not kinds["large map"] and not kinds["large map, stride"]


@pytest.mark.parametrize("other", [nn.Conv1d(2, 3, 3), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU()])
def test_what_is_not_known_exactly_is_left_to_autograd(other):
    assert fused.fused(other, lambda: None) is None


def test_small_layers_give_autograd_a_gradient(monkeypatch):
    monkeypatch.setattr(fused, "_LARGE", 1 << 18)
    layer, scores = nn.Linear(3, 2, bias=False), torch.zeros(2, 3)
    out = fused.fused(layer, lambda: scores)(torch.ones(1, 3))
    assert torch.autograd.grad(out.sum(), layer.weight)[0].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert not scores.any()


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 8])
def test_pieces_come_back_in_order_on_any_number_of_threads(threads, count):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pieces.fixed_order():
            assert torch.get_num_threads() == 1
            assert pieces.in_pieces(lambda i: i * i, range(count)) == [i * i for i in range(count)]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_pieces_really_run_on_several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meet = threading.Barrier(2, timeout=20)  # breaks unless two threads are inside at once
    try:
        with pieces.fixed_order(), pieces.fixed_order():
            names = pieces.in_pieces(lambda _: meet.wait() >= 0 and threading.get_ident(), [0, 1])
    finally:
        torch.set_num_threads(before)
    assert len(set(names)) == 2


def test_an_error_in_a_piece_is_raised():
    with pieces.fixed_order(), pytest.raises(ZeroDivisionError):
        pieces.in_pieces(lambda i: 1 / i, [1, 0])


@pytest.mark.in_turn
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_do_not_depend_on_threads_where_layers_run_in_pieces(dtype):
    net = sf.models.vgg11(seed=0).to(dtype)
    before, masks = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            masks.append(sf.prune(net, "synflow", 100, iterations=3))
    finally:
        torch.set_num_threads(before)
    assert masks[0] == masks[1] == masks[2]


def test_scores_that_are_not_written_would_be_seen(monkeypatch):
    """The negative control: with the last unit's scores left out the masks are others."""
    net = sf.models.fc(seed=0).double()
    good = sf.prune(net, "synflow", 20, iterations=5)
    whole = fused._Product.backward

    def lossy(self, *args):
        back = whole(self, *args)
        self.scores[-1] = 0
        return back

    monkeypatch.setattr(fused._Product, "backward", lossy)
    assert sf.prune(net, "synflow", 20, iterations=5) != good
