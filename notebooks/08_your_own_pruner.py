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
# # 08 · Your own pruner
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/synflow-lib/synflow-lib/blob/main/notebooks/08_your_own_pruner.ipynb)
#
# A new way of pruning is a function of a few lines. This notebook writes one and puts it on the whole
# bench: is its score conserved, when does it collapse, how well does what it leaves learn, what does it
# cost? Then it prunes networks that this library did not make.
#
# ![Test accuracy against compression of a scorer written in this notebook beside the five methods of the paper](../figures/own_accuracy.png)
#
# *The five methods of the paper, and one that is written in the first cells below.*
#
# **Learning goals**
#
# - Write a scorer, register it, and use it wherever a method's name is expected.
# - Judge a new method by conservation, collapse, accuracy and cost, not by accuracy alone.
# - Prune networks that this library did not make: torchvision's, and your own.
#
# No figure of the paper; about a minute and a half on one CPU core.

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

import numpy as np
import pandas as pd
import torch
from torch import nn

import synflow_lib as sf
from synflow_lib.reproduction import experiments
from synflow_lib.reproduction.figures import FIVE

study = experiments.questions.study()
net, data = study.panel.network(0)
N, rho_max = sum(w.numel() for w in sf.prunable(net).values()), sf.max_compression(net)
print(f"{study.panel.model} on {study.panel.dataset}: N = {N:,}, rho_max = {rho_max:,.0f}")

# %% [markdown]
# ## A score in a few lines
#
# Magnitude at initialization empties the layers with the smallest weights, those of large fan-in, first
# (question 7 of notebook 06). *LAMP*
# (layer-adaptive magnitude, Lee et al. 2021) repairs that without data: sort the squared weights of a
# layer and divide each by the sum of those that are at least as large,
#
# $$\text{score}(w_i) = \frac{w_i^2}{\sum_{j:\,|w_j| \ge |w_i|} w_j^2} .$$
#
# The largest weight of every layer scores exactly 1, the highest score there is. So no layer can lose its
# last weight before all layers are down to one: LAMP never empties a layer before $\rho_{max}$. Is that
# enough?


# %%
def lamp(model, batch):
    """Squared weight over the sum of the squares at least as large, layer by layer."""
    scores = {}
    for name, weight in sf.prunable(model).items():
        squares, order = weight.detach().double().square().flatten().sort()
        at_least = squares.flip(0).cumsum(0).flip(0)
        share = torch.zeros_like(squares).scatter_(0, order, squares / at_least.clamp(min=1e-300))
        scores[name] = share.view_as(weight)
    return scores


sf.register("lamp", lamp)
sf.prune(net, "lamp", compression=100)

# %% [markdown]
# A scorer takes a model and a batch (which it may ignore) and returns a score for every prunable weight;
# the lowest go first. Registered, its name works everywhere a method's does.
#
# ## Is it conserved?
#
# At every hidden unit: the sum of the scores that come in against the sum of those that go out
# (notebook 02).
#
# **Predict, then run.** Which of the three are conserved?

# %%
conserved = sf.predict.Choice(
    "Conserved at every hidden unit",
    ["none", "SynFlow", "LAMP and SynFlow", "magnitude, LAMP and SynFlow"],
    mine=None,
)
conserved

# %%
# NBVAL_CHECK_OUTPUT
plain = sf.models.fc(data.input_shape, seed=0).double()
for method in ("magnitude", "lamp", "synflow"):
    report = sf.check_conservation(plain, sf.score(plain, method), level="unit")
    print(f"{method:10s} conserved at every unit, to 1e-10: {report.holds(1e-10)}")
print(conserved.beside("SynFlow"))

# %% [markdown]
# ### Exercise 1 · Squared flow
#
# *5 minutes, difficulty 1 of 5.* Write a scorer that returns the squares of SynFlow's scores. What
# does a one-shot run with it keep, compared with SynFlow's?
#
# <details><summary>Hint</summary>
#
# `sf.score(model, "synflow")` returns a dict of tensors.
#
# </details>


# %%
def squared_flow(model, batch):
    """A scorer: the square of each of SynFlow's scores, by name."""
    ...


# %%
print(sf.exercises.check_squared_flow(squared_flow))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def squared_flow(model, batch):
#     return {name: score.square() for name, score in sf.score(model, "synflow").items()}
# ```
#
# A one-shot run keeps exactly the same weights: only the order of scores matters, and squaring keeps it.
# Conservation, which is a statement about sums, is lost.
#
# </details>

# %% [markdown]
# ## When does it collapse?
#
# By both criteria: a layer is empty, or no path is left.
#
# **Predict, then run.** LAMP never empties a layer before $\rho_{max}$. Where is its last path cut? (Random
# scores: at about 0.6 of the way to $\rho_{max}$ on a logarithmic axis.)

# %%
lamp_cut = sf.predict.Number("LAMP: log rho_cr / log rho_max, by path", 0, 1, mine=None)
lamp_cut


# %%
def collapse(seed):
    net, data = study.panel.network(seed)
    batch = data.scoring_batch(seed=seed)
    paths = {m: sf.trajectory(net, m, batch, seed=seed) for m in (*FIVE, "lamp")}
    return experiments.collapse.collapse_points(net, paths).assign(seed=seed)


points = pd.concat([collapse(seed) for seed in range(study.seeds)], ignore_index=True)
points["share"] = np.log(points["critical_compression"]) / np.log(rho_max)
shares = points.pivot_table(index="method", columns="criterion", values="share")
print("log rho_cr / log rho_max, mean over seeds")
print(shares.loc[[*FIVE, "lamp"]].round(2).to_string())
print(lamp_cut.beside(shares.loc["lamp", "path"]))

# %%
# NBVAL_CHECK_OUTPUT
lasts = points[points["method"] == "lamp"].pivot_table(
    index="seed", columns="criterion", values="share"
)
kept, cut = (lasts["layer"] == 1).sum(), (lasts["path"] < 0.8).sum()
print(f"LAMP keeps a weight in every layer up to rho_max: {kept} of {len(lasts)} seeds")
print(f"and is disconnected long before: {cut} of {len(lasts)} seeds")

# %% [markdown]
# LAMP keeps every layer from being emptied, and the network is cut all the same, about where random
# scores cut it. Every layer keeps weights, but they do not meet: a score that looks at one layer at a
# time cannot know which units the next layer reads. An empty layer is a *sign* of collapse; what
# matters is whether a path is left.

# %% [markdown]
# ### Exercise 2 · A score that cannot empty a layer
#
# *10 minutes, difficulty 3 of 5.* Write a scorer such that, pruned once, every layer
# keeps the same *fraction* of its weights, up to one weight, at every compression, the largest magnitudes
# of each.
#
# <details><summary>Hint</summary>
#
# The rank of a weight inside its layer does not depend on the layer's scale: `argsort()` twice. What has
# to be done for layers of different sizes?
#
# </details>


# %%
def fair_magnitude(model, batch):
    """A scorer that prunes all layers alike, smallest magnitudes first."""
    ...


# %%
print(sf.exercises.check_equal_fractions(fair_magnitude))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def fair_magnitude(model, batch):
#     scores = {}
#     for name, weight in sf.prunable(model).items():
#         rank = weight.detach().abs().flatten().argsort().argsort()
#         scores[name] = ((rank + 0.5) / weight.numel()).view_as(weight)
#     return scores
# ```
#
# Each layer's ranks are spread evenly over 0 to 1, so one threshold cuts all layers alike.
#
# </details>

# %% [markdown]
# ## How well does what it leaves learn?

# %%
alphas = (1.0, 2.0, 2.5)
chosen = [
    (method, seed, sf.prune(net, method, 10**alpha, data.scoring_batch(seed=seed), seed=seed))
    for seed in range(study.seeds)
    for net in [study.panel.network(seed)[0]]
    for method in (*FIVE, "lamp")
    for alpha in alphas
]
table = experiments.questions.train_masks(
    lambda seed: study.panel.network(seed)[0], chosen, data, study.panel.recipe
)
figure = sf.figures.accuracy_curves(table.assign(compression=table["compression"].round(1)))
sf.figures.save(figure, "own_accuracy", table)
figure

# %%
# NBVAL_CHECK_OUTPUT
means = table.assign(alpha=np.log10(table["compression"]).round(1))
means = means.pivot_table(index="method", columns="alpha", values="accuracy")
behind = means.loc["synflow"] - means.loc["lamp"]
print(f"LAMP at least 30 percent behind SynFlow at 10^2: {behind[2.0] > 30}")
print(f"LAMP within 5 percent of SynFlow at 10^1: {abs(behind[1.0]) < 5}")

# %%
versus = experiments.questions.against(
    table.assign(compression=table["compression"].round(1)), "magnitude"
)
print("LAMP minus magnitude, percent, with 95% intervals of the paired mean")
print(versus.query("method == 'lamp'").round(1).to_string(index=False))

# %% [markdown]
# ## What does it cost?
#
# Against one epoch of training. (Seconds are this machine's.)

# %%
costs = experiments.cost.scoring_costs(net, data, [*FIVE, "lamp"])
print(costs[["method", "iterations", "seconds", "epochs"]].round(4).to_string(index=False))

# %% [markdown]
# ## A network that is not ours
#
# Nothing above depends on where a network comes from. (SynFlow and questions about paths refuse, by
# name, an operation that they do not know.) torchvision's ResNet-18 has shortcuts, so a layer may be
# empty while paths remain; say which criterion you mean. (`import_torchvision` is
# `import torchvision` that also works beside a torch built without CUDA.)
#
# **Predict, then run.** SynFlow keeps one weight in a thousand. How many of the 21 layers are empty?

# %%
emptied = sf.predict.Number("Empty layers of ResNet-18, of 21", 0, 21, step=1, mine=None)
emptied

# %%
torch.manual_seed(0)
torchvision_models = sf.data.sources.import_torchvision("torchvision.models")
resnet = torchvision_models.resnet18(weights=None, num_classes=10)
masks = sf.prune(resnet, "synflow", compression=1000, input_shape=(3, 64, 64), iterations=20)
print(masks)
print("connected:", not sf.is_collapsed(resnet, masks, "path", input_shape=(3, 64, 64)))
print(emptied.beside(len(masks.empty_layers())))


# %% [markdown]
# And one of your own, with a forward pass in which two branches meet:


# %%
class Mine(nn.Module):
    """A convolution, and two branches that meet in a sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 3, padding=1)
        self.thin = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.wide(x) + self.thin(x)).relu().mean((2, 3))
        return self.head(x)


# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
mine = Mine().double()
masks = sf.prune(mine, "synflow", compression=20, input_shape=(1, 8, 8))
small = sf.surgery.without_dead_units(mine, masks, input_shape=(1, 8, 8))
x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
masked = masks.apply_(copy.deepcopy(mine)).eval()
print(masks)
print("connected:", not sf.is_collapsed(mine, masks, criterion="path", input_shape=(1, 8, 8)))
same = torch.allclose(small.eval()(x), masked(x), atol=1e-12)
print("the same function without dead units:", same)
sizes = [sum(p.numel() for p in each.parameters()) for each in (small, mine)]
print("in smaller tensors:", sizes[0] < sizes[1])

# %% [markdown]
# ## A vision transformer and an EfficientNet
#
# (Skip this section if you have not met attention yet.) In newer networks not every weight lies on a path.
# A *gate* (squeeze-and-excitation, a GLU) multiplies what another layer brings; queries and keys decide where attention looks. The library counts a gate as
# open and attention as the mean over what a position may see, so that $\mathcal R$ stays a sum over paths; the
# layers that make gates, queries and keys then *only steer*. torchvision packs queries, keys and values
# of a transformer into one parameter that is not the weight of a layer: it is never pruned.


# %%
def small_efficientnet(seed):
    """Three blocks with squeeze-and-excitation, for images of 32 by 32."""
    torch.manual_seed(seed)
    block = torchvision_models.efficientnet.MBConvConfig
    blocks = [block(1, 3, 1, 8, 8, 1, 1, 1), block(4, 3, 2, 8, 16, 2, 1, 1)]
    return torchvision_models.EfficientNet(blocks, 0.0, num_classes=10, last_channel=32)


def small_transformer(seed):
    """Two layers on digits of 8 by 8: four patches and a class token."""
    torch.manual_seed(seed)
    vit = torchvision_models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64,
        num_classes=10,
    )  # fmt: skip
    vit.conv_proj = nn.Conv2d(1, 32, 4, 4)  # grey images
    # torchvision's head starts at zero, and a method that looks at values would prune it first.
    nn.init.normal_(vit.heads.head.weight, std=32**-0.5)
    return vit


def roles(net, input_shape):
    """What the weights of a network are to its paths: counts."""
    weights, steers = sf.prunable(net), sf.probe.steering(net, input_shape)
    steering = sum(int(mask.sum()) for mask in steers.values())
    counted = sum(weight.numel() for weight in weights.values())
    never = sum(sf.network.left_out(net).values())
    return {"carry paths": counted - steering, "only steer": steering, "never pruned": never}


# %%
# NBVAL_CHECK_OUTPUT
brought = {
    "EfficientNet": (small_efficientnet(0), (3, 32, 32)),
    "vision transformer": (small_transformer(0), (1, 8, 8)),
}
print(pd.DataFrame({name: roles(*each) for name, each in brought.items()}).T.to_string())
excited, shape = brought["EfficientNet"]
print("steer:", *sf.probe.steering(excited, shape), sep="\n  ")

# %% [markdown]
# A score of paths knows nothing of weights that steer. By default they stay dense, and a warning names
# them; `steering="layer"` prunes each such layer by magnitude to the density of the network. What is
# never pruned is named in a warning too, unless `keep=` says that this is meant.

# %%
# NBVAL_CHECK_OUTPUT
import warnings

masks = sf.prune(excited, "synflow", compression=10, input_shape=shape, steering="layer")
print(masks)
print("connected:", not sf.is_collapsed(excited, masks, criterion="path", input_shape=shape))
exact = copy.deepcopy(excited).double()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what steers scores zero, as said above
    scores = sf.score(exact, "synflow", input_shape=shape)
for level in ("unit", "cut"):
    report = sf.check_conservation(exact, scores, level=level, input_shape=shape)
    print(f"conserved at every {level}, to 1e-10: {report.holds(1e-10)}")

# %% [markdown]
# What is left of the transformer is trained: 2, 5 and 10 times fewer weights, three seeds.

# %%
images, seeds = sf.data.digits(), range(3)
recipe = sf.Recipe(8, 1e-2, optimizer="adam", batch_size=128, one_cycle=True)
transformers = [small_transformer(seed) for seed in seeds]
chosen = [("dense", seed, sf.Masks.ones(transformers[seed])) for seed in seeds]
for seed, net in enumerate(transformers):
    how = {"input_shape": (1, 8, 8), "keep": list(sf.network.left_out(net)), "seed": seed}
    for method in ("synflow", "snip", "magnitude"):
        for compression in (2, 5, 10):
            batch = images.scoring_batch(seed=seed)
            chosen.append((method, seed, sf.prune(net, method, compression, batch, **how)))
vision = experiments.questions.train_masks(small_transformer, chosen, images, recipe)
vision["connected"] = [
    not sf.is_collapsed(transformers[seed], masks, "path", input_shape=(1, 8, 8))
    for _, seed, masks in chosen
]
vision["compression"] = vision["compression"].round().astype(int)
by_compression = {"index": "method", "columns": "compression", "values": "accuracy"}
print("top-1 accuracy, percent: mean over seeds")
print(vision.pivot_table(**by_compression).round(1).to_string(na_rep=""))
print("standard deviation over seeds")
print(vision.pivot_table(**by_compression, aggfunc="std").round(1).to_string(na_rep=""))

# %%
# NBVAL_CHECK_OUTPUT
pruned = vision.query("method != 'dense'")
connected = pruned.pivot_table(**by_compression | {"values": "connected"}, aggfunc="sum")
print("connected, of three seeds")
print(connected.astype(int).to_string())
empty = [masks.empty_layers() for method, _, masks in chosen if method == "magnitude"]
print("what magnitude empties first:", *sorted(set(sum(empty, []))), sep="\n  ")
means = vision.pivot_table(**by_compression)
dense, at_chance = means.loc["dense", 1], vision.query("not connected")["accuracy"] < 20
print("what is not connected is at chance:", bool(at_chance.all()))
behind = dense - means.loc[["synflow", "snip", "magnitude"], 2].min()
print("at 2 times, all within 8 percent of the dense network:", bool(behind < 8))
behind = dense - means.loc[["synflow", "snip"], 10].min()
print("at 10 times, SynFlow and SNIP within 12 percent of it:", bool(behind < 12))

# %% [markdown]
# At twice fewer weights nothing is decided. From 5 times on magnitude has emptied the output projections
# of attention, whose weights start smaller than those of the perceptrons. An empty layer beside a residual
# stream need not matter; here it does, for the class token, which alone is read, sees the image through
# these layers only. The network is at chance, and the criterion by path says so before any training.
# SynFlow and SNIP leave paths; which of the two is better, three seeds of one small data set do not say.

# %% [markdown]
# ## What others claim, what we measured

# %%
setting = f"{study.panel.model} (BN) on {study.panel.dataset}"
rows = [
    sf.paper.identity(
        "later work",
        "LAMP at initialization keeps a weight in every layer up to rho_max (Lee et al. 2021)",
        bool((lasts["layer"] == 1).all()),
        reason="the largest weight of every layer scores 1; by path it is cut long before",
        conditions=setting,
    ),
    sf.paper.agreement(
        "later work",
        "LAMP at initialization, log critical compression by path / log rho_max",
        paper=None,
        ours=list(lasts["path"]),
        reason="a layer-wise score does not know which units the next layer reads",
        conditions=setting,
    ),
]
sf.paper.record("08_your_own_pruner", rows)
print(sf.paper.verdicts(rows, ["quantity", "interval", "verdict"]))

# %% [markdown]
# ## Exercises
#
# They stand where their idea is read. Each has a hint, and a check that says which mistake it saw.
#
# | exercise | in section | minutes | difficulty |
# |---|---|---|---|
# | 1 · Squared flow | Is it conserved? | 5 | 1 |
# | 2 · A score that cannot empty a layer | When does it collapse? | 10 | 3 |

# %% [markdown]
# ## Takeaways
#
# - A method is a function from a model and a batch to scores. Its name works everywhere.
# - "No layer is empty" is not "connected". LAMP keeps every layer alive to the end and is cut early.
# - Measure conservation, collapse, accuracy and cost: a method may be good by one and bad by another.
# - Networks of others can be pruned too. Where dead units can be taken out
#   ([of which networks](../docs/networks.md)), they become smaller and stay the same function.
# - In newer networks some weights only steer, and some are never counted. Ask which before comparing.
#
# **Further questions.** Can a layer-wise score be mended so that its weights meet, without becoming SynFlow?
# Is conservation needed, or only that some path is always kept? Which of these methods is worth its cost
# where training is short? None of these is answered here.
#
# Next: `09_course_lab`, a graded assignment.

# %% [markdown]
# ## References
#
# - H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, *Pruning neural networks without any data by
#   iteratively conserving synaptic flow*, NeurIPS 2020, [arXiv 2006.05467](https://arxiv.org/abs/2006.05467).
# - J. Lee, S. Park, S. Mo, S. Ahn, J. Shin, *Layer-adaptive sparsity for the magnitude-based pruning*,
#   ICLR 2021, [arXiv 2010.07611](https://arxiv.org/abs/2010.07611): LAMP, there on trained networks.
