"""Epochs over a data set for the copies of a `Learner`, and the record of what they give."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data import Dataset
from ..masks import Masks
from ..randomness import own_random_numbers
from ..values import instance
from .checkpoints import sketch
from .learners import Learner
from .recipes import Recipe

METRICS = ["loss", "top1", "top5"]
COLUMNS = ["epoch", "learning_rate", *(f"{s}_{m}" for s in ("train", "test") for m in METRICS)]


@dataclass
class Training:
    """What a training run recorded.

    Attributes:
        history: one row an epoch, with row 0 before training: epoch, learning_rate (of the last
            step), train_loss, train_top1, train_top5 (running averages over the epoch, NaN in row
            0), test_loss, test_top1, test_top5 (after the epoch; percent).
        reason: why it ended before its last epoch, or None.
        seconds: of training and evaluation, all sessions together.
        resumed: the epoch at which a checkpoint was taken up, or 0.
    """

    history: pd.DataFrame
    reason: str | None
    seconds: float
    resumed: int = 0

    @property
    def before(self) -> float:
        """Top-1 test accuracy before training, in percent."""
        return float(self.history["test_top1"].iloc[0])

    @property
    def top1(self) -> float:
        """Top-1 test accuracy after the last epoch, in percent."""
        return float(self.history["test_top1"].iloc[-1])

    @property
    def best(self) -> float:
        """The largest top-1 test accuracy after any epoch, as in the paper's figure 6; percent."""
        return float(self.history["test_top1"].iloc[1:].max())


class Loop:
    """Epochs over a data set for the K copies of a `Learner`, which may be one.

    Every epoch draws from generators seeded by (seed, epoch), so that a run resumed from its
    checkpoint, or rewound, sees the same batches as one that never stopped.
    """

    def __init__(
        self, learner: Learner, dataset: Dataset, recipe: Recipe, seeds: list[int]
    ) -> None:
        self.learner, self.seeds = learner, seeds
        self.recipe = instance(recipe, Recipe, "recipe")
        self.dataset = instance(dataset, Dataset, "dataset").to(learner.device)
        self.distinct = sorted(set(seeds))
        which = [self.distinct.index(seed) for seed in seeds]
        self.batch_of = torch.tensor(which, device=learner.device)
        images = len(dataset.train_y)
        if images < 2:
            raise ValueError(f"{dataset.name} has {images} training image; expected at least 2")
        # BatchNorm cannot train on a single image.
        self.drop_last = images > recipe.batch_size and images % recipe.batch_size == 1
        self.steps = math.ceil(images / recipe.batch_size) - self.drop_last
        self.optimizer = learner.optimizer(recipe)
        self.save: Callable[[Callable[[], dict]], None] | None = None
        self.after_epoch: Callable[[int], None] | None = None
        self.snapshot_at: int | None = None
        self.snapshot: dict | None = None
        self.rows: list[list[list[float]]] = []  # epoch, copy, column
        self.step = 0
        self.past, self.resumed = 0.0, 0  # seconds and epochs of former sessions
        x, _ = next(self.dataset.batches("test", 2))
        self.first = outputs(learner, x.clone(), self.dataset)  # before training
        learner.check_copies(x, self.first)

    def run(self, progress: bool = False) -> list[Training]:
        """Train from ``step`` to the last epoch."""
        start = time.perf_counter() - self.past
        if not self.rows:
            self._record(self.step // self.steps, math.nan, None)
        first = self.step // self.steps + 1
        epochs = range(first, self.recipe.epochs + 1)
        for epoch in tqdm(epochs, desc="training", unit="epoch", disable=not progress, delay=1):
            if None not in map(self._end, range(len(self.seeds))):
                break
            with own_random_numbers(_mix(self.seeds[0], epoch)):
                trained = self._epoch(epoch)
            self._record(epoch, self.rate, trained)
            if self.save is not None:
                done = {"rows": self.rows, "seconds": time.perf_counter() - start}
                self.save(lambda done=done: self.state() | done)
        return self._results(time.perf_counter() - start)

    def resume(self, content: dict) -> None:
        """Go on where `save` was given ``content``."""
        self.load_state(content)
        self.rows, self.past = content["rows"], content["seconds"]
        self.resumed = len(self.rows) - 1

    def _epoch(self, epoch: int) -> Tensor:
        """One epoch, or what is left of it; sums over the copies stay on the device."""
        passes = [
            self.dataset.batches(
                "train", self.recipe.batch_size,
                torch.Generator(self.learner.device).manual_seed(_mix(seed, epoch)),
                self.recipe.augment, self.drop_last,
            )
            for seed in self.distinct
        ]  # fmt: skip
        sums = torch.zeros(len(self.seeds), 4, device=self.learner.device, dtype=torch.float64)
        for number, batch in enumerate(zip(*passes, strict=True), (epoch - 1) * self.steps):
            if number < self.step:  # a run that starts within an epoch
                continue
            if number == self.snapshot_at:
                self.snapshot = self.state()
            self.rate = self.recipe.rate(number, self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            own = len(batch) > 1  # a batch for each copy, or one for all
            x, y = batch[0]
            if own:
                x, y = (torch.stack(part)[self.batch_of] for part in zip(*batch, strict=True))
            y = y.expand(len(self.seeds), -1)
            logits = self.learner.forward(x, train=True, own=own)
            losses = _losses(logits, y)
            self.learner.step(losses.mean(1).sum(), self.optimizer)
            sums += _measure(logits.detach(), y, losses.detach())
            self.step = number + 1
        return sums

    def _record(self, epoch: int, rate: float, trained: Tensor | None) -> None:
        seen = [[math.nan] * 3] * len(self.seeds) if trained is None else _averages(trained)
        held_out = averages(self.learner, self.dataset, "test")
        self.rows.append([[epoch, rate, *a, *b] for a, b in zip(seen, held_out, strict=True)])
        if self.after_epoch is not None:
            self.learner.write_back()
            self.after_epoch(epoch)
            self.learner.read_back(self.optimizer)

    def _end(self, copy: int) -> int | None:
        """The row in which the training loss of a copy is not finite any more."""
        losses = [row[copy][2] for row in self.rows]
        return next((k for k, loss in enumerate(losses) if k and not math.isfinite(loss)), None)

    def _results(self, seconds: float) -> list[Training]:
        results, share = [], seconds / len(self.seeds)
        for number, well in enumerate(self.learner.finite()):
            rows, end, reason = [row[number] for row in self.rows], self._end(number), None
            if end is not None:
                rows = rows[: end + 1]
                reason = f"the training loss became {rows[-1][2]} in epoch {rows[-1][0]}"
            table = pd.DataFrame(rows, columns=COLUMNS).astype({"epoch": int})
            if end is None and not (well and math.isfinite(table["test_loss"].iloc[-1])):
                epoch = rows[-1][0]
                reason = f"the weights or the test loss were not finite after epoch {epoch}"
            results.append(Training(table, reason, share, self.resumed))
        return results

    def state(self) -> dict:
        """Weights, statistics, optimizer and the step, as copies."""
        learner, optimizer = self.learner.state(), self.optimizer.state_dict()
        return copy.deepcopy({"learner": learner, "optimizer": optimizer, "step": self.step})

    def load_state(self, state: dict) -> None:
        """Go back (or forward) to a `state`; the masks stay those of this run."""
        memory = copy.deepcopy(state["optimizer"]["state"])
        # Not its groups: they say which kernels to use, which is this device's affair.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": memory, "param_groups": groups})
        self.learner.load_state(state["learner"], self.optimizer)
        self.step = state["step"]

    def identity(self, masks: Sequence[Masks | None]) -> dict:
        """What must agree for a `Checkpoint` to be taken up; before the first step."""
        return {
            **{f"recipe.{k}": v for k, v in dataclasses.asdict(self.recipe).items()},
            "seeds": self.seeds,
            "data": self.dataset.fingerprint,
            "masks": [None if each is None else each.digest[:16] for each in masks],
            "weights": sketch(self.learner.state()),
            # Equal weights in another network; other devices round, and in mixed precision.
            "outputs": sketch({"logits": self.first}, alike=0.05),
            "network (layers, settings, types, what is frozen)": self.learner.kind,
        }


@torch.no_grad()
def outputs(learner: Learner, x: Tensor, dataset: Dataset) -> Tensor:
    """Logits of images of ``dataset`` in evaluation mode; ValueError where they do not fit it."""
    try:
        found = learner.forward(x, train=False)
    except (RuntimeError, IndexError, AssertionError) as error:
        raise ValueError(
            f"{learner.name} cannot run on images {tuple(x.shape)} of {dataset.name}:"
            f" {str(error).partition(chr(10))[0]}"
        ) from error
    if found.shape[-1] < dataset.num_classes:
        raise ValueError(
            f"the network has {found.shape[-1]} outputs, {dataset.name} has {dataset.num_classes}"
            " classes; expected at least one output a class"
        )
    return found


@torch.no_grad()
def averages(learner: Learner, dataset: Dataset, split: str) -> list[list[float]]:
    """Loss, top-1 and top-5 of every copy."""
    sums = torch.zeros(learner.copies, 4, device=learner.device, dtype=torch.float64)
    for x, y in dataset.batches(split, 1000):
        logits = outputs(learner, x, dataset)
        y = y.expand(learner.copies, -1)
        sums += _measure(logits, y, _losses(logits, y))
    return _averages(sums)


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63  # apart for all epochs of neighbouring seeds


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every copy and image, (K, batch), at least in float32."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    flat = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return flat.view(y.shape)


def _measure(logits: Tensor, y: Tensor, losses: Tensor) -> Tensor:
    """Sums over a batch, (K, 4): loss, right at first, right among five, images."""
    best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    right = (best == y.unsqueeze(-1)).double()
    numbers = torch.ones_like(right[..., 0])
    columns = (losses.double(), right[..., 0], right.sum(2), numbers)
    return torch.stack([column.sum(1) for column in columns], 1)


def _averages(sums: Tensor) -> list[list[float]]:
    return [[loss / n, 100 * top1 / n, 100 * top5 / n] for loss, top1, top5, n in sums.tolist()]
