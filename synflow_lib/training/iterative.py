"""Iterative magnitude pruning (IMP): train, prune the smallest weights, rewind, again."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..data import Dataset
from ..fast.selection import keep_largest
from ..graphs.network import joined, named_views, prunable, warn
from ..graphs.workspace import pruned_before
from ..masks import Masks
from ..pruning import prune
from ..values import kept_at, real, whole
from .alive import learner_for
from .checkpoints import Checkpoint, ForeignCheckpointError
from .epochs import COLUMNS, Loop, Training
from .learners import Learner, Many, One, gradients, same_mode
from .recipes import Recipe
from .train import apart


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
    compact: bool | None = None,
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
        rewind: the step of the first training to whose weights, BatchNorm statistics and optimizer
            state every round returns, under that round's masks; 0 is initialization. None never
            goes back: the next round goes on from the trained weights with a new optimizer and the
            whole schedule of learning rates, as the paper's figure 5a was made.
        keep: layers to leave dense.
        compact: as in `train`, for the pruned rounds; with a ``rewind`` from 1 they are trained
            whole, for the optimizer remembers gradients of units that are dead by now.
        checkpoint, save_every: as in `train`, for all rounds together.
        after_epoch: called with (round, epoch, model); what it writes counts, as in `train`.

    Returns:
        ``rounds + 1`` records, the dense training first; fewer where a training diverges, which
        is then the last one and has a ``training.reason``.

    Raises:
        ValueError: as in `prune` and `train`; rounds below 1; a rewind step outside the training;
            ``compact=True`` with a rewind step from 1.

    Paper: section 5, figure 5.

    >>> from synflow_lib import data, models
    >>> net = models.fc((1, 8, 8), depth=2, seed=0)
    >>> found = imp(net, data.digits(), Recipe(1, 0.1), compression=4, rounds=2)
    >>> [round(each.masks.compression) for each in found]
    [1, 2, 4]
    """
    if compact and rewind:
        raise ValueError(
            f"compact=True with rewind={rewind!r}; expected rewind=0 or None, or compact=None"
        )

    def living(_, masks: list[Masks]) -> Learner:
        return learner_for(
            model, masks[0], dataset, recipe, compact=compact, watched=after_epoch is not None,
            amp=amp,
        )  # fmt: skip

    with same_mode(model), gradients(model):
        return _run(
            lambda _, masks: One(model, masks, amp=amp), [model], dataset, recipe, [compression],
            rounds=rounds, rewind=rewind, seeds=[whole(seed, "seed")], keep=keep, living=living,
            checkpoint=checkpoint, save_every=save_every,
            after_epoch=after_epoch and (lambda *at: after_epoch(*at, model)),
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

    Copies of one seed with equal weights, such as one network on its way to many compressions,
    begin with the same dense training, which is done once for all of them.

    Returns:
        For each copy the ``rounds + 1`` records that `imp` gives. A copy that diverges ends alone.

    >>> from synflow_lib import data, models
    >>> nets = [models.fc((1, 8, 8), depth=2, seed=0) for _ in range(2)]
    >>> found = imp_many(nets, data.digits(), Recipe(1, 0.1), [2, 8], rounds=1)
    >>> [copy[-1].masks.compression for copy in found]
    [2.0, 8.0]
    """
    models, seeds, compressions = apart(models, seeds, "compressions", compressions)
    with gradients(*models):
        return _run(
            lambda models, masks: Many(models, masks, amp=amp), models, dataset, recipe,
            compressions, rounds=rounds, rewind=rewind, seeds=seeds, keep=keep,
            checkpoint=checkpoint, save_every=save_every,
        )  # fmt: skip


def _run(
    learner: Callable[[list[nn.Module], list[Masks]], Learner],
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
    living: Callable[[list[nn.Module], list[Masks]], Learner] | None = None,
    after_epoch: Callable[[int, int], None] | None = None,
) -> list[list[Round]]:
    """The rounds; ``learner`` trains whole networks, ``living`` pruned ones from their step 0."""
    rounds = whole(rounds, "rounds", 1)
    compressions = [real(compression, "compression") for compression in compressions]
    masks = [Masks.ones(model, keep=keep) for model in models]
    # The final counts are checked before hours of training, by pruning once.
    for model, compression in zip(models, compressions, strict=True):
        prune(model, "magnitude", compression, keep=keep)
        if pruned_before(prunable(model, keep=keep).values()):
            warn(
                f"weights of {type(model).__name__} are zero, as pruning leaves them; the first"
                " training is of all weights, those too. Start from a network as it was made"
            )
    loop = Loop(learner(models, masks), dataset, recipe, seeds)
    last = loop.steps * recipe.epochs - 1
    if rewind is not None and not 0 <= (rewind := whole(rewind, "rewind")) <= last:
        raise ValueError(f"rewind={rewind!r}; expected a step from 0 to {last}, or None")
    identity = {"rounds": rounds, "rewind": rewind, "compressions": compressions}
    file = Checkpoint(checkpoint, checkpoint and identity | loop.identity(masks), save_every)
    # All that a run is, between its rounds, in plain values and tensors.
    run = file.load(loop.learner.device) or {
        "round": 0,
        "start": None,  # a `Loop.state` to which rounds return
        "like": _alike(models, seeds),
        "masks": [dict(each) for each in masks],
        "found": [[] for _ in models],
    }
    like, found = run["like"], run["found"]

    for number in range(run["round"], rounds + 1):
        run["round"] = number
        masks = [Masks(each) for each in run["masks"]]
        # The dense round of equal copies is done by the first of them.
        trainers = sorted(set(like)) if number == 0 else range(len(models))
        nets, kept, own_seeds = ([each[t] for t in trainers] for each in (models, masks, seeds))
        loop = Loop(learner(nets, kept), dataset, recipe, own_seeds)
        if number == 0:
            loop.snapshot_at, loop.snapshot = rewind, run["start"]
        else:
            small = living is not None and not rewind
            if small and run["start"] is None:  # a resumed run takes the same network apart
                run["start"] = loop.state()
            if run["start"] is not None:
                loop.load_state(run["start"])
            if small:
                loop = Loop(living(nets, kept), dataset, recipe, own_seeds)
        shapes = {name: tuple(tensor.shape) for name, tensor in loop.learner.state().items()}
        if "loop" in run:
            if run.get("shapes", shapes) != shapes:
                raise ForeignCheckpointError(
                    f"{checkpoint}: round {number} was trained with another compact= (or None found"
                    " otherwise, as with an after_epoch); resume as it began, or delete the file"
                )
            loop.resume(run.pop("loop"))
        run["shapes"] = shapes

        def save(inner: Callable[[], dict], loop: Loop = loop) -> None:
            start = run["start"] or loop.snapshot
            file.save(lambda: run | {"start": start, "loop": inner()})

        loop.save = save
        loop.after_epoch = after_epoch and functools.partial(after_epoch, number)
        try:
            trainings = loop.run()
        finally:  # also of what an interrupted training has reached
            loop.learner.write_back()
        if number == 0:
            trainings = _spread(trainings, models, like)
            run["start"] = loop.snapshot and _spread_state(loop.snapshot, like)
        if rewind is None:
            run["start"] = None
        # Copies train in step, also with one that has diverged; that one is done all the same.
        for copies, mask, training in zip(found, masks, trainings, strict=True):
            if _is_well(copies):  # as a checkpoint takes it: plain values and tensors
                plain = vars(training) | {"history": training.history.to_numpy().tolist()}
                copies.append({"number": number, "masks": dict(mask), "training": plain})
        if not any(map(_is_well, found)):
            break
        for copy, (model, goal) in enumerate(zip(models, compressions, strict=True)):
            if number < rounds and _is_well(found[copy]):
                goal = goal if number == rounds - 1 else goal ** ((number + 1) / rounds)
                run["masks"][copy] = dict(smallest_pruned(model, masks[copy], goal))
    file.remove()
    return [[_unpacked(each) for each in copies] for copies in found]


def _is_well(rounds: list[dict]) -> bool:
    return not rounds or rounds[-1]["training"]["reason"] is None


def _alike(models: Sequence[nn.Module], seeds: Sequence[int]) -> list[int]:
    """For each copy the first one of its seed, parameters and statistics, perhaps itself.

    >>> layer, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> _alike([layer, other, layer, layer], [0, 0, 0, 1])
    [0, 1, 0, 3]
    """
    states = [_tensors(model) for model in models]

    def equal(one: int, other: int) -> bool:
        return seeds[one] == seeds[other] and all(map(torch.equal, states[one], states[other]))

    copies = range(len(models))
    return [next((one for one in range(copy) if equal(one, copy)), copy) for copy in copies]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@torch.no_grad()
def _spread(
    trainings: list[Training], models: Sequence[nn.Module], like: list[int]
) -> list[Training]:
    """Each copy's weights and record, from those of the copies that trained; time is shared."""
    for model, one in zip(models, like, strict=True):
        for mine, trained in zip(_tensors(model), _tensors(models[one]), strict=True):
            mine.copy_(trained)
    records = dict(zip(sorted(set(like)), trainings, strict=True))
    shares = {one: records[one].seconds / count for one, count in Counter(like).items()}
    return [dataclasses.replace(records[one], seconds=shares[one]) for one in like]


def _spread_state(state: dict, like: list[int]) -> dict:
    """A `Loop.state` of the copies that trained, for all copies."""
    trainers = sorted(set(like))
    index = torch.tensor([trainers.index(one) for one in like], device="cpu")

    def spread(part: object) -> object:
        of_copies = isinstance(part, Tensor) and part.dim()  # Adam's count of steps is one for all
        return part[index.to(part.device)] if of_copies else part

    return state if len(trainers) == len(like) else tree_map(spread, state)


def _unpacked(values: dict) -> Round:
    history = pd.DataFrame(values["training"]["history"], columns=COLUMNS).astype({"epoch": int})
    training = Training(**values["training"] | {"history": history})
    return Round(values["number"], Masks(values["masks"]), training)


def smallest_pruned(model: nn.Module, masks: Masks, compression: float) -> Masks:
    """The masks without their smallest weights; what was pruned stays pruned, ties or not.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[0.0, 0.0, 3.0, 1.0]])
    >>> masks = Masks({"weight": torch.tensor([[False, True, True, True]])})
    >>> smallest_pruned(layer, masks, 4 / 3)["weight"]
    tensor([[False,  True,  True,  True]])
    """
    # Not by `prune`: for that what is zero was pruned before, and here it may be a survivor.
    sizes = joined(
        parameter.detach().abs().masked_fill(~masks[name].to(parameter.device), -1)
        for name, parameter in masks.parameters_of(model)
    )
    flat = keep_largest(sizes, kept_at(masks.total, compression))
    views = named_views(flat, {name: mask.shape for name, mask in masks.items()})
    return Masks({name: view.clone() for name, view in views.items()})
