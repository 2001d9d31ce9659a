"""Inputs and outputs of any structure: several, tokens, keywords, dicts, dataclasses, no graph."""

import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo_oracle import Oracle
from zoo_plain import PLAIN, TOKENS

import synflow_lib as sf


def right(net, shape, example):
    """The library's scores are those of the definition."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are left out
        found, wanted = sf.score(net, "synflow", input_shape=shape), Oracle(net, example).scores()
    largest = max(float(score.max()) for score in found.values())
    assert largest > 0
    for name, score in found.items():
        torch.testing.assert_close(score, wanted[name], rtol=0, atol=1e-12 * largest)


def made(name):
    torch.manual_seed(0)
    return PLAIN[name][0]().eval()


def ones(*shapes):
    return tuple(torch.ones(1, *shape) for shape in shapes)


def test_several_inputs_in_order_or_by_name():
    net = made("twoinputs")
    right(net, ((12,), (6,)), ones((12,), (6,)))
    right(net, {"y": (6,), "x": (12,)}, ones((12,), (6,)))
    masks = sf.prune(net, "synflow", 8, input_shape=((12,), (6,)))
    assert not sf.is_collapsed(net, masks, "path", input_shape=((12,), (6,)))


def test_several_inputs_as_a_loader_gives_them():
    net = made("twoinputs")
    x, y, labels = torch.randn(6, 12), torch.randn(6, 6), torch.arange(6) % 2
    examples = [((x[i], y[i]), int(labels[i])) for i in range(6)]
    wanted = sf.score(net, "snip", ((x, y), labels))
    loader = torch.utils.data.DataLoader(examples, batch_size=4)
    for batch in (loader, [[x, y], labels]):
        for name, score in sf.score(net, "snip", batch).items():
            torch.testing.assert_close(score, wanted[name])
    assert sf.prune(net, "synflow", 8, [[x, y], labels]) == sf.prune(
        net, "synflow", 8, input_shape=((12,), (6,))
    )


def test_an_argument_with_a_default_is_an_input_where_it_is_named():
    net = made("optionalinput")
    right(net, (12,), torch.ones(1, 12))
    right(net, {"x": (12,), "t": (3,)}, ones((12,), (3,)))
    with pytest.warns(UserWarning, match="t.weight.*is zero"):
        assert not sf.score(net, "synflow", input_shape=(12,))["t.weight"].any()


def test_tokens_by_shape_and_by_example():
    net = made("tokenstransformer")
    right(net, (5,), TOKENS)
    right(net, TOKENS, TOKENS)
    batch = TOKENS.expand(8, -1), torch.arange(8) % 2
    loss = lambda output, y: F.cross_entropy(output[:, -1], y)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sf.prune(net, "synflow", 9, batch) == sf.prune(net, "synflow", 9, input_shape=(5,))
        assert sf.prune(net, "snip", 9, batch, loss=loss).kept == round(sf.Masks.ones(net).kept / 9)


def test_words_beside_an_image():
    net = made("imageandwords")
    shape = {"image": (12,), "words": TOKENS}
    right(net, shape, {"image": torch.ones(1, 12), "words": TOKENS})
    x = {"image": torch.rand(8, 12), "words": TOKENS.expand(8, -1)}
    batch = x, torch.arange(8) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both = sf.score(net, "snip", batch)
        halves = slice(0, 4), slice(4, 8)
        parts = [({k: v[half] for k, v in x.items()}, batch[1][half]) for half in halves]
        again = sf.score(net, "snip", parts)
    for name, score in both.items():
        torch.testing.assert_close(again[name], score)


@pytest.mark.parametrize("name", ["dict", "tuple", "dataclass", "namedtuple"])
def test_all_numbers_of_an_output_count(name):
    net = made(f"{name}output")
    right(net, (12,), torch.ones(1, 12))
    dense = sf.Masks.ones(net)
    assert sf.effective_compression(net, dense, input_shape=(12,)) == 1
    smaller = sf.surgery.without_dead_units(net, sf.prune(net, "synflow", 10), input_shape=(12,))
    assert smaller.body.out_features < 8


def test_the_output_named_logits_has_the_labels():
    @dataclasses.dataclass
    class Answer:
        logits: torch.Tensor
        hidden: torch.Tensor

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            hidden = self.body(x)
            return Answer(self.head(hidden), hidden)

    class Plain(Net):
        def forward(self, x):
            return super().forward(x).logits

    net, batch = Net(), (torch.rand(6, 4), torch.arange(6) % 2)
    plain = Plain()
    plain.load_state_dict(net.state_dict())
    for method in ("snip", "grasp"):
        found, wanted = sf.score(net, method, batch), sf.score(plain, method, batch)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "name, laws",
    [("softmax_of_parameters", 16), ("attention_matmul_causal", 60), ("loopovertime", 0)],
)
def test_what_torch_fx_cannot_follow_torch_export_can(name, laws):
    """Loops over parameters, masks and steps whose number is a size."""
    net, shape = made(name).double(), PLAIN[name][1]
    right(net, shape, torch.ones(1, *shape, dtype=torch.double))
    dense = sf.Masks.ones(net)
    assert not sf.is_collapsed(net, dense, "path", input_shape=shape)
    limit = sf.max_compression(net, "path", input_shape=shape)
    assert 1 < limit <= dense.kept
    report = sf.check_conservation(
        net, sf.score(net, "synflow", input_shape=shape), input_shape=shape
    )
    assert len(report.table) == laws and report.max_relative_error < 1e-10
    with pytest.raises(ValueError, match="torch.export only"):
        sf.surgery.without_dead_units(net, dense, input_shape=shape)


class Patches(nn.Module):
    """Cut out and put back, with a branch or without."""

    input_shape = (1, 4, 4)

    def __init__(self, branch):
        super().__init__()
        self.f, self.h, self.branch = nn.Linear(4, 4), nn.Linear(8, 2), branch

    def forward(self, x):
        if not self.branch or x.dim() == 4:  # torch.fx does not know how many directions
            x = F.unfold(x, 2, stride=2)
        x = F.fold(self.f(x[0].T).T[None], (4, 4), 2, stride=2)
        return self.h(F.adaptive_max_pool2d(x, (4, 2)).flatten(1))


def test_patches_and_pooling_in_the_graph_of_torch_export():
    wanted, found = (made_of(lambda branch=branch: Patches(branch)) for branch in (False, True))
    scores = [sf.score(net, "synflow") for net in (wanted, found)]
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])
    masks = sf.Masks.ones(found)
    masks["h.weight"][:, 1:] = False
    compressions = [sf.effective_compression(net, masks) for net in (wanted, found)]
    assert compressions[0] == compressions[1] > 1


def test_a_tied_weight_counts_once():
    net = made("tiedhead")
    with pytest.warns(UserWarning, match="others are never pruned"):
        masks = sf.prune(net, "magnitude", 2)
    assert "embed.weight" not in masks and masks["head.weight"].shape == (20, 12)
    right(net, (5,), TOKENS)


def test_grasp_where_attention_has_no_second_derivative():
    net = made("attention_sdpa")
    batch = torch.rand(6, 5, 12), torch.arange(6) % 4
    assert all(bool(score.any()) for score in sf.score(net, "grasp", batch).values())


@pytest.mark.parametrize("shape", [((3,), "a"), {}, {"x": (0,)}, ((3,), 4), torch.zeros(0, 3)])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match="expected positive integers.*tuple, or a dict by name"):
        sf.prune(made("twoinputs"), "synflow", 2, input_shape=shape)


def test_a_network_that_writes_into_parts_of_a_tensor_is_refused():
    with pytest.raises(ValueError, match="nor by torch.export, .*writes into a part of a tensor"):
        sf.score(made("writesinplace"), "synflow", input_shape=(12,))


def rooted(module, *names, **more):
    """Linear layers without bias under ``names``, and more, drawn anew in every network."""
    for name in names:
        setattr(module, name, nn.Linear(4, 4, bias=False))
    for name, value in more.items():
        setattr(module, name, value)


class LateTable(nn.Module):
    """A table of tokens that is read behind a layer: both are inputs."""

    def __init__(self):
        super().__init__()
        rooted(self, "l", "l2", "head", e=nn.Embedding(5, 4), d=nn.Embedding(5, 4))

    def forward(self, t):
        h = self.l(self.e(t))
        return self.head(h + self.l2(self.d(t)))


def test_a_table_that_is_looked_up_late_is_rescaled_with_the_rest():
    net = made_of(LateTable)
    net.l.weight.data.fill_(2.0**30)
    right(net, torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3]]))


def made_of(kind):
    torch.manual_seed(0)
    return kind().double().eval()


class Positions(nn.Module):
    """RoBERTa: positions counted from the tokens, in a table of their own."""

    def __init__(self, count):
        super().__init__()
        rooted(self, "f", "h", e=nn.Embedding(9, 4), p=nn.Embedding(9, 4))
        self.count = count

    def forward(self, t):
        return self.h(self.f(self.e(t)) + self.p(self.count(t)))


def padded_positions(t):
    mask = (t != 1).int()
    return (torch.cumsum(mask, 1).type_as(mask) * mask).long() + 1


@pytest.mark.parametrize("count", [padded_positions, lambda t: t.ne(1).long(), torch.zeros_like])
def test_what_positions_look_up_is_no_input(count):
    tokens = torch.tensor([[2, 3, 4]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are left out
        found = sf.score(made_of(lambda: Positions(count)), "synflow", input_shape=tokens)
    torch.testing.assert_close(found["f.weight"].sum(), found["h.weight"].sum())


def test_tokens_behind_an_offset_are_inputs():
    """As of tables that hold several columns one behind the other."""
    tokens = torch.tensor([[2, 3, 4]])
    net = made_of(lambda: Positions(lambda t: (t + 2).view(1, -1)))
    right(net, tokens, tokens)
