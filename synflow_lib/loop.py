"""The loop behind `prune` and `trajectory`: score, remove, score again.

Read `scores` first. `pruning` says how many weights an iteration keeps, and `trajectory.Record`
writes down which went when.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .batches import first_input
from .fast.selection import count, erase, keep_cut, keep_largest, places
from .graphs.follow import wiring
from .graphs.network import find_input_shape, is_bias, some, warn
from .graphs.workspace import Context, Workspace, pruned_before
from .guards import ZeroScores, refuse_unfit, warn_of_silence
from .masks import Masks
from .probe import SteeringQuota, left_dense
from .probe import steering as steering_weights
from .scores import Method, precision, resolve, scoring
from .synflow import SynFlow
from .trajectory import Record, Trajectory
from .values import kept_at, whole

# (iteration from 0, scores, alive, method) -> bool of the survivors, and the score of the smallest
# cut, or NaN; None ends the run.
Decide = Callable[[int, Tensor, Tensor, Method], "tuple[Tensor, float] | None"]
_SHRUNK = 0.75  # dead units are looked for again when this share of the last look's weights is left


class PruningLoop:
    """One run of one method on one private copy of the model."""

    def __init__(
        self,
        model,
        method,
        context: Context,
        progress: bool | None,
        *,
        recorded: bool,
        steering: str = "dense",
        **select,
    ) -> None:
        self.method_class = resolve(method)
        if steering not in ("dense", "layer"):
            raise ValueError(f"steering={steering!r}; expected 'dense' or 'layer'")
        example = first_input(context.batch)
        if self.method_class.by_paths and steering == "dense":
            keep = select.get("keep", ())
            select["keep"] = left_dense(model, keep, context.input_shape, example)
        self.work = Workspace(model, precision(model, self.method_class, context), **select)
        self.model, self.context, self.progress = model, context, progress
        self.size = self.work.flat.numel()
        self.layout = self.work.layout  # of all N; the workspace's own shrinks with dead units
        self.quota: SteeringQuota | None = None
        if self.method_class.by_paths and steering == "layer":
            where = steering_weights(model, context.input_shape, example)
            self.quota = SteeringQuota(self.work, where) if where else None
        self.record = Record(self.size, self.work.flat) if recorded else None
        self.zeros: ZeroScores | None = None  # known from the first scoring on
        self.nonzero_layers, self.start = _not_pruned_before(self.work, self.method_class)
        self.start_count = count(self.start)

    def iterations(self, given: int | None) -> int:
        return self.method_class.iterations if given is None else whole(given, "iterations", 1)

    def bar(self, total: int | None = None) -> tqdm:
        # Only a terminal sees a bar unasked: in a notebook it would become part of the outputs.
        hide = not (sys.stderr.isatty() if self.progress is None else self.progress)
        return tqdm(total=total, desc="pruning", unit=" iterations", disable=hide, delay=2)

    def score(self, method: Method) -> Tensor:
        """Scores of all places of the workspace."""
        flat = method.flat()
        refuse_unfit(method, flat)
        if self.quota:
            flat = self.quota.ordered(flat)
        if self.zeros is None:
            # What steers is compared by magnitude, not by its scores.
            start = self.start & ~self.quota.mask if self.quota else self.start
            scores, start = self.work.views(flat), self.work.views(start)
            nonzero = {n: on and bool(start[n].any()) for n, on in self.nonzero_layers.items()}
            warn_of_silence(scores, nonzero)
            self.zeros = ZeroScores.of(method, scores, start, nonzero)
        return flat

    def iterate(
        self, decide: Decide, length: int | None = None, start: Tensor | None = None
    ) -> Tensor:
        """Score, and keep what ``decide`` chooses, ``length`` times or until it ends the run.

        Scores and masks are laid out like the workspace. Once the method has left dead units out
        it holds fewer than N weights, and ``origin`` says which of the N each of them is.

        Returns:
            The survivors, bool (N,).
        """
        origin: Tensor | None = None
        alive = self.start if start is None else start
        looked_at = count(alive)
        with scoring(self.method_class, self.work, self.context) as method, self.bar(length) as bar:
            if self.record and self.start_count < self.size:  # before the first iteration zeros go
                zeros, everything = torch.zeros_like(self.work.flat), torch.ones_like(alive)
                self.record.add(zeros, everything, alive, self.start_count)
            for step in itertools.count() if length is None else range(length):
                scores = self.score(method)
                decision = decide(step, scores, alive, method)
                if decision is None:
                    break
                stay, cut = decision
                left = count(stay)
                if self.record:
                    self.record.within = method.within  # a function's is known once it has scored
                    self.record.add(scores, alive, stay, left, cut)
                alive = stay
                bar.update()
                if step + 1 == length:  # nothing is scored again
                    break
                erase(self.work.flat, alive)
                if self.context.fast and left < _SHRUNK * looked_at:
                    looked_at = left
                    if smaller := method.compact(alive):
                        take, alive = smaller
                        origin = take.places() if origin is None else take(origin)
                        if self.record:
                            self.record.move(take, origin)
        if origin is None:
            return alive
        mask = torch.zeros(self.size, dtype=torch.bool, device=alive.device)
        return mask.index_fill_(0, origin.index_select(0, places(alive)).long(), True)

    def masks(self, flat: Tensor, scope: str) -> Masks:
        masks = Masks.from_flat(flat, self.layout)
        if self.zeros:
            self.zeros.warn(masks, scope)
        return masks

    def finished(self) -> Trajectory:
        """All of a recorded run, once it has ended."""
        return self.record.finished(self.layout, self.zeros)

    def by_densities(self, densities: list[float], kept: int) -> Tensor:
        """Keep a share of all weights in each iteration, ``kept`` in the last: bool (N,)."""
        counts = {max(kept, round(self.size * density)) for density in densities[:-1]} | {kept}
        # Iterations that remove nothing are left out.
        counts = sorted((number for number in counts if number < self.start_count), reverse=True)

        def decide(step: int, scores: Tensor, alive: Tensor, method: Method):
            # For the record: R is the smallest cut of a chain, where every layer is a cut.
            wanted = self.record and isinstance(method, SynFlow)
            cut = float(method.R) if wanted else math.nan
            return self.choose(scores, counts[step], alive, method.within), cut

        flat = self.iterate(decide, len(counts))
        if kept > self.start_count:  # fill up with what is zero
            flat = flat.clone()
            flat[places(~flat)[: kept - self.start_count]] = True
        return flat

    def choose(self, scores: Tensor, number: int, alive: Tensor, within: float) -> Tensor:
        """The ``number`` that stay, the largest scores; of the quota's the largest weights."""
        if self.quota is None:
            return keep_largest(scores, number, alive, within=within)
        steers = self.quota.stay(number / self.size, alive)
        rest = max(0, number - count(steers))
        return steers | keep_largest(scores, rest, alive & ~self.quota.mask, within=within)

    def local_counts(self, compression: float) -> dict[str, int]:
        """Of each layer how many weights stay, at least one."""
        sizes = {name: shape.numel() for name, shape in self.layout.items()}
        return {name: kept_at(size, min(float(compression), size)) for name, size in sizes.items()}

    def warn_of_zeros(self, goal: dict[str, int]) -> None:
        """Warn where more weights are to stay than are not zero: of all (named "") or a layer."""
        among = {"": self.start, **self.work.views(self.start)}
        nonzero = {name: count(among[name]) for name in goal}
        if short := [name for name, number in goal.items() if number > nonzero[name]]:
            total = sum(among[name].numel() for name in short)
            left, stay = (sum(numbers[name] for name in short) for numbers in (nonzero, goal))
            of = f" of {some(short)}" if short[0] else ""
            warn(
                f"{left} of the {total} weights{of} are not zero and {stay} are to stay: the masks"
                " keep some that are zero. Prune further, or apply the masks of the first time"
                " again"
            )

    def local(self, densities: list[float], compression: float) -> Tensor:
        """The same within every layer, at least one weight each."""
        sizes = [shape.numel() for shape in self.layout.values()]
        goal = list(self.local_counts(compression).values())

        def decide(step: int, scores: Tensor, alive: Tensor, method: Method):
            counts = goal
            if step < len(densities) - 1:
                shares = [round(size * densities[step]) for size in sizes]
                counts = [max(a, b) for a, b in zip(shares, goal, strict=True)]
            if self.start_count < self.size:
                scores = scores.masked_fill(~self.start, -torch.inf)
            steers = self.quota.mask if self.quota else torch.zeros_like(alive)
            layers = [self.work.views(flat).values() for flat in (scores, alive, steers)]
            stay = [
                self._of_layer(*(flat.flatten() for flat in parts), number, method.within)
                for *parts, number in zip(*layers, counts, strict=True)
            ]
            return torch.cat(stay), math.nan

        # Within a layer even zeros may have to stay, so no unit may be left out as dead.
        self.context.fast &= self.start_count == self.size
        return self.iterate(decide, len(densities), torch.ones_like(self.start))

    @staticmethod
    def _of_layer(
        scores: Tensor, alive: Tensor, steers: Tensor, number: int, within: float
    ) -> Tensor:
        """The best ``number`` of one layer; what steers and the rest keep the same share of it."""
        share = round(number * count(steers) / steers.numel())
        if not share:
            return keep_largest(scores, number, alive, within=within)
        rest = keep_largest(scores, number - share, alive & ~steers, within=within)
        return rest | keep_largest(scores, share, alive & steers)

    def by_cuts(self, stop: int) -> Trajectory:
        """Theorem 3 as the schedule, until ``stop`` weights are left or no more can go."""
        # Stay under the cut by more than rounding errors, or those may remove the last path.
        slack = 1.0 - torch.finfo(self.work.flat.dtype).eps ** 0.5

        def decide(step: int, scores: Tensor, alive: Tensor, method: Method):
            left = self.record.counts[-1]
            if left <= stop:
                return None
            cut = self._smallest_cut(scores, alive, method)
            paths = alive & ~self.quota.mask if self.quota else alive
            stay = keep_cut(scores, cut * slack, paths, within=method.within)
            if isinstance(method, SynFlow) and method.paths.detours:
                stay = _spare_shortest(stay, paths, method, slack)
            if self.quota:
                stay |= self.quota.stay(count(stay) / self.quota.others, alive)
            kept = count(stay)
            if kept < stop:  # too many would go: the best of those fill up to the count
                stay |= keep_largest(scores, stop - kept, alive ^ stay, within=method.within)
            return (stay, cut) if max(kept, stop) < left else None

        self.iterate(decide)
        return self.finished()

    def _smallest_cut(self, scores: Tensor, alive: Tensor, method: Method) -> float:
        """The total score of the cut where it is smallest."""
        if method.cut_size is not None:  # R, for sums over paths: no need to know the cuts
            return float(method.cut_size)
        scores = scores.masked_fill(~alive, 0)
        if float(scores.amin()) < 0:
            raise ValueError(
                f"{self.method_class.__name__} gave negative scores; schedule='cut' needs"
                " positive conserved ones (Theorem 3)"
            )
        sums = [float(view.sum(dtype=torch.float64)) for view in self.work.views(scores).values()]
        return min(sum(sums[layer] for layer in cut) for cut in self.cuts)

    @functools.cached_property
    def cuts(self) -> list[list[int]]:
        """The cuts of the network, each as the numbers of the layers that cross it."""
        example = first_input(self.context.batch)
        shape = find_input_shape(self.model, self.context.input_shape, example)
        place_of = {name: position for position, name in enumerate(self.work.names)}
        named = [
            [f"{n}.weight".removeprefix(".") for n in names]
            for names, _ in wiring(self.model, shape).cuts()
        ]
        # A cut with a dense layer in it (keep=) cannot be emptied and needs no watching.
        watched = [[place_of[n] for n in names] for names in named if set(names) <= set(place_of)]
        if not watched:
            raise ValueError("keep= leaves a dense layer in every cut: nothing for 'cut' to watch")
        return watched


def _not_pruned_before(work: Workspace, method: type[Method]) -> tuple[dict[str, bool], Tensor]:
    """Which layers are not all zero, and the weights that a run starts from, bool (N,).

    A weight that is zero counts as pruned before and goes first; a bias may start at zero.
    """
    views = work.views(work.flat)
    nonzero = {name: bool(view.any()) for name, view in views.items()}
    # A layer of zeros alone is initialized so, such as a head, if nothing was pruned elsewhere.
    zero = [name for name, any_left in nonzero.items() if not (any_left or is_bias(name))]
    if zero and pruned_before(view for name, view in views.items() if not is_bias(name)):
        zero = []
    if zero and not method.by_paths:  # which takes them as ones, and says so
        warn(
            f"{zero} hold zeros only: taken as zero-initialized, not as pruned before. What"
            " scores weights by their values sees nothing there and prunes them first"
        )
    parts = [(view != 0) | (name in zero) | is_bias(name) for name, view in views.items()]
    start = torch.cat([part.flatten() for part in parts])
    return nonzero, start if bool(start.any()) else torch.ones_like(start)


def _spare_shortest(stay: Tensor, alive: Tensor, method: SynFlow, slack: float) -> Tensor:
    """``stay``, and a path through the fewest weights, so that rho_max by path is reached.

    Theorem 3's argument for the sum over the shortest paths of a residual network alone: of the
    weights that would go, those stay that the shortest paths need most, so that what goes carries
    less than all of that sum. Where without any one of them no shortest path is left, the weights
    outside of the shortest paths go in their place.
    """
    short, total = method.shortest()
    limit = float(total) * slack
    if not limit:  # no such path is alive, nothing to spare
        return stay
    going = alive ^ stay
    spared = keep_cut(short, limit, going, within=method.within)
    each_carries_all = count(spared) == count(going)  # else the least of them would go
    if each_carries_all:
        return keep_cut(short, limit, alive, within=method.within)
    return stay | spared
