"""Masks: counts, tables, files that are whole or refused, torch's own pruning and back."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Shared, Tied, assert_same, everything, mlp, narrow_resnet, seeded, unchanged
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

import synflow_lib as sf
from synflow_lib import masks as masks_module


@pytest.fixture
def masks():
    first = torch.tensor([[True, False, True], [False, False, False]])
    return sf.Masks({"b": first, "a": torch.tensor([[False, False]]), "c": torch.tensor([True])})


def test_counts_and_table_in_forward_order(masks):
    assert (masks.kept, masks.total) == (3, 9)
    assert (masks.density, masks.sparsity, masks.compression) == (3 / 9, 1 - 3 / 9, 3.0)
    assert isinstance(masks.kept, int) and isinstance(masks.total, int)
    table = masks.table()
    assert list(table.columns) == ["layer", "kept", "total", "density"]
    assert table.to_numpy().tolist() == [["b", 2, 6, 2 / 6], ["a", 0, 2, 0.0], ["c", 1, 1, 1.0]]
    assert masks.empty_layers() == ["a"]
    assert repr(masks) == "Masks(3 layers, kept 3 of 9, compression 3)"


def test_nothing_kept_is_infinite_compression():
    nothing = sf.Masks({"w": torch.zeros(3, dtype=torch.bool)})
    assert nothing.compression == float("inf")
    assert (nothing.density, nothing.sparsity) == (0.0, 1.0)


def test_a_mapping_that_compares_by_value_and_order(masks):
    assert len(masks) == 3 and list(masks) == ["b", "a", "c"] and "a" in masks
    assert masks == sf.Masks({name: mask.clone() for name, mask in masks.items()})
    assert masks != sf.Masks({name: masks[name] for name in ("a", "b", "c")})
    assert masks != sf.Masks({**masks, "c": torch.tensor([False])})
    assert masks != dict(masks)
    assert masks.to("cpu") == masks


@pytest.mark.parametrize(
    ("given_masks", "error", "message"),
    [
        ({}, ValueError, "no masks given; expected at least one"),
        ({"w": torch.ones(2)}, TypeError, "mask 'w' is torch.float32; expected a bool tensor"),
        ({"w": [True]}, TypeError, "mask 'w' is list; expected a bool tensor"),
    ],
)
def test_only_bool_tensors(given_masks, error, message):
    with pytest.raises(error, match=message):
        sf.Masks(given_masks)


# ------------------------------------------------------------------------------ on a model


def test_names_that_no_file_can_hold_are_refused_before_it_is_written(tmp_path):
    for name in ("a\nb", "__metadata__"):
        with pytest.raises(ValueError, match="cannot hold the name"):
            sf.Masks({name: torch.ones(2, dtype=torch.bool)}).save(tmp_path / "masks")
    assert not any(tmp_path.iterdir())
    with pytest.raises(TypeError, match="masks of 5; expected the name of a parameter"):
        sf.Masks({5: torch.ones(2, dtype=torch.bool)})


def test_masks_and_models_of_another_kind_are_named():
    net = nn.Linear(2, 1)
    masks = sf.Masks.ones(net)
    for other in (None, dict(masks), [masks], sf.score(net, "magnitude")):
        for ask in (sf.is_collapsed, sf.effective_compression, sf.surgery.without_dead_units):
            with pytest.raises(TypeError, match=f"masks is a {type(other).__name__}; expected a M"):
                ask(net, other)
    with pytest.raises(TypeError, match="model is a NoneType; expected a Module"):
        masks.apply_(None)
    with pytest.raises(TypeError, match="masks is a list"):
        sf.Masks([("weight", masks["weight"])])


def test_apply_writes_zeros_and_nothing_else():
    net = mlp(5, 6, 4, bias=True)
    weight = net[0].weight
    weight.grad = torch.ones_like(weight)
    masks = sf.prune(net, "magnitude", 3)
    before = everything(net)
    assert masks.apply_(net) is net
    after = everything(net)
    for name, tensor in before["tensors"].items():
        expected = tensor * masks[name] if name in masks else tensor
        assert torch.equal(after["tensors"][name], expected)
    for key in ("identity", "flags", "grads", "modes", "hooks", "attributes", "random"):
        assert_same(before[key], after[key], key)
    assert sf.Masks.from_model(net) == masks


def test_apply_leaves_a_plain_zero_whatever_was_there():
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[torch.inf, torch.nan, -1.0, 2.0]]))
    sf.Masks({"weight": torch.tensor([[False, False, False, True]])}).apply_(layer)
    assert str(layer.weight.detach()[0].tolist()) == "[0.0, 0.0, 0.0, 2.0]"


def test_masks_of_another_model_are_refused_before_anything_is_written():
    net, other = mlp(5, 6, 4), mlp(5, 6, 6, 4)
    wider = mlp(5, 7, 4)
    masks = sf.prune(net, "magnitude", 10)
    for use in (masks.apply_, masks.to_torch_prune):
        with unchanged(wider), pytest.raises(ValueError, match=r"'0.weight' has shape \(7, 5\)"):
            use(wider)
    masks = sf.prune(other, "magnitude", 10)
    for use in (masks.apply_, masks.to_torch_prune):
        with unchanged(net), pytest.raises(ValueError, match="shape|no parameter '2.weight'"):
            use(net)
    renamed = sf.Masks({"0.weight": torch.zeros(6, 5).bool(), "x": torch.zeros(1).bool()})
    with unchanged(net), pytest.raises(ValueError, match="no parameter 'x'; these masks are not"):
        renamed.apply_(net)


class Compiled(nn.Module):
    """Names as ``torch.compile`` gives them, without the seconds that it takes to import."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net


def wrapped(net):
    """The same network in what puts its own name in front of, or into, the parameters'."""
    inside = copy.deepcopy(net)
    inside[0] = Compiled(inside[0])
    return [
        nn.DataParallel(net),
        Compiled(net),
        torch.optim.swa_utils.AveragedModel(net),
        nn.DataParallel(Compiled(net)),
        inside,
    ]


@pytest.mark.parametrize("number", range(5))
def test_masks_find_their_parameters_through_wrappers(number):
    net = mlp(5, 6, 4)
    masks = sf.prune(net, "magnitude", 4)
    outside = wrapped(mlp(5, 6, 4))[number]
    masks.apply_(outside)
    zeros = [bool((parameter == 0).any()) for parameter in outside.parameters()]
    assert zeros == [True, True]
    names = [name for name, _ in outside.named_parameters()]
    assert names != list(masks)
    named = sf.Masks(dict(zip(names, masks.values(), strict=True)))
    named.apply_(net)  # and the other way round, as from a file
    assert sf.Masks.from_model(net) == masks


def test_a_layer_called_module_is_not_taken_for_a_wrapper():
    net = nn.Sequential()
    net.add_module("module", nn.Linear(3, 2))
    net.add_module("other", nn.Linear(3, 2))
    masks = sf.Masks({"module.weight": torch.zeros(2, 3, dtype=torch.bool)})
    masks.apply_(net)
    assert sf.Masks.from_model(net).table()["kept"].tolist() == [0, 6]
    with pytest.raises(ValueError, match="no parameter 'third.weight'"):
        sf.Masks({"third.weight": torch.zeros(2, 3, dtype=torch.bool)}).apply_(net)


def test_shuffled_takes_numpys_seeds(masks):
    assert masks.shuffled(np.int64(3)) == masks.shuffled(3)
    for wrong in (True, 1.0, "0", None):
        with pytest.raises(TypeError, match="expected a torch.Generator or a seed"):
            masks.shuffled(wrong)


def test_ones_keeps_everything():
    net = mlp(5, 6, 4, bias=True)
    assert (sf.Masks.ones(net).kept, sf.Masks.ones(net).total) == (54, 54)
    assert list(sf.Masks.ones(net, keep="0", bias=True)) == ["1.weight", "1.bias"]


@pytest.mark.parametrize("make", [narrow_resnet, lambda: seeded(Shared), lambda: seeded(Tied)])
def test_torch_prune_takes_over_and_gives_back(make):
    net, pruned = make(), make()
    masks = sf.prune(net, "synflow", 3)
    assert masks.to_torch_prune(pruned) is pruned
    masks.apply_(net)
    x = torch.randn(3, *net.input_shape, dtype=torch.float64)
    assert torch.equal(net.eval()(x), pruned.eval()(x))
    pruned.train()(x).sum().backward()  # zeros stay zeros under training
    for name, module in list(pruned.named_modules()):
        if f"{name}.weight" in masks:
            assert torch.equal(module.weight_mask.bool(), masks[f"{name}.weight"])
            assert not module.weight_orig.grad[~masks[f"{name}.weight"]].any()
        if torch_prune.is_pruned(module) and hasattr(module, "weight_mask"):
            torch_prune.remove(module, "weight")
    assert sf.Masks.from_model(pruned) == masks


# ------------------------------------------------------------------------------ files


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_save_and_load_return_the_same(tmp_path_factory, shapes, chance):
    path = tmp_path_factory.mktemp("masks") / "m.safetensors"
    names = [f"layer{k}.weight" for k in range(len(shapes))]
    chance.shuffle(names)
    masks = sf.Masks(
        {
            name: torch.rand(shape) < 0.5 if mixed else torch.ones(shape, dtype=torch.bool)
            for name, (shape, mixed) in zip(names, shapes, strict=True)
        }
    )
    masks.save(path)
    loaded = sf.Masks.load(path)
    assert loaded == masks  # order too
    assert all(mask.dtype == torch.bool for mask in loaded.values())
    masks.save(str(path))  # over an old file, by a path in words
    assert sf.Masks.load(str(path)) == masks
    assert os.listdir(path.parent) == ["m.safetensors"]


def test_views_of_one_tensor_are_saved_each(tmp_path):
    whole = torch.tensor([True, False, True, True])
    masks = sf.Masks({"a": whole[:2], "b": whole[2:], "c": whole, "d": whole.view(2, 2).T})
    masks.save(tmp_path / "m")
    assert sf.Masks.load(tmp_path / "m") == masks


def test_a_file_that_does_not_exist_says_which():
    with pytest.raises(FileNotFoundError, match="no file of masks at nowhere.safetensors"):
        sf.Masks.load("nowhere.safetensors")


def damaged(kind, path, masks):
    masks.save(path)
    whole = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut in the header":
        path.write_bytes(whole[:40])
    elif kind == "cut in the data":
        path.write_bytes(whole[:-3])
    elif kind == "longer":
        path.write_bytes(whole + b"abc")
    elif kind == "random bytes":
        path.write_bytes(bytes(range(256)) * 8)
    elif kind == "text":
        path.write_text("layer,kept,total\n")
    elif kind == "a pickle":
        path.write_bytes(pickle.dumps({"w": [True]}))
    elif kind == "torch.save":
        torch.save(dict(masks), path)
    elif kind == "a folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "cut in the header", "cut in the data", "longer", "random bytes", "text"),
        *("a pickle", "torch.save", "a folder"),
    ],
)
def test_damaged_files_are_refused_by_name(kind, tmp_path, masks):
    path = tmp_path / "broken.safetensors"
    damaged(kind, path, masks)
    with pytest.raises(ValueError, match=r"broken.safetensors is not a readable.*masks.save\(path"):
        sf.Masks.load(path)


def test_every_truncation_and_every_flipped_bit_is_refused_by_name(tmp_path):
    path = tmp_path / "m.safetensors"
    sf.Masks({"b": torch.tensor([True, False, True]), "a": torch.tensor([[False]])}).save(path)
    whole = path.read_bytes()
    variants = [whole[:length] for length in range(len(whole))]
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            variants.append(bytes(flipped))
    refused = 0
    for content in variants:
        path.write_bytes(content)
        try:
            sf.Masks.load(path)
        except ValueError as error:  # anything else fails the test
            refused += "m.safetensors" in str(error)
    print(f"{len(whole)} truncations and {8 * len(whole)} flipped bits: {refused} refused")
    assert refused == len(variants)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t, "does not match its checksum"),
        (lambda t: t + 1, "other values than 0 and 1"),
        (lambda t: t.bool(), r"torch.bool \(3,\) or holds"),
        (lambda t: t.float() * torch.nan, "torch.float32"),
        (lambda t: t[:0], "does not match its checksum"),
    ],
)
def test_contents_that_do_not_match_the_checksum_are_refused(change, message, tmp_path):
    path = tmp_path / "m"
    tensor = torch.tensor([1, 0, 1], dtype=torch.uint8)
    digest = sf.Masks({"w": torch.tensor([True, True, True])}).digest
    metadata = {"format": "synflow_lib.masks.2", "order": "w", "sha256": digest}
    save_file({"w": change(tensor)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=f"{path} is damaged: .*{message}"):
        sf.Masks.load(path)


def test_files_of_the_first_format_are_read_and_their_values_verified(tmp_path, masks):
    path = tmp_path / "old"

    def write(**changed):
        tensors = {name: mask.to(torch.uint8) for name, mask in masks.items()} | changed
        metadata = {"format": "synflow_lib.masks.1", "order": "\n".join(masks)}
        save_file(tensors, path, metadata=metadata)

    write()
    assert sf.Masks.load(path) == masks
    for wrong in (
        torch.tensor([2], dtype=torch.uint8), torch.tensor([1.0]), torch.tensor([torch.nan]),
        torch.tensor([True]), torch.zeros(0, dtype=torch.uint8), torch.tensor([1]),
    ):  # fmt: skip
        write(c=wrong)
        with pytest.raises(ValueError, match="old is damaged: 'c' is"):
            sf.Masks.load(path)


def test_the_digest_is_of_names_shapes_values_and_order(masks):
    others = [
        {name: masks[name] for name in ("a", "b", "c")},
        {**masks, "c": torch.tensor([False])},
        {**masks, "b": masks["b"].view(3, 2)},
        {**masks, "d": torch.tensor([True])},
    ]
    assert masks.digest == sf.Masks({name: mask.clone() for name, mask in masks.items()}).digest
    assert masks.digest == sf.Masks({**masks, "b": masks["b"].T.contiguous().T}).digest
    assert len({masks.digest, *(sf.Masks(other).digest for other in others)}) == 5


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (lambda p: p.write_bytes(pickle.dumps(Evil())), lambda p: torch.save(Evil(), p)):
        write(tmp_path / "evil")
        with pytest.raises(ValueError, match="evil is not a readable"):
            sf.Masks.load(tmp_path / "evil")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"format": "synflow_lib.masks.1"},
        {"format": "synflow_lib.masks.1", "order": "w\nother"},
        {"format": "synflow_lib.masks.2", "order": "w"},
    ],
)
def test_safetensors_of_something_else_are_refused(metadata, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(3)}, path, metadata=metadata)
    with pytest.raises(ValueError, match="model.safetensors is a safetensors file but holds no"):
        sf.Masks.load(path)


def test_a_write_that_fails_leaves_the_old_file_and_no_half_one(tmp_path, masks, monkeypatch):
    path = tmp_path / "m.safetensors"
    masks.save(path)
    before = path.read_bytes()

    def interrupted(tensors, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(masks_module, "save_file", interrupted)
    other = sf.Masks({"x": torch.tensor([True])})
    for target in (path, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            other.save(target)
    assert os.listdir(tmp_path) == ["m.safetensors"]
    assert path.read_bytes() == before
    assert sf.Masks.load(path) == masks


def test_others_may_read_the_file(tmp_path, masks):
    masks.save(tmp_path / "m")
    assert (tmp_path / "m").stat().st_mode & 0o444 == 0o444


def test_a_folder_that_does_not_exist_is_made(tmp_path, masks):
    masks.save(tmp_path / "new" / "m")
    assert sf.Masks.load(tmp_path / "new" / "m") == masks
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        masks.save(tmp_path / "file" / "m")
