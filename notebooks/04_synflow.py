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
# # 04 · SynFlow
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/synflow-lib/synflow-lib/blob/main/notebooks/04_synflow.ipynb)
#
# SynFlow prunes a network that was never trained, without a single image, down to one weight a layer.
# This notebook writes it in about twenty lines and proves the theorem that says why it works. A figure
# shows which schedules break the theorem's condition, and a schedule made of the condition itself always
# leaves a path.
#
# ![Left: compression against iteration of the cut schedule on VGG-16 and ResNet-20, both rising to their largest possible compression. Right: prune size over cut size of the same runs, always below 1](../figures/fig7_cut_schedule.png)
#
# *Each step removes as much score as it can below what a cut carries, until nothing more can go.*
#
# **Learning goals**
#
# - Write SynFlow from scratch and get the library's masks to the last weight.
# - Prove theorem 3: why small steps and conserved scores cannot empty a layer.
# - Predict with one line of algebra which schedules break its condition.
# - Use the theorem as a schedule: one run, every compression, exactly up to $\rho_{max}$.
# - Score networks so deep that their scores leave the range of the number type.
#
# Reproduces figure 7 of the paper. About 2 minutes on one CPU core; 4 GB of memory. Notebook 02
# explains what "conserved" means.

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

import copy
import math

import pandas as pd
import torch

import synflow_lib as sf
from synflow_lib.reproduction import experiments

settings, device = sf.env.settings(), sf.env.device()
print(f"scale {settings.scale}: {settings.seeds} seeds, {settings.iterations} iterations")
print(f"device {device}")

# %% [markdown]
# ## Algorithm 1, line by line
#
# Replace every weight by its absolute value, feed an image of ones, and add up all outputs. For a chain
# of layers (biases are zero at initialization):
#
# $$\mathcal R = \mathbb 1^\top \Big(\prod_{l=1}^{L} |W_l|\Big)\, \mathbb 1
#   = \sum_{\text{paths}}\ \prod_{\theta\,\in\,\text{path}} |\theta| .$$
#
# No data, and nothing is negative, so ReLU does nothing. The score of a weight,
#
# $$\mathcal S(\theta) = \frac{\partial\mathcal R}{\partial\theta}\,\theta
#   = \sum_{\text{paths through } \theta}\ \prod_{\theta'\in\,\text{path}} |\theta'| ,$$
#
# is the part of $\mathcal R$ that flows through it (a product that contains $\theta$ once is linear in
# it). Then remove the smallest scores; but not all at once. Step (or iteration) $k$ of $n$ keeps a
# fraction $\rho^{-k/n}$ of the weights, the *exponential schedule*, and each step scores anew.


# %%
@torch.no_grad()
def absolute(model):
    """A copy with |theta| for theta; in evaluation mode, where BatchNorm is one fixed factor."""
    net = copy.deepcopy(model).cpu().eval()
    for parameter in net.parameters():
        parameter.abs_()
    return net


def flow(net):
    """R of a network without negative numbers, and the score of every weight."""
    dtype = next(net.parameters()).dtype
    R = net(torch.ones(1, *net.input_shape, dtype=dtype)).sum()
    weights = {name: p for name, p in net.named_parameters() if p.dim() > 1}
    gradients = torch.autograd.grad(R, list(weights.values()))
    scores = {n: (w * g).detach() for (n, w), g in zip(weights.items(), gradients, strict=True)}
    return R.item(), scores


def synflow(model, compression, iterations=100):
    """Algorithm 1: parameter name -> True where the weight stays."""
    net = absolute(model)
    for k in range(1, iterations + 1):
        _, scores = flow(net)  # score what is left
        flat = torch.cat([score.flatten() for score in scores.values()])
        kept = round(flat.numel() * compression ** (-k / iterations))  # exponential schedule
        threshold = flat.topk(kept).values[-1]  # one threshold for all layers
        with torch.no_grad():
            for name, score in scores.items():
                net.get_parameter(name).mul_(score >= threshold)  # the rest becomes zero
    return {name: net.get_parameter(name) != 0 for name in scores}


# %% [markdown]
# The library does the same (and more: exact counts under ties, no overflow, BatchNorm after training,
# a speed that grows as the network empties). In float64 the masks must be equal to the last weight:

# %%
# NBVAL_CHECK_OUTPUT
small = sf.models.conv((1, 14, 14), depth=4, width=16, batch_norm=True, seed=0).double()
for compression in (10, 100, 1000):
    ours = synflow(small, compression)
    masks = sf.prune(small, "synflow", compression, iterations=100)
    sf.predict.compare(f"{masks.kept} of {masks.total:,} weights kept", ours, masks)

# %% [markdown]
# Float32 could not be compared like this: there rounding decides between weights that score almost
# alike, and every later step builds on that choice. So the library scores in float64 whatever the
# network's type, and wherever masks are compared here, the networks are in float64 as well.
#
# ## Theorem 3
#
# Two facts about the scores. They are *never negative*, and they are *conserved*: in a chain every
# layer has the same total score $\mathcal R$, since every path runs through every layer once. Call the
# total score that a step removes its **prune size**, and the total score of a layer, $\mathcal R$, the
# **cut size**. Let $\mathcal R > 0$ at the start: the network has a path.
#
# **Theorem 3.** *Score a chain anew before every step, and let each step remove at least one weight,
# smallest scores first, with a prune size below the cut size. Such a step exists until every layer has
# one weight, and no layer is emptied on the way: the algorithm reaches $\rho_{max} = N/L$.*
#
# *Some path survives.* Let a step remove a set $P$ of weights. A path is lost if it runs through at
# least one of them, so
#
# $$\underbrace{\sum_{\text{paths that meet } P} \prod|\theta|}_{\text{flow that is lost}}
#   \;\le\; \sum_{\theta\in P}\ \underbrace{\sum_{\text{paths through }\theta}\prod|\theta|}_{\mathcal S(\theta)}
#   \;=\; \text{prune size} \;<\; \mathcal R .$$
#
# (A *union bound*: a path through two removed weights is counted once on the left and twice on the
# right.) Less than all of the flow is lost, so a path survives and $\mathcal R > 0$ after the step.
# Then the scores are computed anew, and the same holds for the next step, with an $\mathcal R$ that is
# no larger.
#
# *No layer is emptied.* In a chain the surviving path has a weight in every layer.
#
# *It gets to the end.* If some layer has two weights or more left, the smallest of them scores at most
# $\mathcal R/2$, which is less than the cut size. The smallest score of the network is no larger, so at
# least that weight can go. This ends when every layer has one weight. $\blacksquare$
#
# **Beyond chains.** The first part did not use that the network is a chain. With skip connections an
# empty layer need not matter, and a network can be disconnected with no layer empty; what matters is
# whether a path is left. One is, in every network whose $\mathcal R$ is a sum over paths, if the prune
# size is below $\mathcal R$. Two cases need a word. *Shared weights:* if several layers use one weight,
# its score counts a path once for each time that the path uses it, so the prune size is still at least
# what is lost. *Max-pooling:* $\mathcal R$ counts only paths through the largest entry of each window.
# The bound, for these paths, says that some of their flow is left after the step. Which entry is the
# largest may change, but the new one is at least as large as what is left of the old one, so the new
# $\mathcal R$ is at least that flow, and positive.

# %% [markdown]
# Step through it: score, sort, cut, prune, and again. The hatched weights are those about to go; their
# sum is the prune size. Compare the cut schedule with one shot, where the prune size is larger than the
# cut size and the network falls apart.

# %%
sf.explore.steps("cut")

# %%
sf.explore.steps_picture(iteration=1, phase="cut")

# %%
sf.explore.steps_animation("cut")

# %% [markdown]
# ## Figure 7: which schedules keep the condition?
#
# The paper's answer: on VGG-19 for 224x224 images, the largest ratio of prune size to cut size during
# a run, against the number of iterations. Large open markers are the published values. One iteration
# takes one scoring pass, which gives the ratios of all compressions: it is made here. Runs of ten
# iterations took 40 to 120 seconds each on 143.7 million weights; they were run once, with
# `sf.trajectory` and the fixed schedules, in float32
# (`python -m synflow_lib.reproduction.experiments.vgg19 --figure 7`; it goes on where it stopped), and
# `sf.recorded` reads them. Runs of more iterations are not recorded yet: there the published values stand
# alone.
#
# **Predict, then run.** The network is pruned to $10^3$ by an exponential schedule. What is the largest ratio
# of prune size to cut size with 1, 10 and 100 iterations? (Above 1 the theorem promises nothing; the
# network has 19 layers. Your guess is put beside the published values.)

# %%
ratios = sf.predict.Curve(
    "Largest prune size / cut size to 10^3, by the number of iterations",
    [1, 10, 100], 0.01, 19, log=True, mine=None,
)  # fmt: skip
ratios

# %%
vgg19 = sf.models.vgg19(num_classes=1000, input_size=224, batch_norm=False, seed=0).to(device)
live = experiments.schedules.one_shot_ratios(vgg19, [10 ** (half / 2) for half in range(1, 7)])
L = len(sf.prunable(vgg19))
vgg19 = None

# %%
columns = ["schedule", "compression", "iterations", "ratio"]
ours = pd.concat([live, sf.recorded("figure7")], ignore_index=True)[columns]
ours["log10_compression"] = ours["compression"].map(math.log10).round(3)

fig7 = sf.figures.prune_ratio(ours, published=sf.paper.figure7())
sf.figures.save(fig7, "fig7_prune_ratio", ours)
thousand = sf.paper.figure7().query("schedule == 'exponential' and log10_compression == 3")
print(ratios.beside(thousand.set_index("iterations")["ratio"].loc[list(ratios.x)].tolist()))
ratios.draw(fig7.axes[0])
fig7

# %%
# NBVAL_CHECK_OUTPUT
keys = ["schedule", "log10_compression", "iterations"]
both = sf.paper.figure7().merge(ours, on=keys, suffixes=("", "_ours"))
off = (both["ratio_ours"] / both["ratio"] - 1).abs()
published = (sf.paper.figure7()["log10_compression"] > 0).sum()
print(f"{len(both)} of {published} published points are ours as well")
print(f"ours differ from the published by at most {off.max():.1%}, by {off.median():.1%} (median)")

# %% [markdown]
# **One line that explains the figure.** A step that removes $k$ of $K$ weights takes the smallest
# scores, so their mean is at most the mean of all, which is $L\,\mathcal R / K$ ($L$ layers, each with
# total $\mathcal R$). Since $\mathcal R$ is also the cut size,
#
# $$\frac{\text{prune size}}{\text{cut size}} \le L\cdot\frac{k}{K} .$$
#
# What counts is the *share of the survivors* that a step removes. The exponential schedule removes the
# same share $1-\rho^{-1/n}$ in every step. The linear one removes the same *number*, so its last step
# takes the share $\frac{(\rho-1)/n}{1 + (\rho-1)/n}$ of what is left, nearly everything where $\rho$ is
# much larger than $n$. First the published runs against this bound, then some of our own, on VGG-16 for
# 32x32 images.


# %%
def bound(layers, schedule, compression, iterations):
    """L times the largest share of the survivors that one step removes."""
    if schedule == "exponential":
        return layers * (1 - compression ** (-1 / iterations))
    return layers * (1 - 1 / (1 + (compression - 1) / iterations))


vgg16 = sf.models.vgg16(seed=0).double().to(device)
cut = sf.trajectory(vgg16, "synflow")  # another schedule, for later sections
runs = {
    (schedule, compression, iterations): experiments.schedules.fixed_run(
        vgg16, schedule, iterations, compression, cut
    )
    for compression in (1e2, 1e3)
    for schedule, iterations in (
        ("exponential", 1),
        ("exponential", 10),
        ("exponential", 100),
        ("linear", 10),
    )
}

# %%
# NBVAL_CHECK_OUTPUT
paper = sf.paper.figure7().query("compression > 1")[columns]
paper["bound"] = [bound(L, *run[:3]) for run in paper.itertuples(index=False)]
held = (paper["ratio"] <= paper["bound"]).sum()
below = paper.query("schedule == 'exponential' and iterations == 100")
print(f"VGG-19, published: ratio <= bound in {held} of {len(paper)} runs;")
print(f"100 exponential steps: largest ratio {below['ratio'].max():.2f}\n")

own = pd.DataFrame([(*run, h["ratio"].max()) for run, (h, *_) in runs.items()], columns=columns)
own["bound"] = [bound(14, *run[:3]) for run in own.itertuples(index=False)]
held = (own["ratio"] <= own["bound"]).sum()
print(f"VGG-16, ours: ratio <= bound in {held} of {len(own)} runs;")
small = own.loc[own["ratio"] < 1, ["schedule", "iterations", "compression"]]
print("below 1:", *(f"{n} {how} steps to {c:.0f};" for how, n, c in small.itertuples(index=False)))

# %%
print(own.astype({"compression": int}).round(2).to_string(index=False))

# %% [markdown]
# The bound holds in all 140 runs. It is generous (our ratios are between about a half and five sixths
# of it), and it tells the schedules apart. It also says how many iterations are *always* enough for the
# exponential schedule: $L\,(1-\rho^{-1/n}) < 1$, which is about $n > L\ln\rho$ (exercise 1).

# %% [markdown]
# ### Exercise 1 · How many iterations are always enough?
#
# *10 minutes, difficulty 2 of 5.* The smallest whole $n$ for which the
# exponential schedule has $L\,(1-\rho^{-1/n}) < 1$.
#
# <details><summary>Hint</summary>
#
# Solve the condition for $n$ as an equation first. Then mind that it is strict: what if the solution is
# a whole number?
#
# </details>


# %%
def safe_iterations(layers, compression):
    """The smallest n with layers * (1 - compression ** (-1 / n)) < 1; layers >= 2."""
    ...


# %%
print(sf.exercises.check_safe_iterations(safe_iterations))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def safe_iterations(layers, compression):
#     return math.floor(math.log(compression) / -math.log(1 - 1 / layers)) + 1
# ```
#
# </details>

# %% [markdown]
# ## The theorem as a schedule
#
# The number of iterations need not be chosen. Let each step remove as much as the theorem allows: sort the
# scores, take the longest run of smallest ones whose sum stays below the cut size, score again. That is
# `schedule="cut"`. One run contains the masks for *every* compression, nested in each other.
#
# VGG-16 is a chain, and its end is one weight a layer. ResNet-20 is not: identity skips cost no
# weights, so its largest compression *by path* is $N$ divided by the fewest weights that join input to
# output. (The union bound holds for the flow along the shortest paths alone, too. So of the weights
# that could go the library keeps those that carry most of that flow, such that less than all of it is
# lost; otherwise the run could end on a longer path. In the last step only weights off the last
# shortest path are left to go. They are 20 of 24 weights and together carry 1 percent of a cut, so all
# go at once, and compression is multiplied by six.)
#
# **Predict, then run.** The first step on VGG-16 removes weights that together carry less than one layer's
# score, of 14 layers. How many of the weights can go? And how many steps does it take from the whole
# network to one weight a layer? (Guess before you look at the picture at the top again.)

# %%
first_step = sf.predict.Number(
    "The first step removes", 0, 100, "percent of the weights", mine=None
)
first_step

# %%
steps_needed = sf.predict.Number(
    "Steps of the cut schedule from dense to one weight a layer", 5, 5000, log=True, mine=None
)
steps_needed

# %%
# NBVAL_CHECK_OUTPUT
resnet20 = sf.models.resnet20(seed=0).double().to(device)
networks = {"VGG-16": vgg16, "ResNet-20": resnet20}
paths = {"VGG-16": cut, "ResNet-20": sf.trajectory(resnet20, "synflow")}
limits = {name: sf.max_compression(model, "path") for name, model in networks.items()}

rows = []
for name, path in paths.items():
    end = path.at(path.max_compression)
    rows.append(
        {
            "network": name,
            "under 100 iterations": len(path.history) < 100,
            "ratio always < 1": bool((path.history["ratio"] < 1).all()),
            "weights at the end": end.kept,
            "exactly rho_max": path.max_compression == limits[name],
            "disconnected": sf.is_collapsed(networks[name], end, "path"),
        }
    )
print(pd.DataFrame(rows).to_string(index=False))

# %%
history = pd.concat([path.history.assign(network=name) for name, path in paths.items()])
fig_cut = sf.figures.cut_trajectory(history, limits)
sf.figures.save(fig_cut, "fig7_cut_schedule", history)
own = paths["VGG-16"].history
print(first_step.beside(100 - 100 / own["compression"].iloc[0]))
print(steps_needed.beside(len(own)))
fig_cut

# %% [markdown]
# The first steps are large: in VGG-16 the first removes 44 percent of the weights, which together carry
# one fourteenth of all score. Near the end of VGG-16 the weights that are left carry a good part of
# $\mathcal R$ each, and a step removes two or three of them. A fixed schedule does not look at the
# scores to choose the size of a step.

# %% [markdown]
# ### Exercise 2 · One step of the cut schedule
#
# *15 minutes, difficulty 3 of 5.* Mark the weights that may go: the longest run of
# smallest scores whose sum is still below the cut size.
#
# <details><summary>Hint</summary>
#
# Sort, `cumsum`, compare. The comparison says which places *in sorted order* go; `order` of
# `scores.sort()` tells where these stand.
#
# </details>


# %%
def may_go(scores, cut_size):
    """scores: (N,), not negative. Returns bool (N,), True for the weights to remove."""
    ...


# %%
print(sf.exercises.check_may_go(may_go))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def may_go(scores, cut_size):
#     ordered, order = scores.sort()
#     gone = torch.zeros_like(scores, dtype=torch.bool)
#     gone[order[ordered.cumsum(0) < cut_size]] = True
#     return gone
# ```
#
# </details>

# %% [markdown]
# ## The fixed schedule at its limit
#
# Now the paper's schedule, 100 exponential steps, all the way to $\rho_{max}$ of VGG-16.

# %%
rho_max = limits["VGG-16"]
fixed, rows = {}, []
for seed in range(3):
    model = sf.models.vgg16(seed=seed).double().to(device)
    fixed[seed], layers, _ = experiments.schedules.fixed_run(
        model, "exponential", settings.iterations, rho_max
    )
    above, empty = fixed[seed].query("ratio >= 1"), (layers["kept"] == 0).sum()
    rows.append((seed, len(above), fixed[seed]["ratio"].max(), empty))
columns = ["seed", "steps above the cut", "largest ratio", "empty layers"]
fates = pd.DataFrame(rows, columns=columns)
print(fates.round(2).to_string(index=False))
print(f"lost a layer: {(fates['empty layers'] > 0).sum()} of {len(fates)} seeds")

# %%
# NBVAL_CHECK_OUTPUT
above_all = int((fates["largest ratio"] > 1).sum())
print(f"seeds with a step above the cut: {above_all} of {len(fates)}")
print(f"bound L (1 - rho^(-1/n)): {14 * (1 - rho_max ** (-1 / settings.iterations)):.2f}")
enough = math.floor(math.log(rho_max) / -math.log(1 - 1 / 14)) + 1  # the bound is strict
print(f"iterations that are always enough: {enough}")

# %%
lost = {seed: bool(empty) for seed, empty in fates["empty layers"].items()}
figure = sf.figures.fixed_schedule(fixed, lost, cut.history)
sf.figures.save(figure, "fig7_fixed_schedule", pd.concat(fixed, names=["seed"]).reset_index(0))
figure

# %% [markdown]
# The very first steps take a small part of a cut. From a compression of about 30 to $10^4$ they take 80
# to 96 percent of one. Near the end the survivors score more alike: the 13% of the weights that a step
# removes carry up to a tenth of all score, and a cut is one fourteenth of it. Every seed goes above 1
# among its last 25 steps. A step above the cut *may* empty a layer, but need not: the theorem promises
# nothing there. In the runs shown none of the three lost a layer; of the paper's three one did. (Scores
# that are nearly equal may be ordered differently by the rounding of another processor, and then the
# last steps differ.)

# %% [markdown]
# ## Do both schedules choose the same weights?
#
# Same score, other steps. Of the weights that the fixed schedule keeps, how many does the cut schedule
# keep as well? Two independent random choices would share a fraction equal to the density.
#
# **Predict, then run.** Of the weights that the fixed schedule keeps at compression 100, the cut schedule
# keeps also:

# %%
shared = sf.predict.Number("Weights in both masks at 100", 0, 100, "percent", mine=None)
shared

# %%
# NBVAL_CHECK_OUTPUT
both_schedules = {c: runs["exponential", c, 100][1:] for c in (1e2, 1e3)}
rows = []
for compression, (layers, overlap) in both_schedules.items():
    needed = int((cut.history["compression"] < compression).sum()) + 1
    ratio = layers["density"] / layers["cut"]
    rows.append(
        {
            "compression": int(compression),
            "kept": layers["kept"].sum(),
            "iterations, fixed": 100,
            "cut: under 60": needed < 60,
            "overlap": overlap,
            "by chance": layers["kept"].sum() / layers["total"].sum(),
            "densities within 10 percent": bool(ratio.between(0.9, 1.1).all()),
        }
    )
masks_shared = pd.DataFrame(rows)
coarse = masks_shared.assign(overlap=masks_shared["overlap"] > 0.4)
print(coarse.rename(columns={"overlap": "overlap over 0.4"}).to_string(index=False))

# %%
print("overlap:", masks_shared["overlap"].round(2).tolist())
print(shared.beside(100 * masks_shared["overlap"].iloc[0]))
densities = pd.concat(
    [
        layers[["layer"]].assign(compression=c, schedule=schedule, density=layers[column])
        for c, (layers, _) in both_schedules.items()
        for schedule, column in (("fixed", "density"), ("cut", "cut"))
    ]
)
figure = sf.figures.schedule_densities(densities)
sf.figures.save(figure, "fig7_layer_densities", densities)
figure

# %% [markdown]
# They share 65 and 55 percent of the weights, far more than by chance, and the densities of all layers
# agree within 10 percent; but they are not the same weights. What the difference does to accuracy has
# to be measured by training (notebook 07).

# %% [markdown]
# ## Precision: sums over more paths than a number can hold
#
# $\mathcal R$ adds up *all* paths, and every layer multiplies their number. float32 ends at
# $3\cdot10^{38}$, float64 at $2\cdot10^{308}$. Beyond that the forward pass of $|\theta|$ is infinite,
# and no score is a finite number.
#
# The remedy: only the *order* of the scores matters, and multiplying all of them by one
# number does not change it. So divide the activations behind each layer by a power of two: that is
# exact, as it touches only the exponent, and every path runs through it. On a residual network the
# values to divide are all that are alive at that moment, which together form a cut.

# %%
# NBVAL_CHECK_OUTPUT
deep = {
    "VGG-16": sf.models.vgg16(seed=0),
    "ResNet-110": sf.models.resnet110(seed=0),
    "perceptron of 300 layers": sf.models.fc(depth=300, seed=0),
}
rows = []
for name, model in deep.items():
    double = copy.deepcopy(model).double()
    R32, plain = flow(absolute(model))
    R64, _ = flow(absolute(double))
    finite = sum(int(torch.isfinite(score).sum()) for score in plain.values())
    single = sf.score(model, "synflow", dtype=torch.float32)
    reference = sf.score(double, "synflow")
    rows.append(
        {
            "network": name,
            "R, float32": f"{R32:.0e}",
            "R, float64": f"{R64:.0e}",
            "finite scores: plain": f"{finite / sum(s.numel() for s in plain.values()):.0%}",
            "sf.score": f"{sum(int(torch.isfinite(s).all()) for s in single.values()) / len(single):.0%}",
            "log2_scale": single.log2_scale,
            "error < 1e-4": experiments.schedules.score_error(single, reference) < 1e-4,
        }
    )
print(pd.DataFrame(rows).to_string(index=False))

# %% [markdown]
# `sf.score` is finite everywhere, here in float32, and gives the scores of the float64 network to
# within $10^{-4}$ (the last column). Its default computes in float64. Where the true scores would not
# fit their type they are stored divided by `2 ** scores.log2_scale`; otherwise `log2_scale` is 0 and
# they are the true ones.

# %% [markdown]
# ### Exercise 3 · Beyond the range of float64
#
# *25 minutes, difficulty 4 of 5.* Compute $\log_2\mathcal R$ of a chain of linear
# layers so deep that $\mathcal R$ itself is infinite. `torch.frexp` takes a number apart into
# mantissa and power of two.
#
# <details><summary>Hint</summary>
#
# Carry a vector and a whole number: the flow is the vector times $2^{\text{number}}$. After each layer move the
# power of two of the largest entry from the one to the other.
#
# </details>


# %%
def log2_flow(layers):
    """layers: float64 matrices (outputs, inputs), input first. log2 of the sum of |W_L| ... |W_1| 1."""
    ...


# %%
print(sf.exercises.check_log2_flow(log2_flow))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def log2_flow(layers):
#     x, exponent = torch.ones(layers[0].shape[1], dtype=torch.float64), 0
#     for layer in layers:
#         x = layer.abs() @ x
#         _, shift = torch.frexp(x.max())
#         x = torch.ldexp(x, -shift)
#         exponent += int(shift)
#     return math.log2(float(x.sum())) + exponent
# ```
#
# </details>

# %% [markdown]
# ## What the paper shows, what we measured

# %%
# NBVAL_CHECK_OUTPUT
one = both.query("iterations == 1 and schedule == 'exponential'")
rows = [
    sf.paper.identity(
        7,
        f"prune size / cut size at compression 10^{row.log10_compression:g}, one iteration, within "
        f"0.02 of the published {row.ratio:.3f}",
        bool(abs(row.ratio_ours - row.ratio) < 0.02),
        reason="it follows from the initialization and the sizes of the layers",
        conditions="VGG-19 (224x224)",
    )
    for row in one.itertuples()
]
rows += [
    sf.paper.identity(
        "theorem 3",
        f"the cut schedule ends at rho_max and is never disconnected: {name}",
        path.max_compression == limits[name] and bool((path.history["ratio"] < 1).all()),
        reason="conserved scores and steps smaller than a cut",
        conditions="float64",
    )
    for name, path in paths.items()
]
rows.append(
    sf.paper.agreement(
        "theorem 3",
        "largest prune size / cut size of 100 exponential steps to rho_max, VGG-16",
        paper="figure 2: such a run can lose whole layers (1 of 3 had lost all at 10^6)",
        ours=list(fates["largest ratio"]),
        side="above",
        margin=1,
        margin_reason="below 1 no layer can be lost (theorem 3)",
        conditions="float64",
        reason="the last steps remove more than a cut; the theorem promises nothing then",
    )
)
sf.paper.record("04_synflow", rows)
print(sf.paper.verdicts(rows, ["figure", "quantity", "margin", "verdict"]))

# %% [markdown]
# ## Exercises
#
# They stand where their idea is read. Each has a hint, and a check that says which mistake it saw.
#
# | exercise | in section | minutes | difficulty |
# |---|---|---|---|
# | 1 · How many iterations are always enough? | Figure 7: which schedules keep the condition? | 10 | 2 |
# | 2 · One step of the cut schedule | The theorem as a schedule | 15 | 3 |
# | 3 · Beyond the range of float64 | Precision: sums over more paths than a number can hold | 25 | 4 |

# %% [markdown]
# ## Takeaways
#
# - A SynFlow score is the flow through a weight. Every cut carries all of the flow; in a chain every
#   layer is one.
# - Remove less than a cut, score again, and some path always survives: a union bound shows it, in any
#   network whose $\mathcal R$ is a sum over paths.
# - In a chain a schedule is safe if every step removes a smaller share of the survivors than $1/L$.
#   Exponential schedules need about $L\ln\rho$ steps for that; linear ones need more than
#   $(L-1)(\rho-1)$, or their last step is too large for the bound.
# - The cut schedule removes in each step as much as the theorem allows. One run holds the masks of every
#   compression, up to exactly $\rho_{max}$.
# - Powers of two keep the sums in range and change nothing else.
#
# **Further questions.** The theorem's condition is sufficient, not necessary: what is the weakest condition
# under which no layer is lost, and how few steps does it allow? The flow counts every path by the product
# of its weights: which other positive, conserved score keeps paths *and* trains better? Is there a limit of
# many small steps, in which the schedule no longer matters? None of these is answered here.

# %% [markdown]
# ## References
#
# - H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, *Pruning neural networks without any data by
#   iteratively conserving synaptic flow*, NeurIPS 2020, [arXiv 2006.05467](https://arxiv.org/abs/2006.05467):
#   algorithm 1, theorem 3, figure 7.
# - K. Simonyan, A. Zisserman, *Very deep convolutional networks for large-scale image recognition*
#   (VGG), ICLR 2015, [arXiv 1409.1556](https://arxiv.org/abs/1409.1556).
# - K. He, X. Zhang, S. Ren, J. Sun, *Deep residual learning for image recognition*, CVPR 2016,
#   [arXiv 1512.03385](https://arxiv.org/abs/1512.03385).
