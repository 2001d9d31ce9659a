"""Networks that have equal weights and are not the same function; layers that start at zero."""

import copy
import types

import pytest
import torch
from networks import mlp
from torch import nn

import synflow_lib as sf
from synflow_lib.training.checkpoints import ForeignCheckpointError

DIGITS = sf.data.digits().subset(200, 100)
RECIPE = sf.Recipe(3, 0.1)


class Scaled(nn.Module):
    """What it multiplies by is neither parameter nor buffer."""

    def __init__(self, by, activation=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.by, self.activation = by, activation
        self.a, self.b = nn.Linear(64, 20), nn.Linear(20, 10)

    def forward(self, x):
        return self.b(self.activation(self.a(x.flatten(1) * self.by)))


@pytest.mark.parametrize("others", [(1.0, 0.01), (torch.ones(64), torch.linspace(0, 1, 64))])
def test_copies_that_differ_in_an_attribute_are_not_trained_together(others, tmp_path):
    with pytest.raises(ValueError, match=r"model 1 computes something else.*register_buffer"):
        sf.train_many([Scaled(by) for by in others], [None, None], DIGITS, RECIPE)
    alike = [Scaled(others[0]) for _ in others]
    assert len(sf.train_many(alike, [None, None], DIGITS, RECIPE)) == 2
    runs = [sf.Run("small", "scaled", "magnitude", 2, RECIPE, seed=seed) for seed in (0, 1)]
    given = {
        "datasets": {"small": DIGITS},
        "models": {"scaled": lambda data, seed: Scaled(others[seed])},
        "progress": False,
    }
    together = sf.sweep(runs, tmp_path / "a", together=True, **given)
    apart = sf.sweep(runs, tmp_path / "b", together=False, **given)
    assert together["top1"].tolist() == apart["top1"].tolist()


def test_a_checkpoint_of_another_function_is_refused(tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch, _):
        if epoch == 2:
            raise Stop

    file = tmp_path / "c.pt"
    with pytest.raises(Stop):
        sf.train(Scaled(1.0), None, DIGITS, RECIPE, checkpoint=file, save_every=0, after_epoch=stop)
    with pytest.raises(ForeignCheckpointError, match="another run: outputs"):
        sf.train(Scaled(1.0, torch.tanh), None, DIGITS, RECIPE, checkpoint=file, save_every=0)
    same = sf.train(Scaled(1.0), None, DIGITS, RECIPE, checkpoint=file, save_every=0)
    assert same.resumed >= 1


class Counted(nn.Sequential):
    """Its first parameter is a whole number, and it keeps more in its state than tensors."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.version = nn.Parameter(torch.tensor(3), requires_grad=False)

    def forward(self, x):
        return super().forward(x.float())  # of whole numbers as well

    def get_extra_state(self):
        return {"made": "today"}

    def set_extra_state(self, state):
        pass


def test_whole_numbers_and_extra_state_change_no_training(tmp_path):
    digits, recipe = sf.data.digits().subset(100, 50), sf.Recipe(2, 0.1)
    plain = sf.models.fc(digits.input_shape, depth=2, seed=0)
    masks = sf.prune(plain, "magnitude", 4)
    counted = Counted(*copy.deepcopy(plain))
    wanted = sf.train(plain, masks, digits, recipe).history["train_loss"][1:].tolist()
    found = sf.train(counted, masks, digits, recipe, checkpoint=tmp_path / "run.pt")
    assert found.history["train_loss"][1:].tolist() == wanted
    with pytest.raises(ValueError, match="it has an extra state"):
        sf.train(counted, masks, digits, recipe, compact=True)


def test_a_layer_that_starts_at_zero_is_not_a_pruned_one():
    net = mlp(6, 8, 4)
    nn.init.zeros_(net[2].weight)
    name = [*sf.prunable(net)][1]
    with pytest.warns(UserWarning, match=rf"{name}.*hold zeros only"):
        masks = sf.prune(net, "random", 2)
    assert 8 <= int(masks[name].sum()) <= 24  # chance alone
    with torch.no_grad():
        net[0].weight[0] = 0  # a layer with some zeros was pruned
        net[2].weight.fill_(1)
    assert not sf.prune(net, "random", 1.25)[[*sf.prunable(net)][0]][0].any()


def test_a_forward_of_the_instance_is_the_one_that_is_traced():
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 2))
    net.forward = types.MethodType(lambda self, x: self[2](self[1](x)), net)
    kept = sf.prune(net, "synflow", 2, input_shape=(4,)).table().set_index("layer")["kept"]
    assert kept["0.weight"] == 0 < kept["1.weight"]


@pytest.mark.parametrize(
    "spelled",
    [
        lambda x, y: torch.add(input=x, other=y),
        lambda x, y: torch.add(input=x, other=1.0),
        lambda x, y: torch.mul(input=x, other=0.5),
        lambda x, y: torch.flatten(input=x, start_dim=1),
        lambda x, y: x.view_as(y),
        lambda x, y: x.reshape_as(y),
        lambda x, y: x.expand_as(y),
        lambda x, y: x.type_as(y),
        lambda x, y: x.to(y),
    ],
)
def test_spellings_of_what_is_known(spelled):
    class Net(nn.Module):
        input_shape = (4,)

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.c(spelled(torch.relu(self.a(x)), torch.relu(self.b(x))))

    scores = sf.score(Net(), "synflow")
    assert float(scores["a.weight"].sum()) > 0
    assert not sf.is_collapsed(Net(), sf.prune(Net(), "synflow", 2), "path")
