"""Maps without the rows that repeat: where they repeat, and that no score changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import synflow_lib as sf
from synflow_lib.fast import borders
from synflow_lib.fast.borders import Axis
from synflow_lib.fast.pieces import fixed_order
from synflow_lib.graphs.workspace import Context, Workspace, isolated
from synflow_lib.synflow import SynFlow

WINDOWS = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))


def synflow(net, fast, shape=None):
    """SynFlow's scores of all weights, and the shape of the image it gave to the network."""
    work = Workspace(net)
    with isolated(work.flat.device, 0), fixed_order():
        method = SynFlow(work, Context(input_shape=shape, fast=fast))
        return method.flat(), tuple(method.inflow.shape[1:])


def test_by_hand():
    image = Axis(8)
    assert image.spare == 7
    once = image.behind(kernel=3, stride=1, padding=1, dilation=1)
    assert once == Axis(8, 1, 1) and once.spare == 5
    halved = once.behind(kernel=2, stride=2, padding=0, dilation=1)
    assert halved == Axis(4, 1, 1) and halved.spare == 1
    # 0 1 2 3 4 5 6 7 padded by one, windows of three at every second: the last reads 5 6 7.
    assert once.behind(kernel=3, stride=2, padding=1, dilation=1) == Axis(4, 1, 1)
    assert Axis(7).behind(kernel=3, stride=2, padding=1, dilation=1) == Axis(4, 1, 1)
    assert Axis(5, 3, 3).spare == 0


def test_rows_repeat_the_inner_one_or_leave_it_out():
    axis = Axis(8, 2, 1)
    assert axis.rows(have=4, want=0) == [0, 1, 2, 2, 2, 2, 2, 3]
    assert axis.rows(have=4, want=2) == [0, 1, 2, 2, 2, 3]
    assert axis.rows(have=2, want=4) == [0, 1, 2, 5]
    assert axis.rows(have=3, want=3) == [0, 1, 2, 3, 4]


@given(st.integers(1, 40), st.lists(WINDOWS, min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_rows_said_to_be_equal_are_equal(length, windows, seed):
    """Against convolutions with random kernels, on a line of ones."""
    generator = torch.Generator().manual_seed(seed)
    axis, x = Axis(length), torch.ones(1, 1, length, dtype=torch.float64)
    for kernel, stride, padding, dilation in windows:
        if x.shape[2] + 2 * padding <= dilation * (kernel - 1):
            return
        weight = torch.rand(1, 1, kernel, generator=generator, dtype=torch.float64)
        x = nn.functional.conv1d(x, weight, None, stride, padding, dilation)
        axis = axis.behind(kernel, stride, padding, dilation)
        assert axis.length == x.shape[2]
        inner = x[0, 0, axis.first : axis.length - axis.last]
        torch.testing.assert_close(inner, inner[:1].expand_as(inner), rtol=1e-12, atol=0)


def conv(*args, **kw):
    return nn.Conv2d(*args, **kw, bias=False)


class Functional(nn.Module):
    """Functions that are not followed: their input must be whole."""

    input_shape = (2, 31, 23)

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = conv(2, 4, 3), conv(4, 3, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.first(x), 2).relu()
        x = self.second(nn.functional.interpolate(x, scale_factor=2))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, (1, 2)).flatten(1))


class Streams(nn.Module):
    """Sums of branches that look further than each other, and of maps of other sizes."""

    input_shape = (2, 40, 26)

    def __init__(self):
        super().__init__()
        self.near, self.far = conv(2, 4, 1), conv(2, 4, 5, padding=4, dilation=2)
        self.less, self.skip = conv(4, 4, 3, stride=2, padding=1), conv(4, 4, 1, stride=2)
        self.wide, self.pool = conv(4, 4, (1, 7), padding=(0, 3)), nn.MaxPool2d((3, 2), (3, 1))
        self.gate = conv(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.near(x) + self.far(x)
        x = self.pool(self.wide(self.less(x).relu() + self.skip(x)))
        x = x + self.gate(x.mean((2, 3), keepdim=True))
        return self.fc(x.mean((2, 3)))


class Volume(nn.Sequential):
    input_shape = (1, 9, 14, 11)

    def __init__(self):
        super().__init__(
            nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(3, 4, 2, 2),
            nn.AvgPool3d((1, 2, 1)), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip


class Line(nn.Sequential):
    input_shape = (2, 101)

    def __init__(self):
        super().__init__(
            nn.Conv1d(2, 4, 5, 2, 2), nn.BatchNorm1d(4), nn.AvgPool1d(3, padding=1),
            nn.Conv1d(4, 6, 3, padding=2, dilation=2), nn.MaxPool1d(2, ceil_mode=True),
            nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(12, 5),
        )  # fmt: skip


def named(name, **options):
    return lambda: sf.models.by_name(name, seed=0, **options)


NETS = {
    "vgg11 on 32": (named("vgg11"), (3, 3, 3)),
    "vgg11 on 64": (named("vgg11", input_size=64, num_classes=200), (3, 3, 3)),
    "resnet20": (named("resnet20"), (3, 15, 15)),
    "resnet18 on 64": (named("resnet18", input_size=64, num_classes=200), (3, 11, 11)),
    "resnet18 on 224": (named("resnet18", input_size=224, num_classes=10), None),
    "unknown functions": (Functional, (2, 31, 23)),
    "streams": (Streams, None),
    "volume": (Volume, None),
    "line": (Line, None),
}


@pytest.mark.in_turn
@pytest.mark.parametrize("name", NETS)
def test_scores_are_those_of_whole_maps(name):
    make, image = NETS[name]
    torch.manual_seed(0)
    net = make().double()
    expected, whole = synflow(net, fast=False)
    found, smaller = synflow(net, fast=True)
    assert whole == tuple(net.input_shape)
    if image is None:
        assert sum(smaller) < sum(whole)
    else:
        assert smaller == image
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_odd_sizes_of_images():
    net = nn.Sequential(
        conv(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), conv(3, 4, 3, 2, 1), conv(4, 2, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2),
    ).double()  # fmt: skip
    for height in range(9, 40):
        shape = (1, height, 50 - height)
        expected, _ = synflow(net, fast=False, shape=shape)
        found, smaller = synflow(net, fast=True, shape=shape)
        assert sum(smaller) < sum(shape)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_map_that_is_too_small_is_noticed(monkeypatch):
    """The control: were one row more left out, the scores would be others."""
    net = NETS["resnet20"][0]().double()
    expected, _ = synflow(net, fast=False)
    monkeypatch.setattr(
        borders.Axis, "spare", property(lambda a: max(0, a.length - a.first - a.last))
    )
    found, _ = synflow(net, fast=True)
    assert not torch.allclose(found, expected, rtol=1e-6, atol=0)
