"""Trajectories: nested, exact at every compression; the cut schedule reaches rho_max uncut."""

import functools
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    Dag,
    Dense,
    Mobile,
    Paths,
    Residual,
    Shared,
    Tied,
    fewest,
    images,
    mlp,
    narrow_resnet,
    narrow_vgg16,
    plain_scores,
    seeded,
    unchanged,
    with_shape,
)
from torch import nn

import synflow_lib as sf
from synflow_lib import pruning
from synflow_lib.trajectory import SURVIVED, Trajectory
from synflow_lib.values import kept_at

# ------------------------------------------------------------------------------ counts


@given(st.integers(1, 10**9), st.floats(1, 1e9))
def test_kept_is_python_rounding_of_the_quotient(total, compression):
    if compression <= total:
        assert kept_at(total, compression) == max(1, round(total / compression))


def test_kept_at_the_ends():
    assert kept_at(14_715_584, 1) == 14_715_584
    assert kept_at(14_715_584, 14_715_584) == 1
    assert kept_at(150_000_001, 150_000_001 / 3) == 3
    assert kept_at(10, np.float32(4.0)) == kept_at(10, torch.tensor(4.0)) == 2


# ------------------------------------------------------------------------------ one family


def order_of(path):
    """For every weight the number of weights that outlive it, from the masks alone."""
    alive = torch.zeros(path.total)
    for kept in range(path.counts[-1], path.total + 1):
        alive += torch.cat([mask.flatten() for mask in path.keeping(kept).values()])
    return alive


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("magnitude", {}),
        ("random", {"iterations": 4, "compression": 30.0}),
        ("synflow", {}),
        ("synflow", {"schedule": "exponential", "iterations": 7, "compression": 30.0}),
        ("synflow", {"schedule": "linear", "iterations": 3}),
    ],
)
@pytest.mark.parametrize("fill", [None, 1.0, 0.0])
def test_masks_of_a_trajectory_are_nested_and_exact_at_every_count(method, options, fill):
    net = mlp(5, 6, 4)
    if fill is not None:
        with torch.no_grad():
            net[0].weight.fill_(fill)
    path = sf.trajectory(net, method, **options)
    before = None
    for kept in range(path.counts[-1], path.total + 1):
        masks = path.keeping(kept)
        assert masks.kept == kept
        if before is not None:
            assert all((before[name] <= masks[name]).all() for name in masks)
        before = masks
    # Every weight left at some moment, all at different ones.
    assert sorted(order_of(path).tolist())[: path.total - path.counts[-1]] == list(
        range(1, path.total - path.counts[-1] + 1)
    )


@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp"])
def test_one_shot_trajectory_holds_what_prune_gives_at_any_compression(method):
    net = narrow_resnet()
    batch = images(net)
    path = sf.trajectory(net, method, batch)
    for compression in (1, 1.5, 10, 333.3, path.total):
        assert path.at(compression) == sf.prune(net, method, compression, batch)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_rank_of_a_weight_is_the_first_mask_that_keeps_it(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    total = sum(sizes)
    layout = {str(number): torch.Size([size]) for number, size in enumerate(sizes)}
    # With errors of rounding, of which chains are made that reach further than ``within``.
    values = st.builds(lambda n, e: n * (1 + e * 2**-41), st.integers(0, 3), st.integers(0, 6))
    score = data.draw(st.lists(values, min_size=total, max_size=total))
    score, within = (
        torch.tensor(score, dtype=torch.float64),
        data.draw(st.sampled_from([0.0, 1e-12])),
    )
    if data.draw(st.booleans()):
        once = torch.ones(total, dtype=torch.int32)
        path = Trajectory(layout, once, score, [total, 0], pd.DataFrame(), within)
    else:  # several iterations, some weights surviving all of them
        iteration = data.draw(st.lists(st.integers(1, 3), min_size=total, max_size=total))
        iteration = torch.tensor(iteration).sort().values
        counts = [total - int((iteration <= number).sum()) for number in range(3)]
        survive = iteration == 3
        path = Trajectory(
            layout,
            iteration.masked_fill(survive, SURVIVED).int(),
            score.masked_fill(survive, torch.inf),
            counts,
            pd.DataFrame(),
            within,
        )
    least = path.counts[-1]
    kept = {
        count: torch.cat([mask.flatten() for mask in path.keeping(count).values()])
        for count in range(max(1, least), total + 1)
    }
    for few, more in itertools.pairwise(kept.values()):
        assert (few <= more).all(), "nested"
    for place in range(total):
        first = min(count for count, mask in kept.items() if mask[place])
        assert max(1, path.rank(place)) == first
    ends = np.cumsum(sizes)
    for start, end, last in zip(ends - sizes, ends, path.lasts(), strict=True):
        assert path.rank(last) == min(path.rank(place) for place in range(start, end))
    assert path.last_of_each_layer() == max(path.rank(last) for last in path.lasts())


def test_a_trajectory_with_a_fixed_schedule_ends_where_prune_ends():
    net = narrow_resnet()
    for schedule in ("exponential", "linear"):
        options = {"schedule": schedule, "iterations": 9}
        path = sf.trajectory(net, "synflow", compression=50, **options)
        assert path.at(50) == sf.prune(net, "synflow", 50, **options)
        assert path.max_compression == path.total / round(path.total / 50)


def test_the_cut_schedule_of_prune_is_the_trajectory():
    net = narrow_resnet()
    path = sf.trajectory(net, schedule="cut")
    for compression in (2.0, 20.0, path.max_compression):
        masks = sf.prune(net, "synflow", compression, schedule="cut")
        assert dict(masks.table()["kept"]) == dict(path.at(compression).table()["kept"])
        assert bool(masks == path.at(compression)), compression
    part = sf.trajectory(net, compression=20.0)
    assert part.max_compression == part.total / kept_at(part.total, 20.0)
    assert bool(part.at(20.0) == path.at(20.0))


def test_history_tells_what_was_removed():
    net = narrow_vgg16()
    path = sf.trajectory(net)
    history = path.history
    assert list(history.columns) == [
        "iteration", "kept", "compression", "prune_size", "cut_size", "ratio",
    ]  # fmt: skip
    assert history["iteration"].tolist() == list(range(1, len(history) + 1))
    assert history["kept"].tolist() == path.counts[1:]
    assert history["kept"].is_monotonic_decreasing and history["kept"].is_unique
    np.testing.assert_allclose(history["compression"], path.total / history["kept"])
    np.testing.assert_allclose(history["ratio"], history["prune_size"] / history["cut_size"])
    assert (history["ratio"] < 1).all()  # Theorem 3's condition
    # The first row against scores of our own: the smallest cut is any layer, a chain conserves.
    scores = plain_scores(net, net.input_shape)
    flat = torch.cat([s.flatten() for s in scores.values()])
    removed = ~torch.cat([mask.flatten() for mask in path.keeping(path.counts[1]).values()])
    ratio = float(flat[removed].sum() / scores["0.weight"].sum())
    assert history["ratio"][0] == pytest.approx(ratio, rel=1e-9)
    assert flat[removed].max() <= flat[~removed].min()


@pytest.mark.parametrize("make", [narrow_vgg16, narrow_resnet])
def test_a_fixed_schedule_runs_on_when_it_has_collapsed(make):
    """Everything scores zero then: exact counts and the order of position are what is left."""
    net = make(seed=2)
    path = sf.trajectory(net, schedule="linear", iterations=4, compression=500)
    total = path.total
    assert path.counts[-1] == round(total / 500)
    assert path.at(500).kept == path.counts[-1]
    path = sf.trajectory(net, schedule="exponential", iterations=20, compression=total)
    assert path.counts[-1] == path.at(total).kept == 1
    assert len(path.history) == len(path.counts) - 1


def test_the_cut_schedule_watches_the_smallest_cut_of_other_scores_too():
    """Magnitude is not conserved: its smallest layer sum is the cut, and no layer goes whole."""
    net = mlp(5, 6, 4)
    path = sf.trajectory(net, "magnitude", schedule="cut")
    sums = [float(weight.detach().abs().sum()) for weight in net.parameters()]
    first = path.history.iloc[0]
    assert first["cut_size"] == pytest.approx(min(sums), rel=1e-12)
    assert 0 < first["prune_size"] < min(sums)
    assert path.keeping(path.counts[-1]).empty_layers() == []  # never a whole layer
    net = seeded(Residual)
    scores = {name: float(p.detach().abs().sum()) for name, p in sf.prunable(net).items()}
    a, shortcut, b, head = (scores[f"{n}.weight"] for n in ("a", "shortcut", "b", "head"))
    first = sf.trajectory(net, "magnitude", schedule="cut").history.iloc[0]
    assert first["cut_size"] == pytest.approx(min(a + shortcut, b + shortcut, head), rel=1e-12)


def test_beyond_the_end_of_a_run_says_where_it_ended():
    path = sf.trajectory(mlp(3, 4, 2))
    with pytest.raises(ValueError, match=r"would keep 1 weights; .*ends with 2 \(compression 10\)"):
        path.at(20)
    for kept in (1, 21, -1):
        with pytest.raises(ValueError, match=f"kept={kept} weights asked for"):
            path.keeping(kept)


def test_the_cut_schedule_refuses_negative_scores_and_iterations():
    net = mlp(3, 4, 2)
    with pytest.raises(ValueError, match="gave negative scores; schedule='cut' needs positive"):
        sf.trajectory(net, "signed_snip", images(net), schedule="cut")
    with pytest.raises(ValueError, match="'cut' finds its own number of iterations"):
        sf.trajectory(net, schedule="cut", iterations=5)
    net, keep = Dag([[(0, True), (0, True)]], 2), ["layers.0to1n0", "head"]
    with pytest.raises(ValueError, match="keep= leaves a dense layer in every cut"):
        sf.trajectory(net, "magnitude", schedule="cut", keep=keep)
    assert sf.trajectory(net, keep=keep).counts[-1] == 1  # R bounds it without any cut


def test_synflows_cut_schedule_asks_for_no_law_of_units():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    path = sf.trajectory(net, schedule="cut")
    assert path.counts[-1] == 2 and not sf.is_collapsed(net, path.keeping(2), criterion="path")
    with pytest.raises(ValueError, match="no conservation law for 1, a LayerNorm"):
        sf.trajectory(net, "magnitude", schedule="cut")


def test_under_inference_mode_as_well():
    net = mlp(3, 4, 2)
    expected = sf.trajectory(net).counts
    with torch.inference_mode():
        assert sf.trajectory(net).counts == expected
        assert sf.trajectory(net, "magnitude").counts == [20, 0]


# ------------------------------------------------------------------------------ last of each layer


@st.composite
def trajectories(draw):
    """Any order of removal, with ties in iteration and score."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    iterations = draw(st.integers(1, 3))
    total = sum(sizes)
    when = draw(st.lists(st.integers(1, iterations + 1), min_size=total, max_size=total))
    score = draw(
        st.lists(
            st.sampled_from([0.0, 1.0, 1.0 + 2**-50, 2.0, torch.inf]),
            min_size=total,
            max_size=total,
        )
    )
    when = torch.tensor([w if w <= iterations else SURVIVED for w in when], dtype=torch.int32)
    counts = [total] + [int((when > t).sum()) for t in range(1, iterations + 1)]
    layout = {f"{number}.weight": torch.Size([size]) for number, size in enumerate(sizes)}
    within = draw(st.sampled_from([0.0, 1e-12]))
    score = torch.tensor(score, dtype=torch.float64)
    return Trajectory(layout, when, score, counts, None, within)


@settings(max_examples=300)
@given(trajectories())
def test_last_of_each_layer_is_the_smallest_count_without_an_empty_layer(path):
    alive = [
        kept
        for kept in range(path.counts[-1], path.total + 1)
        if not path.keeping(kept).empty_layers()
    ]
    assert path.last_of_each_layer() == min(alive)


# ------------------------------------------------------------------------------ Theorem 3


@st.composite
def chains(draw):
    """Chains of random widths, Linear or convolution, some weights zero or tied, none dead."""
    widths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=6))
    seed = draw(st.integers(0, 2**16))
    if draw(st.booleans()):
        net = with_shape(mlp(*widths, bias=True, batch_norm=draw(st.booleans()), seed=seed),
                         (widths[0],))  # fmt: skip
    else:
        parts = []
        for n_in, n_out in zip(widths, widths[1:], strict=False):
            size, stride = draw(st.sampled_from([(1, 1), (3, 1), (3, 2), (2, 1)]))
            parts += [nn.Conv2d(n_in, n_out, size, stride, padding=1), nn.ReLU()]
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 3)]
        net = with_shape(seeded(lambda: nn.Sequential(*parts), seed), (widths[0], 5, 5))
    kind = draw(st.sampled_from(["normal", "ones", "integers", "spread"]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in sf.prunable(net).values():
            if kind == "ones":
                weight.fill_(1.0)
            elif kind == "integers":
                weight.round_()
                weight.view(-1)[0] = 1.0
            elif kind == "spread":  # scores over many orders of magnitude
                weight.mul_(torch.exp(8 * torch.randn(weight.shape, generator=generator)))
    return net.to(draw(st.sampled_from([torch.float32, torch.float64])))


@pytest.mark.in_turn
@settings(max_examples=60, deadline=None)
@given(chains())
def test_chains_end_with_exactly_one_weight_in_every_layer(net):
    path = sf.trajectory(net)
    probe = sf.PathProbe(net)
    layers = len(path.layout)
    assert path.counts[-1] == layers
    assert path.max_compression == sf.max_compression(net) == path.total / layers
    assert path.at(path.max_compression).table()["kept"].tolist() == [1] * layers
    assert path.last_of_each_layer() == layers
    for kept in path.counts:
        assert probe.connected(path.keeping(kept))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_chains(dtype):
    for widths in [(1, 1, 1, 1), (50, 1, 50, 1, 50), (1, 200, 1), (300, 2, 300), (2,) * 40]:
        net = mlp(*widths, dtype=dtype)
        assert sf.trajectory(net).counts[-1] == len(widths) - 1


@pytest.mark.in_turn
def test_vgg11_goes_to_rho_max_without_an_empty_layer():
    net = sf.models.vgg11(seed=0).double()
    path = sf.trajectory(net)
    assert path.counts[-1] == 9
    assert path.max_compression == 9_222_848 / 9
    for compression in path.history["compression"]:
        assert path.at(compression).empty_layers() == []
    assert path.at(9_222_848 / 9).table()["kept"].tolist() == [1] * 9
    # ... nor at any compression in between
    assert path.last_of_each_layer() == 9
    assert (path.history["ratio"] < 1).all()


@pytest.mark.in_turn
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resnet20_is_never_disconnected_up_to_rho_max_by_path(dtype):
    net = sf.models.resnet20(seed=0).to(dtype)
    path, probe = sf.trajectory(net), sf.PathProbe(net)
    assert path.max_compression == sf.max_compression(net, "path") == 270_896 / 4
    for kept in path.counts:
        assert probe.connected(path.keeping(kept))
    last = path.at(path.max_compression)
    assert [name for name in last if last[name].any()] == [
        "conv1.weight", "layer2.0.downsample.0.weight", "layer3.0.downsample.0.weight", "fc.weight",
    ]  # fmt: skip


@st.composite
def residual_networks(draw):
    """Random sums of identities and Linear layers; the last node always depends on the input."""
    plan = []
    for target in range(1, draw(st.integers(1, 4)) + 1):
        sources = draw(
            st.lists(st.tuples(st.integers(0, target - 1), st.booleans()), min_size=1, max_size=3)
        )
        plan.append(sources)
    net = seeded(lambda: Dag(plan, draw(st.integers(1, 4))), draw(st.integers(0, 2**16)))
    if draw(st.booleans()):
        with torch.no_grad():
            for weight in net.parameters():
                weight.fill_(1.0)
    return net


@pytest.mark.in_turn
@settings(max_examples=60, deadline=None)
@given(residual_networks())
def test_residual_networks_end_with_the_fewest_weights_that_connect(net):
    paths = Paths(net, net.input_shape)
    path = sf.trajectory(net)
    used = {name for name, mask in paths.on_path(sf.Masks.ones(net)).items() if mask.any()}
    assert "head.weight" in used
    assert path.counts[-1] == fewest(paths)
    assert path.max_compression == sf.max_compression(net, "path")
    for kept in path.counts:
        assert paths.connected(path.keeping(kept))


@settings(max_examples=40, deadline=None)
@given(residual_networks(), st.data())
def test_dead_branches_neither_stop_nor_disconnect_the_run(net, data):
    """Layers that are zero from the start, as after an earlier pruning, maybe those of the
    shortest way; the run still goes on to one single path."""
    weights = list(sf.prunable(net).values())
    with torch.no_grad():
        for weight in weights:
            if data.draw(st.booleans()):
                weight.zero_()
        net.head.weight.view(-1)[-1] = 0.0  # zeros in part: pruned, and not initialized so
    alive = {name: weight != 0 for name, weight in sf.prunable(net).items()}
    paths = Paths(net, net.input_shape)
    if not paths.connected(alive):
        return
    path = sf.trajectory(net)
    for kept in path.counts:
        masks = {name: mask & alive[name] for name, mask in path.keeping(kept).items()}
        assert paths.connected(masks)
    last = path.keeping(path.counts[-1])
    on_path = paths.on_path(masks)
    assert all(torch.equal(last[name], on_path[name]) for name in last)


@pytest.mark.in_turn
@pytest.mark.parametrize("make", [Residual, Dense, Mobile, Shared, Tied, narrow_resnet])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_networks_are_never_disconnected(make, seed, dtype):
    net = (make(seed=seed) if make is narrow_resnet else seeded(make, seed)).to(dtype)
    paths, path = Paths(net, net.input_shape), sf.trajectory(net)
    for kept in range(path.counts[-1], min(path.total, path.counts[-1] + 60)):
        assert paths.connected(path.keeping(kept))
    for kept in path.counts:
        assert paths.connected(path.keeping(kept))
    if make not in (Shared, Tied):  # there a weight may serve twice, and rho_max is only a bound
        assert path.max_compression == sf.max_compression(net, "path")
    else:
        assert path.max_compression >= path.total / fewest(paths)


@pytest.mark.parametrize("dead", ["shortcut", "a", "b"])
def test_a_branch_that_is_dead_from_the_start_does_not_stop_the_run(dead):
    """As in a network that was pruned before: its shortcut may be empty already."""
    net = seeded(Residual)
    with torch.no_grad():
        net.get_parameter(f"{dead}.weight").zero_()
        other = net.get_parameter("b.weight" if dead == "a" else "a.weight")
        other.view(-1)[0] = 0.0  # zeros in part: pruned, and not initialized so
    path, paths = sf.trajectory(net), Paths(net, net.input_shape)
    weights = 3 if dead == "shortcut" else 2
    assert path.counts[-1] == weights
    for kept in path.counts:
        masks = path.keeping(kept)
        masks[f"{dead}.weight"].fill_(False)
        assert paths.connected(masks)


def test_a_network_that_is_dead_from_the_start_ends_at_once_or_says_so():
    net = mlp(4, 3, 2)
    with torch.no_grad():
        net[0].weight.zero_()
    try:
        path = sf.trajectory(net)
    except ValueError as error:
        assert "connect" in str(error) or "path" in str(error)
    else:
        assert path.counts[-1] >= 0
        assert path.keeping(path.counts[0]).kept == 18


@pytest.mark.parametrize("make", [narrow_vgg16, narrow_resnet])
def test_a_trajectory_changes_nothing_and_is_deterministic(make):
    net = make()
    with unchanged(net):
        one = sf.trajectory(net)
    torch.rand(5)
    two = sf.trajectory(net)
    assert one.counts == two.counts
    assert torch.equal(one.iteration, two.iteration) and torch.equal(one.score, two.score)


@settings(max_examples=20, deadline=None)
@given(residual_networks())
def test_leaving_dead_units_out_changes_no_trajectory(net):
    fast = sf.trajectory(net)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "Context", functools.partial(pruning.Context, fast=False))
        plain = sf.trajectory(net)
    # Scores of tied weights may round differently, so the counts and the end are compared.
    assert fast.counts[-1] == plain.counts[-1]


def test_biases_and_kept_layers_in_the_cut_schedule():
    net = mlp(6, 8, 5, 3, bias=True)
    path = sf.trajectory(net, bias=True)
    probe = sf.PathProbe(net)
    for kept in path.counts:
        assert probe.connected(path.keeping(kept))
    kept_dense = sf.trajectory(net, keep=["1"])
    assert list(kept_dense.layout) == ["0.weight", "2.weight"]
    assert kept_dense.counts[-1] == 2
    assert probe.connected(kept_dense.keeping(2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_scores_of_another_precision_than_the_network(dtype):
    net = mlp(6, 8, 5).float()

    def scorer(model, batch):
        return {name: w.detach().abs().to(dtype) for name, w in sf.prunable(model).items()}

    path = sf.trajectory(net, scorer)
    for compression in (1, 2, 7, 20):
        assert path.at(compression) == sf.prune(net, scorer, compression)
    assert path.score.dtype == torch.float64
    assert sf.critical_compression(net, scorer).kept == path.last_of_each_layer()


def test_r_needs_no_cuts_where_no_bias_is_pruned():
    """Asked to prune biases that the network does not have; a LayerNorm's cuts have no law."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.LayerNorm(6, elementwise_affine=False), nn.ReLU(),
        nn.Linear(6, 2, bias=False),
    )  # fmt: skip
    path = sf.trajectory(net, "synflow", bias=True)
    assert path.max_compression == sf.max_compression(net) == 18


def test_upside_down_the_same_weights_take_part():
    """Of a gate's weights neither SynFlow nor its reverse can say anything."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.input_shape = (3,)
            self.value, self.gate, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.value(x) * torch.sigmoid(self.gate(x)))

    with pytest.warns(UserWarning, match="gate"):
        found = sf.prune(Gated(), sf.inverted("synflow"), 3)
    assert list(found) == ["value.weight", "head.weight"]
