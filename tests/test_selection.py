"""Exact thresholds: against sorting, on few scores with ties and on so many that sampling runs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import grouped

from synflow_lib.fast import selection
from synflow_lib.fast.selection import TIES, keep_cut, keep_largest, kth_smallest, tied


@pytest.fixture(params=["numpy", "another device"], autouse=True)
def kind(request, monkeypatch):
    """Both ways of selecting; that of other devices also runs on this one."""
    if request.param != "numpy":
        monkeypatch.setattr(selection, "_numpy_knows", lambda tensor: False)


# Few different values, so that most scores are tied; zeros of both signs and infinities among them.
VALUES = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, 2.0, -3.0, 5e-324, math.inf, -math.inf])
LARGE = 300_007  # above the size at which sampling starts


def stable(scores, kept):
    """The ``kept`` largest by a stable sort: among equal scores the first positions."""
    order = torch.argsort(scores, descending=True, stable=True)
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[order[:kept]] = True
    return mask


def rest_after_cut(scores, limit):
    """All but the longest prefix of the sorted scores whose sum is under ``limit``, in exact sums.

    Among equal scores the last positions go.
    """
    order = torch.argsort(scores, descending=True, stable=True).flip(0).tolist()
    values, mask, total = scores.tolist(), torch.ones(len(scores), dtype=torch.bool), 0.0
    for place in order:
        total += values[place]
        if not total < limit:
            break
        mask[place] = False
    return mask


@given(st.lists(VALUES, min_size=1, max_size=30), st.data())
def test_keep_largest_is_a_stable_sort(values, data):
    scores = torch.tensor(values, dtype=torch.float64)
    kept = data.draw(st.integers(0, len(values)))
    mask = keep_largest(scores, kept)
    assert int(mask.sum()) == kept
    assert torch.equal(mask, stable(scores, kept))


# Neighbours a third of ``within`` apart, at several sizes and of both signs, and gaps beyond it.
NEAR = st.builds(
    lambda size, steps: size * (1 + steps * 2**-42),
    st.sampled_from([0.0, 1e-300, 1.0, -1.0, 3.5, math.inf, -math.inf]),
    st.integers(0, 40),
)


@given(st.lists(NEAR, min_size=1, max_size=30), st.data())
def test_scores_that_rounding_cannot_tell_apart_go_by_position(values, data):
    scores = torch.tensor(values, dtype=torch.float64)
    kept = data.draw(st.integers(0, len(values)))
    mask = keep_largest(scores, kept, within=TIES)
    assert torch.equal(mask, grouped(values, kept, TIES))
    for value in {v for v in values if not math.isinf(v)}:
        low, high = tied(scores, value, TIES)
        own = grouped(values, int((scores >= low).sum()), TIES)
        assert torch.equal(own, scores >= low) and low <= value <= high


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 80), st.data())
def test_rounding_changes_neither_selection(values, limit, data):
    """Ties an ulp or a few apart, as another processor might have them: the same masks."""
    exact = torch.tensor(values, dtype=torch.float64)
    errors = st.lists(st.integers(-40, 40), min_size=len(values), max_size=len(values))
    rounded = exact * (1 + torch.tensor(data.draw(errors), dtype=torch.float64) * 2**-52)
    limit = limit * (1 - 1e-9)  # as the cut schedule has it: no sum is meant to reach it exactly
    for kept in range(len(values) + 1):
        one, two = (keep_largest(s, kept, within=TIES) for s in (exact, rounded))
        assert torch.equal(one, two)
    assert torch.equal(keep_cut(exact, limit), keep_cut(rounded, limit, within=TIES))


def test_without_the_width_rounding_decides():
    """The negative control of the test above."""
    scores = torch.tensor([1.0, 1.0 + 2**-52], dtype=torch.float64)
    assert keep_largest(scores, 1).tolist() == [False, True]
    assert keep_largest(scores, 1, within=TIES).tolist() == [True, False]


def test_ties_at_either_edge_of_a_bracket_among_many():
    """Half of 300,007 scores are 1 up to rounding; wherever the count falls, position decides."""
    generator = torch.Generator().manual_seed(4)
    exact = torch.rand(LARGE, generator=generator, dtype=torch.float64) * 2
    exact[torch.rand(LARGE, generator=generator) < 0.5] = 1.0
    noise = torch.randint(-30, 31, (LARGE,), generator=generator).double() * 2**-52
    rounded = exact * (1 + noise)
    above, ties = int((exact > 1).sum()), int((exact == 1).sum())
    for kept in (above - 1, above, above + 1, above + ties // 2, above + ties, above + ties + 1):
        expected = keep_largest(exact, kept)
        assert torch.equal(keep_largest(rounded, kept, within=TIES), expected), kept
    for limit in (
        1000.0,
        float(exact[exact < 1].sum()) + 0.5,
        float(exact[exact <= 1].sum()) - 0.5,
    ):
        assert torch.equal(keep_cut(rounded, limit, within=TIES), keep_cut(exact, limit)), limit


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 80))
def test_keep_cut_is_the_longest_prefix_under_the_limit(values, limit):
    scores = torch.tensor(values, dtype=torch.float64)
    mask = keep_cut(scores, limit)
    assert torch.equal(mask, rest_after_cut(scores, limit))
    assert float(scores[~mask].sum()) < limit or mask.all()


def test_keep_cut_stays_strictly_under_the_limit():
    scores = torch.tensor([1.0, 2.0, 3.0])
    assert keep_cut(scores, 3.0).tolist() == [False, True, True]
    assert keep_cut(scores, 3.0000001).tolist() == [False, False, True]
    assert keep_cut(scores, 1.0).tolist() == [True, True, True]
    assert keep_cut(scores, 0.0).tolist() == [True, True, True]
    assert keep_cut(torch.zeros(3), 0.0).tolist() == [True, True, True]
    assert keep_cut(torch.zeros(3), 1e-9).tolist() == [False, False, False]


def distribution(name, size, generator):
    uniform = torch.rand(size, generator=generator, dtype=torch.float64)
    number = torch.arange(size)
    if name == "constant":
        return torch.full((size,), 0.25).double()
    if name == "two values":
        return (uniform < 0.37).double()
    if name == "mostly zero":
        return torch.where(uniform < 0.98, 0.0, uniform)
    if name == "one giant":
        return torch.where(number == size // 2, 1e12, torch.floor(uniform * 4))
    if name == "rising":
        return number.double()
    if name == "falling":
        return number.flip(0).double()
    if name == "heavy tail":
        return torch.ceil(1.0 / (uniform + 1e-4))
    if name == "infinite":
        return torch.where(
            uniform < 0.3, torch.inf, torch.where(uniform > 0.6, -torch.inf, uniform)
        )
    if name == "integers":
        return torch.floor(uniform * 50)
    if name == "normal":
        return torch.randn(size, generator=generator, dtype=torch.float64)
    # What a sample of equally spaced places sees least of: everything lies between them.
    stride = selection._sorted_sample(number).diff()[0].item()
    if name == "missed by the sample":
        return torch.where(number % stride == 0, 0.0, 1.0 + torch.floor(uniform * 3))
    assert name == "only the sample"
    return torch.where(number % stride == 0, 1.0 + torch.floor(uniform * 3), 0.0)


NAMES = (
    "constant", "two values", "mostly zero", "one giant", "rising", "falling", "heavy tail",
    "infinite", "integers", "normal", "missed by the sample", "only the sample",
)  # fmt: skip


def test_sampling_runs_at_this_size():
    """Otherwise the tests below would compare torch with itself."""
    assert selection._sorted_sample(torch.rand(LARGE)) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_kth_smallest_is_torch_kthvalue(name, dtype):
    scores = distribution(name, LARGE, torch.Generator().manual_seed(0)).to(dtype)
    ranks = {1, 2, LARGE // 1000, LARGE // 3, LARGE // 2, LARGE - 100, LARGE - 1, LARGE}
    expected = scores.sort().values
    for rank in sorted(ranks):
        assert kth_smallest(scores, rank) == expected[rank - 1], (name, rank)


@pytest.mark.parametrize("name", NAMES)
def test_keep_largest_of_many_is_a_stable_sort(name):
    scores = distribution(name, LARGE, torch.Generator().manual_seed(1))
    order = torch.argsort(scores, descending=True, stable=True)
    for kept in (0, 1, 30, LARGE // 7, LARGE // 2, LARGE - 1, LARGE):
        expected = torch.zeros(LARGE, dtype=torch.bool)
        expected[order[:kept]] = True
        assert torch.equal(keep_largest(scores, kept), expected), (name, kept)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("infinite", "normal")])
def test_keep_cut_of_many_is_the_longest_prefix(name):
    scores = distribution(name, LARGE, torch.Generator().manual_seed(2))
    if name == "mostly zero":
        scores = torch.round(scores * 2**20) / 2**20  # sums stay exact, in any order
    order = torch.argsort(scores, descending=True, stable=True).flip(0)
    sums = scores[order].cumsum(0)
    total = float(sums[-1])
    for share in (0.0, 1e-4, 0.03, 0.4, 0.9, 1.0, 2.0):
        limit = share * total
        going = int((sums < limit).sum())
        expected = torch.ones(LARGE, dtype=torch.bool)
        expected[order[:going]] = False
        assert torch.equal(keep_cut(scores, limit), expected), (name, share)


@pytest.mark.parametrize("make", [torch.randn, torch.rand])
@pytest.mark.parametrize("size", [1000, LARGE])
def test_only_those_that_may_be_kept_are_looked_at(make, size):
    """As if the others were not there, whatever they score."""
    generator = torch.Generator().manual_seed(5)
    scores = make(size, generator=generator, dtype=torch.float64)
    for share in (0.9, 0.2, 0.001):
        among = torch.rand(size, generator=generator) < share
        able = int(among.sum())
        for kept in {k for k in (0, 1, able // 3, able - 1, able) if 0 <= k <= able}:
            expected = torch.zeros_like(among)
            expected[among] = keep_largest(scores[among], kept)
            assert torch.equal(keep_largest(scores, kept, among), expected)
        if make is torch.rand:
            for limit in (0.0, 0.1, float(scores[among].sum()) / 3, 1e9):
                expected = torch.zeros_like(among)
                expected[among] = keep_cut(scores[among], limit)
                assert torch.equal(keep_cut(scores, limit, among), expected)


def test_a_sample_that_lies_costs_time_and_no_exactness(monkeypatch):
    scores = torch.randn(LARGE, generator=torch.Generator().manual_seed(3)).abs()
    ordered = scores.sort().values
    for lie in (torch.full((32768,), 1e9), torch.full((32768,), -1e9), ordered[-32768:]):
        monkeypatch.setattr(selection, "_sorted_sample", lambda *_, lie=lie: lie.clone())
        assert kth_smallest(scores, 1000) == ordered[999]
        assert kth_smallest(scores, LARGE - 5) == ordered[LARGE - 6]
        limit = float(ordered.double().sum()) / 3
        going = int((ordered.double().cumsum(0) < limit).sum())
        assert int((~keep_cut(scores, limit)).sum()) == going


def test_scores_are_not_changed():
    scores = torch.randn(LARGE)
    copy = scores.clone()
    keep_largest(scores, 1000)
    keep_cut(scores.abs(), 1.0)
    assert torch.equal(scores, copy)
