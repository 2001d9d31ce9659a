"""Iterative magnitude pruning (IMP): train, prune the smallest weights, rewind, again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .data import Dataset
from .graph import prunable
from .learners import Learner, Many, One, same_mode
from .masks import Masks
from .pruning import prune
from .recipes import Recipe
from .training import Loop, Training


@dataclass
class Round:
    """One training of an IMP run.

    Attributes:
        number: 0 for the first training, which is dense.
        masks: what this training kept.
        training: its record.
    """

    number: int
    masks: Masks
    training: Training


def imp(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    compression: float,
    *,
    rounds: int = 3,
    rewind: int | None = 0,
    seed: int = 0,
    keep: Sequence[str] = (),
    amp: bool | None = None,
    after_epoch: Callable[[int, int, nn.Module], None] | None = None,
) -> list[Round]:
    """Iterative magnitude pruning of one network, in place (Frankle and Carbin 2019).

    Train; prune the smallest trained weights so that ``compression ** (r / rounds)`` is reached
    after round r; go back to the weights of an earlier step, with the pruned ones zero; again.
    After the last pruning the network is trained once more.

    Args:
        model: a classifier; afterwards it is the last one trained.
        dataset, recipe, seed, amp: as in `train`; every round sees the same order of images.
        compression: of the last masks.
        rounds: how often to prune, from 1.
        rewind: the step of the first training to whose weights, BatchNorm statistics and
            optimizer state every round returns; 0 is initialization. None never goes back: the
            next round goes on from the trained weights with a new optimizer and the whole schedule
            of learning rates, as the paper's figure 5a was made.
        keep: layers to leave dense.
        after_epoch: called with (round, epoch, model).

    Returns:
        ``rounds + 1`` records, the dense training first.

    Raises:
        ValueError: as in `prune` and `train`; rounds below 1; a rewind step outside the training.

    Paper: section 5, figure 5.

    >>> from synflow_lib import data, models
    >>> net = models.fc((1, 8, 8), depth=2, seed=0)
    >>> found = imp(net, data.digits(), Recipe(1, 0.1), compression=4, rounds=2)
    >>> [round(each.masks.compression) for each in found]
    [1, 2, 4]
    """

    def call(number: int, epoch: int) -> None:
        if after_epoch is not None:
            after_epoch(number, epoch, model)

    with same_mode(model):
        per_round = _run(
            lambda masks: One(model, masks, amp=amp), [model], dataset, recipe, [compression],
            rounds=rounds, rewind=rewind, seeds=[seed], keep=keep, after_epoch=call,
        )  # fmt: skip
    return [copies[0] for copies in per_round]


def imp_many(
    models: Sequence[nn.Module],
    dataset: Dataset,
    recipe: Recipe,
    compressions: Sequence[float],
    *,
    rounds: int = 3,
    rewind: int | None = 0,
    seeds: Sequence[int] | int = 0,
    keep: Sequence[str] = (),
    amp: bool | None = None,
) -> list[list[Round]]:
    """IMP of many copies at once, each to its own compression (see `train_many`).

    Returns:
        For each copy the ``rounds + 1`` records that `imp` gives.

    >>> from synflow_lib import data, models
    >>> nets = [models.fc((1, 8, 8), depth=2, seed=0) for _ in range(2)]
    >>> found = imp_many(nets, data.digits(), Recipe(1, 0.1), [2, 8], rounds=1)
    >>> [copy[-1].masks.compression for copy in found]
    [2.0, 8.0]
    """
    models = list(models)
    seeds = [seeds] * len(models) if isinstance(seeds, int) else list(seeds)
    if not models or not len(models) == len(compressions) == len(seeds):
        raise ValueError(
            f"{len(models)} models, {len(compressions)} compressions and {len(seeds)} seeds;"
            " expected equal numbers, at least one"
        )
    per_round = _run(
        lambda masks: Many(models, masks, amp=amp), models, dataset, recipe, compressions,
        rounds=rounds, rewind=rewind, seeds=seeds, keep=keep,
    )  # fmt: skip
    return [list(copies) for copies in zip(*per_round, strict=True)]


def _run(
    learner: Callable[[list[Masks]], Learner],
    models: list[nn.Module],
    dataset: Dataset,
    recipe: Recipe,
    compressions: Sequence[float],
    *,
    rounds: int,
    rewind: int | None,
    seeds: list[int],
    keep: Sequence[str],
    after_epoch: Callable[[int, int], None] | None = None,
) -> list[list[Round]]:
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds={rounds!r}; expected a whole number from 1")
    masks = [Masks.ones(model, keep=keep) for model in models]
    # The final counts are checked before hours of training, by pruning once.
    for model, compression in zip(models, compressions, strict=True):
        prune(model, "magnitude", compression, keep=keep)
    found, rewound = [], None
    for number in range(rounds + 1):
        loop = Loop(learner(masks), dataset, recipe, seeds)
        if rewind is not None and number == 0:
            last = loop.steps * recipe.epochs
            whole = isinstance(rewind, int) and not isinstance(rewind, bool)
            if not whole or not 0 <= rewind < last:
                raise ValueError(
                    f"rewind={rewind!r}; expected a step from 0 to {last - 1}, or None"
                )
            loop.snapshot_at = rewind
        if rewound is not None:
            loop.load_state(rewound)
        if after_epoch is not None:
            loop.after_epoch = lambda epoch, number=number: after_epoch(number, epoch)
        trainings = loop.run()
        loop.learner.write_back()
        rewound = rewound or loop.snapshot
        found.append([Round(number, *pair) for pair in zip(masks, trainings, strict=True)])
        if number < rounds:
            goals = [float(c) ** ((number + 1) / rounds) for c in compressions]
            goals = compressions if number == rounds - 1 else goals
            masks = [
                smallest_pruned(model, mask, goal)
                for model, mask, goal in zip(models, masks, goals, strict=True)
            ]
    return found


def smallest_pruned(model: nn.Module, masks: Masks, compression: float) -> Masks:
    """The masks without their smallest weights; what was pruned stays pruned, ties or not.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[0.0, 0.0, 3.0, 1.0]])
    >>> masks = Masks({"weight": torch.tensor([[False, True, True, True]])})
    >>> smallest_pruned(layer, masks, 4 / 3)["weight"]
    tensor([[False,  True,  True,  True]])
    """
    dense = set(prunable(model)) - set(masks)

    def surviving(net: nn.Module, _) -> dict[str, torch.Tensor]:
        named = dict(net.named_parameters(remove_duplicate=False))
        return {
            name: named[name].detach().abs().masked_fill(~mask.to(named[name].device), -1)
            for name, mask in masks.items()
        }

    return prune(model, surviving, compression, keep=dense)
