"""Iterative magnitude pruning (IMP): train, prune the smallest weights, rewind, again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from .checkpoints import Checkpoint
from .data import Dataset
from .graph import prunable
from .learners import Learner, Many, One, gradients, same_mode
from .masks import Masks
from .pruning import prune
from .recipes import Recipe
from .training import COLUMNS, Loop, Training
from .values import real, seeds_of, whole


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
    checkpoint: str | Path | None = None,
    save_every: float = 60.0,
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
            optimizer state every round returns, all under that round's masks; 0 is
            initialization. None never goes back: the
            next round goes on from the trained weights with a new optimizer and the whole schedule
            of learning rates, as the paper's figure 5a was made.
        keep: layers to leave dense.
        checkpoint, save_every: as in `train`, for all rounds together.
        after_epoch: called with (round, epoch, model).

    Returns:
        ``rounds + 1`` records, the dense training first; fewer where a training diverges, which
        is then the last one and has a ``training.reason``.

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

    with same_mode(model), gradients(model):
        return _run(
            lambda masks: One(model, masks, amp=amp), [model], dataset, recipe, [compression],
            rounds=rounds, rewind=rewind, seeds=[whole(seed, "seed")], keep=keep,
            checkpoint=checkpoint, save_every=save_every, after_epoch=call,
        )[0]  # fmt: skip


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
    checkpoint: str | Path | None = None,
    save_every: float = 60.0,
) -> list[list[Round]]:
    """IMP of many copies at once, each to its own compression (see `train_many`).

    Returns:
        For each copy the ``rounds + 1`` records that `imp` gives. A copy that diverges ends alone.

    >>> from synflow_lib import data, models
    >>> nets = [models.fc((1, 8, 8), depth=2, seed=0) for _ in range(2)]
    >>> found = imp_many(nets, data.digits(), Recipe(1, 0.1), [2, 8], rounds=1)
    >>> [copy[-1].masks.compression for copy in found]
    [2.0, 8.0]
    """
    models, compressions = list(models), list(compressions)
    seeds = seeds_of(seeds, len(models))
    if not models or not len(models) == len(compressions) == len(seeds):
        raise ValueError(
            f"{len(models)} models, {len(compressions)} compressions and {len(seeds)} seeds;"
            " expected equal numbers, at least one"
        )
    with gradients(*models):
        return _run(
            lambda masks: Many(models, masks, amp=amp), models, dataset, recipe, compressions,
            rounds=rounds, rewind=rewind, seeds=seeds, keep=keep,
            checkpoint=checkpoint, save_every=save_every,
        )  # fmt: skip


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
    keep: Iterable[str],
    checkpoint: str | Path | None,
    save_every: float,
    after_epoch: Callable[[int, int], None] | None = None,
) -> list[list[Round]]:
    rounds = whole(rounds, "rounds", 1)
    compressions = [real(compression, "compression") for compression in compressions]
    masks = [Masks.ones(model, keep=keep) for model in models]
    # The final counts are checked before hours of training, by pruning once.
    for model, compression in zip(models, compressions, strict=True):
        prune(model, "magnitude", compression, keep=keep)
    loop = Loop(learner(masks), dataset, recipe, seeds)
    if rewind is not None:
        last = loop.steps * recipe.epochs - 1
        try:
            rewind = whole(rewind, "rewind", 0, last)
        except ValueError:
            raise ValueError(
                f"rewind={rewind!r}; expected a step from 0 to {last}, or None"
            ) from None
    identity = {"rounds": rounds, "rewind": rewind, "compressions": compressions}
    file = Checkpoint(checkpoint, checkpoint and identity | loop.identity(masks), save_every)
    content = file.load(loop.learner.device)
    first, found, rewound = 0, [[] for _ in models], None
    if content is not None:
        first, rewound = content["round"], content["rewound"]
        masks = [Masks(each) for each in content["masks"]]
        found = [[_unpacked(each) for each in copies] for copies in content["found"]]

    for number in range(first, rounds + 1):
        loop = Loop(learner(masks), dataset, recipe, seeds)
        loop.snapshot_at, loop.snapshot = (None if number else rewind), rewound
        if content is not None:
            loop.resume(content.pop("loop"))
        elif rewound is not None:
            loop.load_state(rewound)
        content = None

        def save(inner: Callable[[], dict], number=number, loop=loop, masks=masks) -> None:
            def outer() -> dict:
                return {
                    "round": number,
                    "rewound": loop.snapshot,
                    "masks": [dict(each) for each in masks],
                    "found": [[_packed(each) for each in copies] for copies in found],
                    "loop": inner(),
                }

            file.save(outer)

        loop.save = save
        if after_epoch is not None:
            loop.after_epoch = lambda epoch, number=number: after_epoch(number, epoch)
        trainings = loop.run()
        loop.learner.write_back()
        rewound = loop.snapshot
        # Copies train in step, also with one that has diverged; that one is done all the same.
        well = [not copies or copies[-1].training.reason is None for copies in found]
        for copies, *each, going in zip(found, masks, trainings, well, strict=True):
            if going:
                copies.append(Round(number, *each))
        well = [copies[-1].training.reason is None for copies in found]
        if number == rounds or not any(well):
            break
        goals = [c ** ((number + 1) / rounds) for c in compressions]
        goals = compressions if number == rounds - 1 else goals
        masks = [
            smallest_pruned(model, mask, goal) if going else mask
            for model, mask, goal, going in zip(models, masks, goals, well, strict=True)
        ]
    file.remove()
    return found


def _packed(done: Round) -> dict:
    """A round in plain values and tensors, for a checkpoint."""
    training = vars(done.training) | {"history": done.training.history.to_numpy().tolist()}
    return {"number": done.number, "masks": dict(done.masks), "training": training}


def _unpacked(values: dict) -> Round:
    training = values["training"]
    history = pd.DataFrame(training["history"], columns=COLUMNS).astype({"epoch": int})
    masks = Masks(values["masks"])
    return Round(values["number"], masks, Training(**training | {"history": history}))


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
