"""Training of masked networks: one with `train`, copies of one architecture with `train_many`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from ..data import Dataset
from ..graphs.copies import private_copy
from ..masks import Masks
from ..values import instance, seeds_of, whole
from .alive import learner_for
from .checkpoints import Checkpoint
from .epochs import METRICS, Loop, Training, averages
from .learners import Many, One, gradients, same_mode
from .recipes import Recipe


def train(
    model: nn.Module,
    masks: Masks | None,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    compact: bool | None = None,
    amp: bool | None = None,
    compile: bool = False,
    checkpoint: str | Path | None = None,
    save_every: float = 60.0,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
    progress: bool = False,
) -> Training:
    """Train a masked network in place; pruned weights are exactly zero before, during and after.

    The masks multiply the gradients too, so that neither momentum nor weight decay knows of a
    pruned weight. On a GPU the images lie and are augmented there, convolutions run channels-last
    in mixed precision, and nothing waits for the device within an epoch.

    Args:
        model: a classifier, on the device to train on.
        masks: what stays; None trains all weights.
        dataset: its images are moved to the model's device.
        recipe: how to train.
        seed: of the order of the images, of augmentation and dropout; the caller's random numbers
            are not touched.
        compact: train a smaller network without dead units, to the same result up to rounding, and
            give its weights back to ``model`` (before each ``after_epoch``, and at the end). What
            the masks keep but no path reaches does not learn; weight decay shrinks it as ever.
            BatchNorm statistics of units that do not reach the output stay as they were. A
            checkpoint holds the smaller network. None: where training is long and it pays, and
            no ``after_epoch`` may write into the model.
        amp: mixed precision (bfloat16, or float16 with scaled gradients where the GPU is too old);
            None: on a GPU.
        compile: run the network through ``torch.compile``.
        checkpoint: a file from which to resume, and in which to save at most every ``save_every``
            seconds; removed at the end. It belongs to one run: recipe, seed, images, masks and
            initial weights (these up to rounding, so that a run may move to another machine or
            device). A damaged one is set aside with a warning, and the run starts afresh; a disk
            that is full is a warning too.
        after_epoch: called with (epoch, model) before training, as epoch 0, and after each epoch.
            What it writes into weights and statistics, or freezes, counts from there on, except
            that pruned weights stay zero; with ``compact=True`` it may only look.
        progress: show a bar.

    Returns:
        A `Training`: history of losses and accuracies. A loss that is NaN or infinite ends the
        run, with a ``reason``.

    On one machine, device and number of threads equal arguments give equal bits, also after any
    number of resumptions; elsewhere results differ by rounding.

    Raises:
        ValueError: masks of another network, a network with fewer outputs than classes or with
            nothing to train, a checkpoint that belongs to another run, an ``after_epoch`` that
            replaces parameters; with ``compact=True`` a network whose dead units cannot be taken
            out, or an ``after_epoch`` that changes it.
        TypeError: a network whose output is not one tensor.

    Paper: appendix, hyper-parameters; figures 1 and 6.

    >>> from synflow_lib import data, models
    >>> from synflow_lib.pruning import prune
    >>> net = models.fc((1, 8, 8), depth=2, seed=0)
    >>> result = train(net, prune(net, "synflow", 10), data.digits(), Recipe(2, 0.1))
    >>> result.before < 25 < result.top1
    True
    """
    with same_mode(model), gradients(model):
        learner = learner_for(
            model, masks, dataset, recipe, compact=compact, watched=after_epoch is not None,
            amp=amp, compile=compile,
        )  # fmt: skip
        loop = Loop(learner, dataset, recipe, [whole(seed, "seed")])
        loop.after_epoch = after_epoch and (lambda epoch: after_epoch(epoch, model))
        try:
            return _fit(loop, [masks], checkpoint, save_every, progress)[0]
        finally:  # also of what an interrupted training has reached
            learner.write_back()


def train_many(
    models: Sequence[nn.Module],
    masks: Sequence[Masks | None],
    dataset: Dataset,
    recipe: Recipe,
    *,
    seeds: Sequence[int] | int = 0,
    amp: bool | None = None,
    checkpoint: str | Path | None = None,
    save_every: float = 60.0,
    progress: bool = False,
) -> list[Training]:
    """Train many masked copies of one architecture at once, each as `train` would.

    Their weights are stacked and every layer runs for all copies in one call
    (``torch.func.stack_module_state`` and ``vmap``): the same mathematics for a fraction of the
    overhead. See `batching_pays` for where it is worth it.

    Rounding depends on the company: a product of stacked matrices may be cut up otherwise than one
    alone. The same group gives the same bits again, also resumed; a copy trained alone, or in
    another group, agrees up to rounding, which training amplifies (2 of 432 losses, by 3e-5).

    Args:
        models: K networks of one architecture, trained in place; one that stands several times is
            trained as often, from its weights, and becomes the first of these.
        masks: K masks, or None for a dense copy; they may leave different layers dense.
        seeds: one for each copy, or one for all; copies of one seed see the same batches.
        (others): as in `train`.

    Returns:
        K results, in order. A copy whose loss is NaN ends alone; the others go on. ``seconds`` is
        each copy's share of the time.

    Raises:
        ValueError: numbers of models, masks and seeds that differ; networks of different
            architectures; as in `train`.

    >>> from synflow_lib import data, models
    >>> nets = [models.fc((1, 8, 8), depth=2, seed=seed) for seed in range(3)]
    >>> results = train_many(nets, [None] * 3, data.digits(), Recipe(1, 0.1), seeds=range(3))
    >>> len(results), min(result.top1 for result in results) > 20
    (3, True)
    """
    models, seeds, masks = apart(models, seeds, "masks", masks)
    with gradients(*models):
        loop = Loop(Many(models, masks, amp=amp), dataset, recipe, seeds)
        results = _fit(loop, masks, checkpoint, save_every, progress)
        loop.learner.write_back()
    return results


def _fit(
    loop: Loop,
    masks: Sequence[Masks | None],
    path: str | Path | None,
    save_every: float,
    progress: bool,
) -> list[Training]:
    checkpoint = Checkpoint(path, loop.identity(masks) if path else {}, save_every)
    if (content := checkpoint.load(loop.learner.device)) is not None:
        loop.resume(content)
    loop.save = checkpoint.save
    results = loop.run(progress=progress)
    checkpoint.remove()
    return results


def apart(
    models: Sequence[nn.Module], seeds: Sequence[int] | int, what: str, others: Sequence
) -> tuple[list[nn.Module], list[int], list]:
    """The models, copied where one has stood before, with as many seeds and ``others``."""
    models, others = list(models), list(others)
    seeds = seeds_of(seeds, len(models))
    if not models or not len(models) == len(others) == len(seeds):
        raise ValueError(
            f"{len(models)} models, {len(others)} {what} and {len(seeds)} seeds; expected equal"
            " numbers, at least one"
        )
    seen: set[int] = set()
    models = [private_copy(m) if id(m) in seen or seen.add(id(m)) else m for m in models]
    return models, seeds, others


def evaluate(model: nn.Module, dataset: Dataset, split: str = "test") -> dict[str, float]:
    """Loss and accuracies of a network in evaluation mode; nothing of it changes.

    Returns:
        loss (cross-entropy), top1 and top5 in percent.

    >>> from synflow_lib import data, models
    >>> sorted(evaluate(models.fc((1, 8, 8), seed=0), data.digits()))
    ['loss', 'top1', 'top5']
    """
    with same_mode(model):
        learner = One(model, None, amp=False)
        dataset = instance(dataset, Dataset, "dataset").to(learner.device)
        found = averages(learner, dataset, split)
    return dict(zip(METRICS, found[0], strict=True))
