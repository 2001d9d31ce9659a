"""Checks of exercises: solutions pass, mistakes are named, and nothing that is returned breaks one.

That the solutions printed in the notebooks pass is tested with their copies, in test_classroom.
"""

import copy
import dataclasses
import functools
import inspect
import math
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction import intervals
from synflow_lib.reproduction.exercises.check import Check, number, returns, whole
from synflow_lib.reproduction.experiments import dead_inputs, dynamics, questions

CHECKS = {name: each for name, each in vars(sf.exercises).items() if isinstance(each, Check)}
every_check = pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))


def said(check, words):
    return f"exercise {check.number}: not yet, {words}"


def test_every_exercise_has_a_check():
    assert len(CHECKS) == 27 + 5  # of notebooks 00 to 08, and of the course lab


@every_check
def test_a_check_accepts_a_right_answer_and_an_empty_one_is_not_answered_yet(check):
    assert check(check.right) == f"exercise {check.number}: solved"
    assert check(None).startswith(f"exercise {check.number}: not answered yet")
    if callable(check.right):
        assert check(lambda *_: None) == check(None)


@every_check
def test_a_check_names_at_least_four_mistakes_and_never_another(check):
    assert len(check.mistakes) >= 4
    assert check.right not in check.mistakes.values()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for words, wrong in check.mistakes.items():
            assert check(wrong) == said(check, words) and "solved" not in words
        assert check(wrong) == said(check, words), "twice the same"


class Evil:
    """Says something wrong wherever it is asked."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __bool__(self):
        raise RuntimeError("truth")


ANYTHING = [
    True, False, 0, -1, 1, 1.5, float("nan"), float("inf"), 1j, "", "0.5", b"a", [], (), [None],
    [[1], [1, 2]], (1, 2, 3), (1, 2), ["a", "b"], {}, {"fc.weight": "much"}, {"a": None},
    {"a": [1, 2]}, {"0.weight": 1, "2.weight": torch.zeros(2)}, set(), object(), print, Evil(),
    Evil, 10**400, range(3), iter([1, 2]), ..., dict, np.float32(0.5), np.array(3),
    np.array([1, 2, 3]), np.array(["a"]), np.zeros((2, 0)), np.array(None), np.ma.masked,
    torch.tensor(0.5), torch.zeros(3), torch.ones(2, 2, requires_grad=True), torch.zeros(0),
    torch.tensor(True), torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), nn.Linear(2, 2),
    [torch.tensor(1.0), None, "a"], [torch.zeros(2), torch.zeros(3)],
    [torch.zeros(2, 2, dtype=torch.bool)] * 3, (np.zeros(2), "a"),
    pd.DataFrame(), pd.DataFrame({"a": ["x"]}), pd.DataFrame([[1, 2]], columns=["b", "b"]),
    pd.Series([1.0]), pd.Series(["x"]), pd.Timestamp("2020-01-01"), np.datetime64("2020-01-01"),
]  # fmt: skip


@pytest.mark.in_turn
@every_check
def test_a_check_takes_anything_for_an_answer_and_accepts_none_of_it(check):
    for value in ANYTHING:
        for answer in (lambda *_, value=value: value, value):
            found = check(answer)
            assert found.startswith((said(check, ""), f"exercise {check.number}: not answered"))


@every_check
def test_a_check_tells_what_an_answer_raises_and_on_which_input(check):
    def broken(*_):
        raise KeyError("density")

    if not callable(check.right):
        assert "expected True or False" in check(broken)
        return
    assert "your answer raises KeyError: 'density' on this input: (" in check(broken)
    assert "raises TypeError" in check(lambda: 1)  # takes no arguments
    assert "raises SystemExit: 3" in check(lambda *_: sys.exit(3))
    assert "raises RecursionError" in check(lambda *_: broken.__class__ and forever())
    assert "this is a str, no function" in check("weight[mask]")


def forever():
    return forever()


def solved(*_):
    raise ValueError(": solved")


@every_check
def test_an_answer_that_says_solved_is_not(check):
    for answer in (solved, lambda *_: ": solved", {": solved": 1}, lambda *_: {": solved": 1}):
        assert not check(answer).endswith(": solved")


@every_check
def test_a_check_leaves_the_random_numbers_of_others_alone(check):
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    check(check.right)
    check(lambda *_: torch.rand(3))
    assert torch.equal(state, torch.get_rng_state())
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


SCALARS = (np.float64, np.array, torch.tensor, lambda value: torch.tensor([value]))
MANY = (lambda value: value.numpy(), lambda value: value.tolist(), lambda value: value.double())


def in_other_clothes(value, one, many):
    """The same value, of other types of Python, numpy and torch."""
    if isinstance(value, (bool, int, float, np.number)):
        return np.bool_(value) if one is np.float64 and isinstance(value, bool) else one(value)
    if isinstance(value, torch.Tensor):
        if not value.ndim:
            return one(value.item())
        return value.tolist() if value.dtype == torch.bool else many(value)
    if isinstance(value, (list, tuple)):
        return [in_other_clothes(each, one, many) for each in value]
    if isinstance(value, dict):
        return {name: in_other_clothes(each, one, many) for name, each in value.items()}
    return value


@every_check
def test_numbers_of_numpy_and_torch_and_lists_are_as_good(check):
    if check in (sf.exercises.check_rescale, sf.exercises.check_objective):
        pytest.skip("works in place, or needs a gradient")
    for one, many in zip(SCALARS, [*MANY, *MANY], strict=False):
        if callable(check.right):
            answer = lambda *case, o=one, m=many: in_other_clothes(check.right(*case), o, m)  # noqa: E731
        else:
            answer = in_other_clothes(check.right, one, many)
        assert check(answer) == f"exercise {check.number}: solved", (one, many)


@torch.no_grad()
def ruin(value):
    """Changes all that can be changed in place."""
    if isinstance(value, nn.Module):
        ruin(dict(value.named_parameters()))
    elif isinstance(value, torch.Tensor):
        value.copy_(value.logical_not().flip(0) if value.dtype == torch.bool else 1 - 3 * value)
    elif isinstance(value, np.ndarray):
        value *= -3
    elif isinstance(value, pd.DataFrame):
        value[value.columns] = 0
    elif isinstance(value, (list, tuple, dict, sf.Masks)):
        for each in value.values() if hasattr(value, "values") else value:
            ruin(each)
        if isinstance(value, list):
            value.clear()


def detached(value):
    """A copy that shares no memory with it."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: detached(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [detached(each) for each in value]
    return copy.deepcopy(value)


def ruining(answer):
    """The answer, which then changes its arguments."""

    def changed(*case):
        value = detached(answer(*case))
        ruin(case)
        return value

    return changed


@every_check
def test_an_answer_that_changes_its_arguments_spoils_nothing_for_the_next_call(check):
    if not callable(check.right) or check in OF_THE_ARGUMENT_ITSELF:
        pytest.skip("asks for the change, or for a gradient through the argument")
    for told, words in (
        (sf.exercises.check_protect, "the scores given have changed; clone them first"),
        (sf.exercises.check_shuffle, "the argument was changed; work on a copy"),
    ):
        if check is told:
            assert check(ruining(check.right)) == said(check, words)
            return
    for answer in (check.right, *check.mistakes.values()):
        assert check(ruining(answer)) == check(answer)


OF_THE_ARGUMENT_ITSELF = (sf.exercises.check_rescale, sf.exercises.check_objective)


def test_an_objective_that_changes_the_labels_is_compared_with_cross_entropy_of_the_right_ones():
    def of_one_class(output, y):
        return nn.functional.cross_entropy(output, y.zero_())

    assert sf.exercises.check_objective(of_one_class) == "exercise 3: solved"
    assert "cross-entropy" in sf.exercises.check_objective(nn.functional.cross_entropy)


def test_a_mask_shuffled_in_place_is_told_so_and_an_array_given_twice_is_read_each_time():
    def in_place(mask):
        mask.copy_(mask.flatten()[torch.randperm(mask.numel())].view(mask.shape))
        return mask

    check, buffers = sf.exercises.check_shuffle, {}
    assert check(in_place) == said(check, "the argument was changed; work on a copy")

    def into_a_buffer(mask):
        return buffers.setdefault(mask.shape, mask.clone()).copy_(in_place(mask.clone()))

    assert check(into_a_buffer) == "exercise 1: solved"


def test_the_input_that_is_shown_is_the_one_that_was_given():
    def emptied(times):
        return times.clear() or times[0]

    told = sf.exercises.check_middle_half(emptied)
    assert "raises IndexError" in told and "on this input: ([" in told and "([],)" not in told


# ----------------------------------------------------- are the right answers right? Other ways


def fewest(scores):
    sizes = {name: tuple(score.shape) for name, score in scores.items()}
    layers = [nn.Linear(n, m) for m, n in sizes.values()]
    chain = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    return sf.critical_compression(chain, lambda *_: scores).kept


def joined(masks):
    layers = [nn.Linear(mask.shape[1], mask.shape[0]) for mask in masks]
    named = sf.Masks({f"{i}.weight": mask for i, mask in enumerate(masks)})
    return not sf.is_collapsed(nn.Sequential(*layers), named, criterion="path")


def even(size):
    """By bisection on the probability that none of `size` weights is kept."""
    low, high = 1.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - 1 / middle) ** size < 0.5 else (low, middle)
    return low


def law(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), getattr(nn, name)(), nn.Linear(8, 3)).double()
    batch = torch.randn(5, 6), torch.randint(0, 3, (5,))
    return sf.check_conservation(net, sf.score(net, "signed_snip", batch)).holds()


def grasp(net, batch):
    found = sf.score(net, "grasp", batch, loss=nn.functional.cross_entropy)
    return {name: each + found.correction[name] for name, each in found.items()}


def iterations(layers, compression):
    n = 1
    while not layers * (1 - compression ** (-1 / n)) < 1:
        n += 1
    return n


def one_by_one(scores, cut_size):
    """Removes the smallest that is left as long as the sum stays below the cut size."""
    gone = torch.zeros(len(scores), dtype=torch.bool)
    while not gone.all():
        smallest = scores.masked_fill(gone, torch.inf).argmin()
        if scores[gone].sum() + scores[smallest] >= cut_size:
            break
        gone[smallest] = True
    return gone


def scaled_flow(layers):
    x, exponent = torch.ones(layers[0].shape[1], dtype=torch.float64), 0
    for layer in layers:
        x = layer.abs() @ x
        _, shift = torch.frexp(x.max())
        x, exponent = torch.ldexp(x, -shift), exponent + int(shift)
    return math.log2(float(x.sum())) + exponent


def runs(methods, compressions, seeds):
    chosen = ("random", "magnitude", "snip", "grasp", "synflow")[:methods]
    alphas = tuple(range(compressions))
    panel = sf.grids.Panel("digits", "fc", sf.Recipe(1, 0.1), alphas, chosen)
    return len(sf.grids.Grid((panel,), seeds).runs())


def tidy(tables):
    rows = [
        (name, float(c), s, v)
        for name, table in tables.items()
        for (c, s), v in np.ndenumerate(table)
    ]
    return pd.DataFrame(rows, columns=["method", "compression", "seed", "accuracy"])


def paired(a, b):
    frame = tidy({"a": np.array([a]), "b": np.array([b])})
    return tuple(intervals.paired_difference(frame, "a", "b").iloc[0][["low", "high"]])


def from_inputs(first, second, a):
    layers = nn.Linear(5, 5, bias=False), nn.ReLU(), nn.Linear(5, 5, bias=False)
    net = nn.Sequential(*layers)
    net[0].weight.data, net[2].weight.data = first, second
    batch = a[None].repeat(4, 1), torch.zeros(4, dtype=torch.long)
    return list(sf.score(net, dead_inputs.RealInputSynFlow, batch).values())


def drawn(n1, s1, n2, s2):
    draws = [
        int((s2 * torch.randn(n2).abs() > (s1 * torch.randn(n1)).abs().max()).sum())
        for _ in range(301)
    ]
    return float(np.median(draws))


def probed(masks):
    layers = [nn.Linear(mask.shape[1], mask.shape[0]) for mask in masks]
    chain = nn.Sequential(*layers)
    named = sf.Masks({f"{i}.weight": mask for i, mask in enumerate(masks)})
    return list(sf.PathProbe(chain, (masks[0].shape[1],)).on_path(named).values())


OTHERWISE = {
    "largest_compression": sf.max_compression,
    "fewest_weights": fewest,
    "is_connected": joined,
    "even_odds": even,
    "prediction": {name: law(name) for name in ("LeakyReLU", "Tanh", "Identity", "Softplus")},
    "conserved_grasp": grasp,
    "safe_iterations": iterations,
    "may_go": one_by_one,
    "log2_flow": scaled_flow,
    "trainings": runs,
    "paired_interval": paired,
    "can_learn": lambda net, masks: not sf.is_collapsed(net, masks, criterion="path"),
    "clear_differences": lambda a, b: int(
        questions.against(tidy({"a": a, "b": b}), "b")["clear"].sum()
    ),
    "synflow_from": from_inputs,
    "left_in_second": drawn,
    "on_paths": probed,
    "shrinking": lambda rate, decay, steps: (1 - rate * decay) ** (2 * steps),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_another_way_to_the_answer_is_accepted(name):
    check = CHECKS[f"check_{name}"]
    assert check(OTHERWISE[name]) == f"exercise {check.number}: solved"


def test_training_moves_norms_as_the_two_exercises_on_it_say():
    x, y = sf.data.digits().scoring_batch(2)
    for rate, decay, steps in ((0.02, 0.0, 200), (0.002, 0.7, 200)):
        net = dynamics.xavier_(dynamics.tapered(widths=(80, 20)), 1.0, 0).double()
        before = dynamics.layer_norms(net)
        for _ in range(steps):
            loss = nn.functional.cross_entropy(net(x.double()), y)
            gradients = torch.autograd.grad(loss, net.parameters())
            for p, g in zip(net.parameters(), gradients, strict=True):
                p.data -= rate * (g + decay * p.data)
        after = dynamics.layer_norms(net)
        if decay:
            kept = float((after["difference"] / before["difference"]).iloc[1])
            right = sf.exercises.check_shrinking.right(rate, decay, steps)
            assert kept == pytest.approx(right, rel=0.02)
        else:
            gain = float((after["squared_norm"] - before["squared_norm"]).mean())
            sizes, norms = before["layer_size"].to_numpy(), before["squared_norm"].to_numpy()
            slope = sf.paper.loglog_slope(sizes, after["mean_squared_weight"])
            right = sf.exercises.check_predicted_slope.right(sizes, norms, gain)
            assert slope == pytest.approx(right, abs=0.01)


def test_masks_that_are_called_apart_join_nothing():
    for sizes in ((4, 6, 3, 10, 7), (6, 2, 5, 5, 2)):
        i, h, o, first, last = sizes
        a, b = sf.exercises.check_cut_apart.right(*sizes)
        chain = nn.Sequential(nn.Linear(i, h), nn.ReLU(), nn.Linear(h, o))
        assert sf.is_collapsed(chain, sf.Masks({"0.weight": a, "2.weight": b}), "path")
        assert (int(a.sum()), int(b.sum())) == (first, last)


# ------------------------------------------------------------------- found by readers, once


def test_a_step_that_reaches_the_cut_size_is_never_accepted():
    def may_go(scores, cut_size):
        ordered, order = scores.sort()
        gone = torch.zeros_like(scores, dtype=torch.bool)
        gone[order[ordered.cumsum(0) <= cut_size]] = True
        return gone

    assert "(`<=`)" in sf.exercises.check_may_go(may_go)


@pytest.mark.parametrize(
    "half, words",
    [
        (lambda d, n: 1.96 * d.std(-1, ddof=1) / n**0.5, "Student's t"),
        (lambda d, n: stats.t.ppf(0.975, n - 1) * d.std(-1, ddof=1) / n, "square root"),
    ],
)
def test_intervals_that_are_no_student_s_are_told_apart(half, words):
    def interval(a, b):
        d = np.array(a) - np.array(b)
        return d.mean() - half(d, len(d)), d.mean() + half(d, len(d))

    def clear(a, b):
        d = a - b
        return int((np.abs(d.mean(1)) > half(d, d.shape[1])).sum())

    assert words in sf.exercises.check_paired_interval(interval)
    assert words in sf.exercises.check_clear_differences(clear)
    swapped = sf.exercises.check_paired_interval(lambda a, b: paired(b, a))
    assert "b - a" in swapped and "Student" not in swapped and "paired" not in swapped


def test_two_mistakes_together_do_not_make_a_right_count():
    def clear(a, b):  # the spread of a population, and one sign
        d, n = a - b, a.shape[1]
        return int((d.mean(1) > stats.t.ppf(0.975, n - 1) * d.std(1) / n**0.5).sum())

    assert "not yet" in sf.exercises.check_clear_differences(clear)

    def of_compressions(a, b):
        d, n = a - b, len(a)
        return int((abs(d.mean(0)) > stats.t.ppf(0.975, n - 1) * d.std(0, ddof=1) / n**0.5).sum())

    assert "axis 0" in sf.exercises.check_clear_differences(of_compressions)


def test_a_table_is_told_by_its_shape():
    said = sf.exercises.check_ten_percent(lambda table: {"conv": {"snip": 1.0}})
    assert "DataFrame of shape (40, 6)" in said and len(said) < 300


def test_errors_of_two_means_that_are_added_are_named():
    def interval(a, b):
        error = (np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b)) ** 0.5
        half, middle = stats.t.ppf(0.975, len(a) - 1) * error, np.mean(a) - np.mean(b)
        return middle - half, middle + half

    assert "two means" in sf.exercises.check_paired_interval(interval)


def test_the_place_of_a_wrong_kind_is_named():
    words = dict.fromkeys(("LeakyReLU", "Tanh", "Identity", "Softplus"), "yes")
    assert "under 'LeakyReLU', it returns a str" in sf.exercises.check_prediction(words)


def ranks_over(size):
    """The scorer of ranks from 0, divided by what `size` makes of the layer's size."""

    def scorer(model, batch):
        scores = {}
        for name, weight in sf.prunable(model).items():
            rank = weight.detach().abs().flatten().argsort().argsort()
            scores[name] = (rank / size(weight.numel())).view_as(weight)
        return scores

    return scorer


@pytest.mark.parametrize(
    "name, answer",
    [
        ("objective", lambda output, y: output.norm()),
        ("objective", lambda output, y: output[0, 0]),
        ("objective", lambda output, y: output[range(len(y)), y].sum()),
        ("objective", lambda output, y: torch.logsumexp(output, 1).sum()),
        ("left_in_second", lambda n1, s1, n2, s2: n2 * 2 * stats.norm.sf(
            s1 * stats.norm.isf(0.5 / (n1 + 1)) / s2
        )),
        ("equal_fractions", ranks_over(lambda size: size)),
        ("equal_fractions", ranks_over(lambda size: size - 1)),
        ("shuffle", lambda mask: torch.from_numpy(
            np.random.default_rng().permutation(mask.flatten().numpy())
        ).view(mask.shape)),
        ("shuffle", lambda mask: mask.flatten()[torch.rand(mask.numel()).argsort()].view_as(mask)),
        ("even_odds", lambda size: size / math.log(2)),
        ("prediction", {"LeakyReLU": 1, "Tanh": 0, "Identity": 1, "Softplus": 0}),
        ("protect", lambda scores: {  # the largest of all is reached, not passed
            name: torch.where(s == s.max(), max(t.max() for t in scores.values()), s)
            for name, s in scores.items()
        }),
    ],
)  # fmt: skip
def test_other_right_answers_are_accepted(name, answer):
    check = CHECKS[f"check_{name}"]
    assert check(answer) == f"exercise {check.number}: solved"


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("objective", lambda output, y: output.softmax(1).sum(), "all scores are zero"),
        ("objective", lambda output, y: output.mean().square(), "made of it alone"),
        ("shuffle", lambda mask: mask.int(), "returns a Tensor of torch.int32"),
        ("shuffle", lambda mask: mask.flatten(), "of shape (20,) for one of shape (4, 5)"),
        ("safe_iterations", lambda n, rho: math.log(rho), "is no whole number"),
        ("protect", lambda scores: {n: s * math.inf for n, s in scores.items()}, "not finite"),
        ("protect", lambda scores: {n: s + (s == s.max()) for n, s in scores.items()},
         "raise all to one value"),
        ("prediction", {"LeakyReLU": True}, "the names are ['LeakyReLU']"),
        ("synflow_from", lambda first, second, x: (first, second), "value 1 of 2: other values"),
        ("is_connected", lambda masks: masks[0] @ masks[1], "raises"),
        ("may_go", lambda s, cut: s.sort().values.cumsum(0)[:5] < cut, "has shape (5,)"),
        ("log2_flow", lambda layers: math.log2(
            functools.reduce(lambda x, w: w.abs() @ x, layers, torch.ones(4).double()).sum()
        ), "left the range"),
        ("imbalance", lambda net: (net[0].weight * net[0].weight.grad).sum(0)
         + net[0].bias * net[0].bias.grad - (net[2].weight * net[2].weight.grad).sum(1),
         "rows and columns"),
    ],
)  # fmt: skip
def test_other_wrong_answers_are_told_what_is_wrong(name, answer, words):
    said = CHECKS[f"check_{name}"](answer)
    assert ": not yet, " in said and words in said


# --------------------------------------------------------------------------- the mechanism


TWICE = Check(
    number=7,
    kind="a whole number",
    cases=lambda: [(2,), (3,)],
    observe=returns(whole),
    right=lambda x: 2 * x,
    mistakes={"squared": lambda x: x * x},
)


def test_a_mistake_is_named_only_if_it_explains_every_answer():
    assert TWICE(lambda x: x * x) == "exercise 7: not yet, squared"
    # 4 is both: what happens at 3 decides.
    assert TWICE(lambda x: 4) == "exercise 7: not yet, 4 where 6 is right, on this input: (3)"
    assert TWICE(lambda x: 2.0 * x) == "exercise 7: solved"
    assert TWICE(lambda x: 2 * x if x < 3 else None).startswith("exercise 7: not yet, nothing is")
    assert "2.5 is no whole number; expected a whole number" in TWICE(lambda x: 2.5)


def test_two_mistakes_at_once_are_named_one_by_one():
    @torch.no_grad()
    def rescale(net, unit, factor):
        net[0].weight[unit] *= factor  # the bias is forgotten
        net[2].weight[:, unit] /= factor**2

    found = sf.exercises.check_rescale(rescale)
    assert "the bias of the unit is forgotten" in found and found.endswith(
        "(and something else differs)"
    )

    def both_plain(first, second, a):
        return first.abs(), second.abs()

    assert "the second layer forgets" in sf.exercises.check_synflow_from(both_plain)


def test_without_what_it_knows_a_check_names_nothing_and_refuses_what_was_right():
    bare = dataclasses.replace(TWICE, mistakes={}, right=lambda x: 3 * x)
    assert bare(lambda x: x * x) == "exercise 7: not yet, 4 where 6 is right, on this input: (2)"
    assert "not yet" in bare(TWICE.right) and bare(lambda x: 3 * x).endswith("solved")


def test_an_answer_may_change_its_arguments():
    check = Check(
        number=1,
        kind="a number",
        cases=lambda: [([1, 2, 3],)],
        observe=returns(number),
        right=sum,
        mistakes={},
    )
    assert check(lambda values: sum(values.pop() for _ in range(3))).endswith("solved")
    assert check(lambda values: sum(values.pop() for _ in range(3))).endswith("solved")


def test_attributes_are_documented():
    for name in inspect.signature(Check).parameters:
        assert f"        {name}: " in Check.__doc__


def test_answers_that_put_other_tensors_in_place():
    @torch.no_grad()
    def rescale(net, unit, factor):
        weights = [net[0].weight.clone(), net[0].bias.clone(), net[2].weight.clone()]
        for weight, power in zip(weights, (1, 1, -1), strict=True):
            (weight[:, unit] if power < 0 else weight[unit : unit + 1]).mul_(factor**power)
        net[0].weight.data, net[2].weight.data = weights[0], weights[2]
        net[0].bias = nn.Parameter(weights[1])

    assert "solved" in sf.exercises.check_rescale(rescale)
    said = sf.exercises.check_rescale(lambda net, unit, factor: copy.deepcopy(net))
    assert "another network is returned" in said


def test_an_objective_that_is_no_number_here():
    assert "solved" not in sf.exercises.check_objective(lambda outputs, labels: outputs.log().sum())


def test_errors_that_cannot_say_what_they_are():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def raises(error):
        def answer(*inputs):
            raise error

        return answer

    for error in (Mute(), GeneratorExit(), SystemExit()):
        said = sf.exercises.check_shuffle(raises(error))
        assert f"your answer raises {type(error).__name__} on this input" in said
