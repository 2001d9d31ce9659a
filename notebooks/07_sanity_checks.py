# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · Sanity checks: what does a mask know?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/synflow-lib/synflow-lib/blob/main/notebooks/07_sanity_checks.ipynb)
#
# A pruning method names single weights. Does it matter *which* ones? A paper of 2020 shuffled masks and
# drew new initial weights, and found no loss of accuracy; another one that random masks with good layer
# quotas do as well. A third asked how many of the kept weights do anything at all. Here SynFlow, SNIP
# and magnitude go through these checks.
#
# ![Test accuracy against compression for SynFlow's masks and changed ones: with the same units joined at random, or with other initial weights, accuracy stays up to 100; with weights at random places in each layer it falls beyond 30 and is at chance at 300. Against effective compression the curves lie much closer together](../figures/sanity_masks.png)
#
# *Left: at 100 some changes of SynFlow's masks cost nothing that we can see, others 60 percent and more.
# Right: the same networks, counting only the weights that lie on some path from input to output.*
#
# **Learning goals**
#
# - Say what a mask can know: densities, layer quotas, units, weights, values; and remove them one by one.
# - Tell the loss of weights from the loss of paths: direct and effective compression.
# - Measure how wide a pruned network is, and cut the dead units out of it.
# - Judge whether two pruning schedules differ: by their masks, and by what they train to.
#
# Everything trained here is the perceptron on digits of notebook 05, which is small; what needs no
# training uses VGG-16. About 2½ minutes on one CPU core.

# %% [markdown]
# ## Setup

# %%
SCALE = "classroom"  # @param ["classroom", "colab", "panel", "paper"]
KEEP_IN_DRIVE = True  # @param {type: "boolean"}

# On Colab this installs the package alone, so that torch and numpy stay as they are.
import importlib.util

if importlib.util.find_spec("synflow_lib") is None:
    # %pip install --quiet --no-deps git+https://github.com/synflow-lib/synflow-lib
    importlib.invalidate_caches()
    if importlib.util.find_spec("synflow_lib") is None:
        raise ModuleNotFoundError("synflow_lib: is the network there? Connect, run this cell again")
importlib.import_module("synflow_lib.colab").greet(SCALE, KEEP_IN_DRIVE)

import numpy as np
import pandas as pd
import torch

import synflow_lib as sf
from synflow_lib.reproduction import intervals
from synflow_lib.reproduction.experiments import questions, sanity, widths

checks, settings = sanity.checks(), sf.env.settings()
panel = checks.panel
net, data = panel.network()
N, rho_max = sum(w.numel() for w in sf.prunable(net).values()), sf.max_compression(net)
print(f"{checks.plan()}; N = {N:,}, rho_max = {rho_max:,.0f}")

# %% [markdown]
# ## Five things a mask can know
#
# 1. **How many** weights stay: the compression.
# 2. **How many in each layer**: the *quotas* $n_l$.
# 3. **Which units** of a layer have any: its width.
# 4. **Which weights** join those units.
# 5. **With which initial values** they fit together.
#
# Each check below keeps the first few and draws the rest at random:
#
# | name | keeps | draws anew |
# |---|---|---|
# | random, uniform or ERK quotas | 1 | the rest; quotas in proportion to the layer's size, or to the sum of its dimensions |
# | shuffled in layers | 1, 2 | which units, which weights |
# | rewired | 1, 2, 3 | which weights, among the same units |
# | reinitialized | 1, 2, 3, 4 | the initial values |
#
# A shuffled mask is a random mask with the quotas of the original; there is no other information in it.

# %%
# NBVAL_CHECK_OUTPUT
masks = sf.prune(net, "synflow", 100)
forms = {
    "synflow": masks,
    "rewired": sanity.rewired(net, masks, generator=0),
    "shuffled": masks.shuffled(generator=0),
    "erk": sf.quotas.random(net, sf.quotas.erk(net, 100), generator=0),
    "uniform": sf.quotas.random(net, sf.quotas.uniform(net, 100), generator=0),
}
shown = pd.DataFrame({name: list(sf.quotas.of(form).values()) for name, form in forms.items()})
shown.index = pd.Index(range(1, len(shown) + 1), name="layer")
print(f"weights kept in each layer at compression 100, together {masks.kept}")
same = ["synflow", "rewired", "shuffled"]
print(
    f"equal for {', '.join(same)}: {bool(shown[same].eq(shown['synflow'], axis=0).all(axis=None))}"
)
print(shown[["erk", "uniform"]].to_string())

# %% [markdown]
# ERK (Erdős-Rényi-Kernel) gives small layers a higher density. The last layer is the smallest, with 1,000
# weights.
#
# **Predict, then run.** Of its 474 weights, how many does SynFlow's mask keep in the last layer?

# %%
last_layer = sf.predict.Number("Weights of SynFlow's mask in layer 6", 0, 474, step=1, mine=None)
last_layer

# %%
print(last_layer.beside(shown["synflow"].iloc[-1]))
shown["synflow"].to_frame("weights of SynFlow's mask").T

# %% [markdown]
# ### Exercise 1 · Shuffle
#
# *5 minutes, difficulty 1 of 5.* The "shuffled" masks of some published code were never shuffled. Write a
# function that does it: the same shape, as many True, at random places.
#
# <details><summary>Hint</summary>
#
# Flatten, permute the places, restore the shape.
#
# </details>


# %%
def shuffle_mask(mask):
    """A bool tensor of any shape. Returns one of that shape, as many True, at random places."""
    ...


# %%
print(sf.exercises.check_shuffle(shuffle_mask))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def shuffle_mask(mask):
#     order = torch.randperm(mask.numel())
#     return mask.flatten()[order].view(mask.shape)
# ```
#
# </details>

# %% [markdown]
# ## Train them all
#
# SynFlow's masks come from the paper's schedule (100 steps). All networks of a seed start from the same
# weights and see the same batches, except the reinitialized ones. *Largest weights, same quotas* keeps
# the largest initial weights of each layer, as many as SynFlow. Masks as found are runs of notebook
# 05; they come out of the store if it has them.

# %%
trials = sanity.trials(checks)
table = sanity.accuracies(checks, trials)
dense = table[table["method"] == "dense"]["accuracy"].mean()
print(f"{len(table)} networks; unpruned: {dense:.1f} percent")

# %%
drawn = ["synflow", "synflow rewired", "synflow reinitialized", "synflow shuffled"]
drawn += ["largest within", "erk", "uniform"]
figure = sf.figures.changed_masks(table.query("method in @drawn"))
sf.figures.save(figure, "sanity_masks", table)
figure


# %% [markdown]
# Differences from SynFlow's own mask, paired by seed, in percent, with their 95% intervals:


# %%
def against(label, reference="synflow"):
    """Paired differences of accuracy, compression as index."""
    found = intervals.paired_difference(table, label, reference)
    return found.set_index(found["compression"].round(1))


changed = drawn[1:]
text = {
    label: against(label).apply(
        lambda row: f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]", axis=1
    )
    for label in changed
}
print(pd.DataFrame(text).T.to_string())


# %%
# NBVAL_CHECK_OUTPUT
# At 30, where they begin to part, and at 300, where accuracies scatter, the rounding of another
# processor may turn an answer; so these two stand in the table above only.
good = pd.DataFrame({label: against(label)["low"] > -5 for label in changed}).T
good = good[[c for c in (3.2, 10.0, 100.0) if c in good]]
print("less than 5 percent worse than SynFlow's mask, the whole interval")
print(good.rename(columns="{:g}".format).to_string())

# %% [markdown]
# - **Up to compression 10 none of these changes costs 5 percent.** Random masks with any of these quotas
#   do as well.
# - **Nor do other initial values, up to 100.** A mask found on other weights trains as well. SynFlow's
#   scores are made of initial weights, and still we see nothing that the mask knows about them. (At
#   300 the interval is too wide to say.)
# - **Nor do other weights, up to 100**, as long as the units are the same: rewired masks keep up. (At
#   300 it is undecided. With some thirty intervals, one or two exclude zero by chance.)
# - **From 30 on the shuffled masks fall**: by 2 percent at 30, by 65 at 100, and to chance at 300.
#   Layer quotas alone are *not* what SynFlow knows.
#
# Quotas *and* units are enough to do as well up to 100: SynFlow puts its weights on few units in each
# layer. (Which hidden units these are is arbitrary, since before training all are alike.) Why does that
# help? The right panel suggests an answer.
#
# ## Two causes, told apart
#
# A shuffled mask spreads its weights over all units. A unit with no incoming or no outgoing weight is
# dead, and the weights on its other side do nothing. The **effective compression** counts them as
# pruned; the usual one is then called *direct*. So a shuffled network has lost (a) weights, and perhaps (b) something else. To tell, prune
# with SynFlow down to *as few weights as the shuffled mask has on paths*, seed by seed.

# %%
thin = table.query("method == 'synflow as thin'")
pair = table.query("method == 'synflow shuffled'").merge(
    thin, on=["compression", "seed"], suffixes=(" shuffled", " as thin")
)
columns = ["effective shuffled", "accuracy shuffled", "accuracy as thin"]
print(pair.groupby("compression")[columns].mean().round(1).to_string())
gap = against("synflow shuffled", "synflow as thin")
print("\nshuffled minus SynFlow with as few effective weights")
print(gap[["difference", "low", "high", "seeds"]].round(1).to_string())

# %%
# NBVAL_CHECK_OUTPUT
at = 100.0
lost = against("synflow shuffled").loc[at]
print(f"at compression {at:g} shuffling costs more than 40 percent: {bool(lost.high < -40)}")
left = abs(gap.loc[at].difference) < abs(lost.difference) / 2
print(f"of it remains less than a half at equal effective compression: {bool(left)}")

# %% [markdown]
# At 100 a shuffled mask has as few weights on paths as SynFlow's at nearly 2,000, and both train to
# about 20 percent. So the loss of weights on paths explains most of the 65 percent. Whether anything is
# left the seeds do not tell: so near chance the interval is some 20 percent wide. At 30 most of a small
# loss is left (1.9 of 2.3 percent, an interval that just excludes zero, one of four): places may matter
# a little too. SynFlow's own masks at 100 have nearly *every* weight on a path.

# %% [markdown]
# ### Exercise 2 · Disprove a claim
#
# *10 minutes, difficulty 3 of 5.* "A mask whose layers keep enough weights cannot be disconnected:
# quotas decide." Given a perceptron with one hidden layer of $h$ units and two quotas, `first` up to
# $\lfloor h/2 \rfloor$ times the inputs and `last` up to $\lfloor h/2 \rfloor$ times the outputs, find
# masks that keep exactly so many weights and join nothing.
#
# <details><summary>Hint</summary>
#
# Let the first layer write to some hidden units only, and the last one read others. Why is half of them
# enough?
#
# </details>


# %%
def cut_apart(inputs, hidden, outputs, first, last):
    """Five whole numbers. Returns bool tensors (hidden, inputs) and (outputs, hidden)."""
    ...


# %%
print(sf.exercises.check_cut_apart(cut_apart))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cut_apart(inputs, hidden, outputs, first, last):
#     a = torch.arange(hidden * inputs).view(hidden, inputs) < first  # the first units
#     b = torch.arange(hidden * outputs).view(hidden, outputs) < last
#     return a, b.flip(0).T  # the last units
# ```
#
# The first layer writes to the first half of the units, the last reads the second half. No quota is
# low, no layer is empty, nothing is connected.
#
# </details>

# %% [markdown]
# ## The other methods
#
# The same for magnitude and SNIP, and one more check: **inverted** scores keep what a method would
# prune first. If a score tells important weights from others, that must cost accuracy.
#
# **Predict, then run.** At compression 10 keep the *smallest* tenth of the initial weights instead of the
# largest. What does that change in accuracy?

# %%
upside_down = sf.predict.Number(
    "Accuracy of the smallest minus that of the largest weights, at 10",
    -100,
    20,
    "percent",
    mine=None,
)
upside_down

# %%
order = [
    (m, c)
    for m in ("synflow", "magnitude", "snip")
    for c in ("shuffled", "reinitialized", "inverted")
]
short = {"reinitialized": "reinit."}
parts = []
for method, change in order:
    found = against(f"{method} {change}", method)
    few = found[np.log10(found["compression"]).round(6).isin(checks.few)]
    label = f"{sf.figures.STYLES[method].label}, {short.get(change, change)}"
    parts.append(few.assign(method=label))
changes = pd.concat(parts, ignore_index=True)
figure = sf.figures.paired_differences(changes, "the mask as found")
sf.figures.save(figure, "sanity_changes", changes)
print(upside_down.beside(against("magnitude inverted", "magnitude").loc[10.0, "difference"]))
figure

# %%
# NBVAL_CHECK_OUTPUT
cut = table.query("compression > 9 and compression < 11").groupby("method")["disconnected"].mean()
mild = changes.query("compression < 11").set_index("method")
print("compression 10: change by more than 10 percent, clearly; share of networks disconnected")
for (method, change), label in zip(order, mild.index, strict=True):
    worse = bool(mild.high[label] < -10)
    print(f"{label:<24}{worse!s:>6}   {cut[f'{method} {change}']:.1f}")

# %% [markdown]
# Upside down, SynFlow is cut apart on every seed already at 10: it now removes the weights with the
# largest flow first, and scores again. Magnitude at initialization upside down is as good as magnitude at
# 10: the size of an initial weight says nothing there that is worth 5 percent. For SNIP upside down
# five seeds leave it undecided. (At compression 100 magnitude and SNIP are near chance before any
# change, so there is nothing left to lose.)
#
# ## Direct and effective compression
#
# The same count on the paper's VGG-16, without any training: for all methods on one network, for
# SynFlow on two.


# %%
def look_at(seed):
    """Weights and units on paths, for every method and compression."""
    images = sf.data.by_name(settings.scoring_data, size=32, channels=3)
    vgg = sf.models.vgg16(num_classes=100, seed=seed)
    batch = images.scoring_batch(2, seed=seed)
    # Claims about VGG-16 are claims about SynFlow: the others are looked at once.
    methods = (*sf.paper.FIVE, "erk") if seed == 0 else ("synflow",)
    return widths.families(vgg, batch, [10**a for a in checks.structure_alphas], seed, methods)


layers = pd.concat(
    [look_at(seed).assign(seed=seed) for seed in range(checks.structure_seeds)], ignore_index=True
)
vgg_totals = widths.network_totals(layers, ["seed"])
digits = ["synflow", "magnitude", "snip", "synflow shuffled", "erk"]
effective = pd.concat(
    [vgg_totals.assign(network="VGG-16"),
     table.query("method in @digits").assign(network=f"{panel.model} on {panel.dataset}")],
    ignore_index=True,
)  # fmt: skip
figure = sf.figures.effective_compressions(effective)
sf.figures.save(
    figure, "sanity_effective", effective[["network", "method", "compression", "seed", "effective"]]
)
figure

# %%
# NBVAL_CHECK_OUTPUT
effective["ratio"] = effective["effective"] / effective["compression"]
worst = effective.groupby(["network", "method"])["ratio"].max()
print("effective over direct compression, the largest of all compressions and seeds")
for network, ratios in worst.groupby(level="network"):
    own = ratios.xs(network)
    print(f"{network}: SynFlow below 1.1: {bool(own['synflow'] < 1.1)};", end=" ")
    print(f"all others above 2: {bool(own.drop('synflow').gt(2).all())}")
mild = effective.query("compression < 11")["ratio"].max()
print(f"up to compression 10 all below 1.2: {bool(mild < 1.2)}")

# %% [markdown]
# Only SynFlow stays on the diagonal. (Not exactly: after the last removal nothing is scored again, and
# a few survivors may have lost their paths.) For all others accuracy against *direct* compression
# compares networks of different sizes. At 10 the error is below a fifth. On the perceptron it is a
# factor of ten and more at 100; on VGG-16, which is larger, magnitude is cut at $10^{2.5}$ and the
# others leave the diagonal by $10^{3.5}$.
#
# ### What is left when the dead units go
#
# `sf.surgery.without_dead_units` takes out every unit that lies on no path. What is left is a smaller
# dense network with some zeros in it, and the same function.
#
# **Predict, then run.** One weight in a hundred stays. If zeros cost nothing, how many times fewer
# multiplications does the network need?

# %%
cheaper = sf.predict.Number("Multiply-adds of VGG-16, times fewer", 1, 1000, log=True, mine=None)
cheaper

# %%
# NBVAL_CHECK_OUTPUT
vgg = sf.models.vgg16(num_classes=100, seed=0).double()
kept = sf.trajectory(vgg, "synflow", compression=100).at(100)
small = sf.surgery.without_dead_units(vgg, kept)
x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
with torch.no_grad():
    error = (kept.apply_(vgg).eval()(x) - small.eval()(x)).abs().max()
weights = [sum(w.numel() for w in sf.prunable(n).values()) for n in (vgg, small)]
print(f"weights, zeros included: about {weights[0] / weights[1]:.0f} times fewer of {weights[0]:,}")
print(f"same outputs in float64 up to 1e-12: {bool(error < 1e-12)}")
cost = [sf.surgery.flops(n).dense.sum() for n in (vgg, small)]
sparse = sf.surgery.flops(vgg, kept).pruned.sum()
print(f"multiply-adds: about {cost[0] / cost[1]:.0f} times fewer with dense kernels,")
print(f"about {cost[0] / sparse:.0f} times fewer if zeros cost nothing; weights: 100 times")
print(cheaper.beside(round(cost[0] / sparse)))

# %% [markdown]
# Compression 100 is not a hundredth of the work: early layers keep more of their weights, and each of
# them works at many positions of the image.

# %% [markdown]
# ### Exercise 3 · Effective compression by hand
#
# *10 minutes, difficulty 3 of 5.* A perceptron is a chain of masks, each of shape
# (outputs, inputs). Which of the kept weights lie on a path from an input to an output?
#
# <details><summary>Hint</summary>
#
# Two sweeps: which units does an input reach, and which lead to an output? A kept weight is on a path if
# the one holds where it starts and the other where it ends.
#
# </details>


# %%
def on_paths(masks):
    """A list of bool tensors, (outputs, inputs) each. Returns such a list: kept and on a path."""
    ...


# %%
print(sf.exercises.check_on_paths(on_paths))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def on_paths(masks):
#     reached = [torch.ones(masks[0].shape[1], dtype=torch.bool)]  # from the input, forwards
#     for mask in masks:
#         reached.append((mask & reached[-1]).any(1))
#     leads = [torch.ones(masks[-1].shape[0], dtype=torch.bool)]  # to the output, backwards
#     for mask in reversed(masks):
#         leads.insert(0, (mask & leads[0][:, None]).any(0))
#     return [m & reached[i] & leads[i + 1][:, None] for i, m in enumerate(masks)]
# ```
#
# </details>

# %% [markdown]
# ## SynFlow narrows layers
#
# Patil and Dovrolis (PHEW, 2021) noticed that SynFlow concentrates its weights on few units: a path
# through a unit with many strong weights scores high, and so do all its weights. They argue that wider
# is better.
#
# **Predict, then run.** At compression 100, which share of a layer's units does SynFlow leave on some path,
# on average over VGG-16's layers? (Random masks with the same number of weights in each layer leave all.)

# %%
units_left = sf.predict.Number("Of a layer's units on a path at 100", 0, 100, "percent", mine=None)
units_left

# %%
near = layers[layers["compression"].between(99, 101)]
figure = sf.figures.live_units(near, vgg_totals)
sf.figures.save(figure, "sanity_units", vgg_totals)
left = vgg_totals.query("method == 'synflow' and 99 < compression < 101")["width"].mean()
print(units_left.beside(100 * left))
figure

# %%
# NBVAL_CHECK_OUTPUT
width = vgg_totals.pivot_table(index="method", columns="compression", values="width")
width.columns = [f"10^{np.log10(c):g}" for c in width.columns]
narrow, wide = width.loc["synflow"], width.loc["synflow shuffled"]
half = bool(narrow["10^2"] < wide["10^2"] / 2)
print(f"VGG-16 at 10^2, SynFlow has fewer than half the live units of random masks: {half}")
by_seed = against("synflow shuffled").query("compression < 11")
print(f"on digits the wide masks are better by 5 percent at 10: {bool((by_seed.low > 5).any())}")

# %% [markdown]
# The narrowing is real and large: at $10^2$ VGG-16's layers keep on average 40 percent of their units,
# where random masks with the same quotas keep all. Its price is not visible on digits: where wide and narrow masks have
# the same number of weights on paths (up to 10), the wide ones are not better by 5 percent, and whether
# they are better at all these seeds leave open. At 100 the narrow masks keep their weights on paths,
# and the wide ones lose most of theirs. Images larger than digits may judge differently; PHEW's
# evidence is from CIFAR and Tiny ImageNet.
#
# ## The exact cut schedule against the paper's
#
# Notebook 04 made theorem 3 a schedule: remove what sums to less than a cut, score again. It never
# collapses, and holds every compression in one run. Does it find the same masks? Do they train as well?

# %%
overlap = sanity.schedule_overlap(trials)
gap = intervals.paired_difference(table, "synflow cut", "synflow")
figure = sf.figures.two_schedules(overlap, gap)
sf.figures.save(figure, "sanity_schedules", overlap)
rounding = sanity.rounding_overlap(checks)
print(f"float32 against float64 at compression 100, smallest overlap: {min(rounding):.3f}")
print(gap[["compression", "difference", "low", "high", "seeds"]].round(1).to_string(index=False))
figure

# %%
# NBVAL_CHECK_OUTPUT
shared = overlap.groupby("compression")["overlap"].mean()
chance = overlap.groupby("compression")["by_chance"].mean()
print(f"masks share less than 90 percent at every compression: {bool((shared < 0.9).all())}")
print(f"more than twice what chance would give: {bool((shared > 2 * chance).all())}")
mild = gap.query("compression < 40")
same = bool((mild["low"] > -5).all() and (mild["high"] < 5).all())
print(f"up to compression 30 accuracy is the same within 5 percent: {same}")

# %% [markdown]
# Two different masks, and up to compression 30 the same accuracy within 5 percent. That fits what we saw
# above: rewired masks, with other weights on the same units, do as well there. At 100 and 300 the
# intervals reach beyond 5, and whether the schedules differ is undecided.
#
# ## What the papers say, what we measured
#
# The rule of the project: a claim is *confirmed* if the whole 95% interval lies inside the margin, *not
# confirmed* if it lies outside, and else *undecided*. "As good" means: less than 5 percent of accuracy
# worse. Where a claim is about several compressions the weakest decides and is shown.


# %%
setting = f"{panel.model} (BN) on {panel.dataset}"
vgg16 = "VGG-16 at initialization"
rows = []


def claim(quantity, text, ours, side, margin, why, conditions=setting, reason=""):
    """Notes a claim of a later paper and what was measured."""
    rows.append(
        sf.paper.agreement(
            "later work", quantity, paper=text, ours=ours, side=side, margin=margin,
            margin_reason=why, conditions=conditions, reason=reason,
        )
    )  # fmt: skip


def seeds_of(frame, value, low=0, high=np.inf):
    """Compression -> the values of a column, one a seed."""
    inside = frame[frame["compression"].between(low, high)]
    return {f"compression {c:.3g}": list(rows[value]) for c, rows in inside.groupby("compression")}


def as_good(quantity, text, label, reference="synflow", low=1, high=1e9, reason=""):
    """Claims that accuracy is less than 5 percent worse than the reference's in this range."""
    ours = intervals.paired_seeds(table, label, reference, low, high)
    quantity = f"accuracy of {quantity}, percent"
    claim(quantity, text, ours, "above", -5, questions.WHY_5, reason=reason)


frankle, su = "Frankle et al. 2021: ", "Su et al. 2020: "
vysogorets, phew = "Vysogorets and Kempe 2021: ", "Patil and Dovrolis 2021: "
shuffle = frankle + "shuffling within layers preserves or improves accuracy"
off_paths = "shuffled weights lie off paths; see the row at equal effective compression"
as_good("SynFlow shuffled minus SynFlow, up to 10", shuffle, "synflow shuffled", high=11)
as_good("SynFlow shuffled minus SynFlow, from 30", shuffle, "synflow shuffled", low=30,
        reason=off_paths)  # fmt: skip
fresh = frankle + "new initial values preserve or improve accuracy"
as_good("SynFlow reinitialized minus SynFlow, up to 30", fresh, "synflow reinitialized", high=40)
as_good("SynFlow reinitialized minus SynFlow, from 100", fresh, "synflow reinitialized", low=99)
for method in ("magnitude", "snip"):
    for change, text in (("shuffled", shuffle), ("reinitialized", fresh)):
        label = f"{method} {change}"
        as_good(f"{label} minus {method}, at 10", text, label, method, high=11)
claim(
    "accuracy of SynFlow inverted minus SynFlow, at 10, percent",
    frankle + "inverting SynFlow's scores costs accuracy",
    intervals.paired_seeds(table, "synflow inverted", "synflow", high=11), "below", -5,
    questions.WHY_5, reason="inverted networks are disconnected",
)  # fmt: skip
tickets = su + "random masks with good layer quotas do as well as pruning at initialization"
as_good("ERK quotas minus SynFlow, up to 10", tickets, "erk", high=11)
as_good("ERK quotas minus SynFlow, from 30", tickets, "erk", low=30,
        reason="random weights lie off paths here too")  # fmt: skip
framed = "with effective sparsity as the frame, random masks with good quotas do as well"
as_good("random masks with SynFlow's quotas minus SynFlow, equal effective compression",
        vysogorets + framed, "synflow shuffled", "synflow as thin",
        reason="at 100 both are near chance and scatter")  # fmt: skip
for network, conditions in (("VGG-16", vgg16), (effective["network"].iloc[-1], setting)):
    own = effective.query("method == 'synflow' and network == @network")
    claim(
        f"SynFlow, {network}: effective over direct compression",
        vysogorets + "no discrepancy is observed", seeds_of(own, "ratio"), "below", 1.1,
        "a tenth is half the width of a line over four decades", conditions,
        "a few survivors lose their path in the last step",
    )  # fmt: skip
last = effective.query("method == 'erk' and network != 'VGG-16'")
# A disconnected network counts as one with a single weight on a path.
last = last.assign(apart=np.log10(last["effective"].clip(upper=N) / last["compression"]))
end = last["compression"].max()
claim(
    f"log10 of effective over direct compression, ERK quotas, at {end:.0f}",
    vysogorets + "can be orders of magnitude larger", seeds_of(last, "apart", end), "above", 1,
    "one order of magnitude", reason="all are disconnected, which counts here as one weight on a path",
)  # fmt: skip
pairs = vgg_totals.pivot_table(index=["compression", "seed"], columns="method", values="width")
pairs = (pairs["synflow"] / pairs["synflow shuffled"]).rename("share").reset_index()
claim(
    "live units of SynFlow over those of random masks with its quotas, at 10^2",
    phew + "SynFlow narrows layers", seeds_of(pairs, "share", 99, 101), "below", 1, "narrower at all",
    vgg16,
)  # fmt: skip
claim(
    "accuracy of wide minus narrow masks with equal quotas, up to 10, percent",
    phew + "wider is better",
    intervals.paired_seeds(table, "synflow shuffled", "synflow", high=11), "above", 0,
    "better at all",
)  # fmt: skip
rows.append(
    sf.paper.agreement(
        "theorem 3", "weights shared by the cut and the paper's schedule at 10^2", paper=None,
        ours=list(overlap.query("99 < compression < 101")["overlap"]), conditions=setting,
    )
)  # fmt: skip
for name, low, high in (("up to 30", 1, 40), ("from 100", 99, 1e9)):
    rows.append(
        sf.paper.agreement(
            "theorem 3", f"accuracy of the cut minus the paper's schedule, {name}, percent",
            paper="no difference (a question of ours; nobody has published an answer)",
            ours=intervals.paired_seeds(table, "synflow cut", "synflow", low, high),
            margin=5, margin_reason=questions.WHY_5, conditions=setting,
        )
    )  # fmt: skip
sf.paper.record("07_sanity_checks", rows)
print(sf.paper.verdicts(rows, ["quantity", "interval", "margin", "verdict"]))

# %% [markdown]
# ## Exercises
#
# They stand where their idea is read. Each has a hint, and a check that says which mistake it saw.
#
# | exercise | in section | minutes | difficulty |
# |---|---|---|---|
# | 1 · Shuffle | Five things a mask can know | 5 | 1 |
# | 2 · Disprove a claim | Two causes, told apart | 10 | 3 |
# | 3 · Effective compression by hand | Direct and effective compression | 10 | 3 |

# %% [markdown]
# ## Takeaways
#
# - Up to compression 10 SynFlow's mask knows nothing worth 5 percent that a random one does not, on
#   this network.
# - At 100 its quotas *and* its few units together do as well as the mask itself, and quotas alone do
#   not: nearly all its weights lie on paths. Which weights these are, and their initial values, did not
#   matter where five seeds can tell.
# - Compare methods at equal *effective* compression; of those tried, only SynFlow's is the direct one.
# - Shuffle the mask of your own method before you explain why it chose those weights.
#
# **Further questions.** Do the units matter on large images as well, or is it there again the weights? Random
# masks with SynFlow's units do as well: is there a rule that chooses the widths without any score? What
# would a mask have to know to be *better* than a rewired one? None of these is answered here.
#
# Next: `08_your_own_pruner`.

# %% [markdown]
# ## References
#
# - J. Frankle, G. Dziugaite, D. Roy, M. Carbin, *Pruning neural networks at initialization: why are we
#   missing the mark?*, ICLR 2021, [arXiv 2009.08576](https://arxiv.org/abs/2009.08576).
# - J. Su et al., *Sanity-checking pruning methods: random tickets can win the jackpot*, NeurIPS 2020,
#   [arXiv 2009.11094](https://arxiv.org/abs/2009.11094).
# - A. Vysogorets, J. Kempe, *Connectivity matters: neural network pruning through the lens of effective
#   sparsity*, 2021, [arXiv 2107.02306](https://arxiv.org/abs/2107.02306).
# - S. Patil, C. Dovrolis, *PHEW: constructing sparse networks that learn fast and generalize well
#   without training data*, ICML 2021, [arXiv 2010.11354](https://arxiv.org/abs/2010.11354).
# - U. Evci et al., *Rigging the lottery: making all tickets winners*, ICML 2020,
#   [arXiv 1911.11134](https://arxiv.org/abs/1911.11134): Erdős-Rényi-Kernel quotas.
# - H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, *Pruning neural networks without any data by
#   iteratively conserving synaptic flow*, NeurIPS 2020, [arXiv 2006.05467](https://arxiv.org/abs/2006.05467).
