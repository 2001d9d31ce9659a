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

# %% [markdown] slideshow={"slide_type": "slide"}
# # 10 · A lecture of 50 minutes: pruning before training
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/synflow-lib/synflow-lib/blob/main/notebooks/10_lecture.ipynb)
#
# Most weights of a network can go before it has seen a single image, if they are chosen so that a signal
# still gets through. Eight small experiments, run while the audience watches, lead from this observation
# to SynFlow.
#
# ![Five rows, one a pruning method, and a cell for each of the 14 layers of VGG-16 with the number of weights left in it: only the SynFlow row is connected from input to output](../figures/start_layers_left.png)
#
# **Learning goals**
#
# - Say why anyone prunes before training, and how it fails: layer-collapse.
# - Derive from a conservation law why large layers are emptied first.
# - Explain why scoring again and again helps, and what SynFlow promises.
# - Tell what has been shown from what has not.

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 3 minutes, until 3.* One network all along, a perceptron of six layers with BatchNorm on digits of 8x8 pixels; VGG-16 once, as
# a picture. Each live cell takes less than 5 seconds on two CPU cores (the slowest took 2.9, by
# `benchmarks/lecture.py`); run the setup before the lecture. `make classroom` makes slides of this notebook; key T
# opens these notes in a window of their own. In JupyterLab or RISE run the live cells instead.
#
# The plan, in minutes: opening 3, why before training 6, a score and a threshold 5, layer-collapse 7,
# conservation 6, large layers 5, iteration 5, SynFlow and its theorem 6, results and limits 6, questions 1.
#
# Say: the picture shows VGG-16 with one weight of ten thousand left, pruned five ways. Four of the
# networks are cut in two. By the end everybody should be able to say why the fifth is not.

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

import pandas as pd
import torch

import synflow_lib as sf
from synflow_lib.reproduction import experiments

digits = sf.data.digits()
batch = digits.scoring_batch(10)  # ten images a class, for the methods that look at data
net = sf.models.fc(digits.input_shape, batch_norm=True, seed=0)
recipe = sf.Recipe(epochs=3, learning_rate=0.1, batch_size=64)
print(
    f"{net.__class__.__name__} with {sum(w.numel() for w in sf.prunable(net).values()):,} weights"
)

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why prune before training?
#
# - *After* training nine weights of ten can go: the network is cheaper to use.
# - The *lottery ticket* experiments: what is left could have been trained alone, from its own initial
#   values. But it took a training to find it.
# - *At initialization* the search itself would be free. Is it possible?

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 6 minutes, until 9.* Ask first: how much accuracy does a random nine tenths cost? Collect three numbers. Then run the cell: all
# weights, a tenth chosen by a score, a tenth chosen at random.
#
# Expect: the scored tenth is as good as the whole network, and even the random tenth loses only some
# points. So a factor of ten is no test of a method. The test comes at a factor of a hundred.

# %%
guess = sf.predict.Number(
    "Accuracy with a random tenth of the weights", 0, 100, "percent", mine=None
)
guess

# %% tags=["live"]
accuracy = {}
for method, compression in ((None, 1), ("snip", 10), ("random", 10)):
    masks = sf.prune(net, method, compression, batch=batch) if method else None
    result = sf.train(copy.deepcopy(net), masks, digits, recipe)
    accuracy[method or "all weights"] = round(result.top1)
print(accuracy)
print(guess.beside(accuracy["random"]))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A score and a threshold
#
# Every method here gives each weight a *score* and removes the smallest, whatever layer they are in.
#
# | method | score of $\theta$ | needs |
# |---|---|---|
# | random | a random number | nothing |
# | magnitude | $\lvert\theta\rvert$ | the weight |
# | SNIP | $\lvert \theta\,\partial\mathcal L/\partial\theta \rvert$ | a batch |
# | GraSP | $\theta \cdot (Hg)$, gradient $g$ and Hessian $H$ of the loss $\mathcal L$ | a batch |
# | SynFlow | $\theta\,\partial\mathcal R/\partial\theta$, $\mathcal R$: sum over paths of $\prod\lvert\theta\rvert$ | all weights, no data |
#
# **Compression** $\rho = N / \text{kept weights}$.

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 5 minutes, until 14.* Write the cell with the audience: score, one threshold for all layers, mask. Three lines are the whole of
# magnitude pruning; the last line shows that the library does the same, to the last weight.
#
# Point at the table: the last three scores have the form derivative times weight (SNIP up to its absolute
# value). That form is what the conservation law is about, in ten minutes.

# %% tags=["live"]
# NBVAL_CHECK_OUTPUT
weights = {name: weight.detach() for name, weight in sf.prunable(net).items()}
flat = torch.cat([weight.abs().flatten() for weight in weights.values()])
threshold = flat.topk(round(len(flat) / 100)).values[-1]  # the same for all layers
mine = {name: weight.abs() >= threshold for name, weight in weights.items()}

masks = sf.prune(net, "magnitude", compression=100)
sf.predict.compare("magnitude pruning", mine, masks)
print(masks.table().round(4).to_string(index=False))

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Layer-collapse
#
# A signal needs one weight in each of the $L$ layers, so $\rho_{max} = N / L$.
#
# A method **collapses** when it empties a layer that another choice of the same number of weights would
# not. Stricter: when *no path* of kept weights leads from input to output. The **critical compression** is
# the largest before that happens.

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 7 minutes, until 21.* The limit of this network is 7,900. Vote: which method is first to lose its last path, and near which
# compression? Then run the cell. If there is time, type `sf.explore.race()` into a new cell and move its
# slider; the picture below the table is one of its positions.
#
# Expect: all four are cut long before the limit, magnitude near 135. Paths are lost before a layer is
# empty: the paper counts empty layers, by which these four look better.
#
# If asked: SNIP and GraSP are scored here with BatchNorm's stored statistics, as in figure 2 of the paper.
# In train mode, as their authors did, both lose their last path near 100.

# %%
four = ["random", "magnitude", "snip", "grasp"]
vote = sf.predict.Choice("Which method is first without a path?", four, mine=None)
vote

# %% tags=["live"]
# NBVAL_CHECK_OUTPUT
one_shot = {m: sf.trajectory(net, m, batch, mode="eval", iterations=1) for m in four}
points = experiments.collapse.collapse_points(net, one_shot)
table = points.pivot_table(index="method", columns="criterion", values="critical_compression")
print(table.round().astype(int).loc[four])
print(f"rho_max = {sf.max_compression(net):,.0f}")
print(vote.beside(table["path"].idxmin()))

# %%
sf.explore.race_picture()

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A law of conservation
#
# Scale the weights that enter a hidden ReLU unit by $c$, those that leave it by $1/c$: the function stays.
# So does any $\mathcal R$ computed from it, and the derivative by $c$ at $c = 1$ vanishes:
#
# $$\sum_{\text{in}} \frac{\partial\mathcal R}{\partial\theta}\,\theta
#   \;=\; \sum_{\text{out}} \frac{\partial\mathcal R}{\partial\theta}\,\theta .$$
#
# **What enters a unit leaves it.** Summed over a layer: *all layers have the same total score*.

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 6 minutes, until 27.* Derive it on the board: one unit, one factor c. Nothing was used but that ReLU passes a positive factor
# through. It is Kirchhoff's law, and like there the network can be cut anywhere: across every cut flows the
# same.
#
# Which of the scores obey it? SynFlow, and SNIP before its absolute value is taken. Magnitude and random do
# not; nor does GraSP quite, whose R is made of gradients and not of the function alone (notebook 02). Run the cell; the numbers are relative errors at single units. (In
# float64, without BatchNorm, whose weights would have to be counted: notebook 02.)

# %% tags=["live"]
# NBVAL_CHECK_OUTPUT
plain = sf.models.fc(digits.input_shape, seed=0).double()
for method in ("random", "magnitude", "snip", "signed_snip", "synflow"):
    scores = sf.score(plain, method, batch)
    report = sf.check_conservation(plain, scores, level="unit")
    error = report.max_relative_error
    print(f"{method:12} largest relative error {error:.2f}, conserved: {report.holds(1e-10)}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Why large layers go first
#
# All layers have the same total $\mathcal S$. A layer with $N_l$ weights has
#
# $$\text{average score} = \mathcal S / N_l .$$
#
# One threshold for all layers: **the larger a layer, the smaller its scores, the sooner it is empty.**

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 5 minutes, until 32.* This is the explanation of layer-collapse, and it is one division. Ask before running: between the
# smallest and the largest of these layers, by which factor will the average scores differ?
#
# Expect: exactly the factor of the sizes. And the surprise: SynFlow, scored once, is *worse* than all the
# others, because its scores obey the law exactly. So the law alone does not help; the next slide adds what
# does.

# %%
factor = sf.predict.Number(
    "Average score in the smallest layer over that in the largest", 0.01, 100, log=True, mine=None
)
factor

# %% tags=["live"]
# NBVAL_CHECK_OUTPUT
scores = sf.score(plain, "synflow")
rows = [(name, s.numel(), float(s.sum()), float(s.mean())) for name, s in scores.items()]
layers = pd.DataFrame(rows, columns=["layer", "weights", "total", "average"]).set_index("layer")
layers[["total", "average"]] /= layers[["total", "average"]].max()
print(layers.round(4))
by_size = layers.sort_values("weights")["average"]
print(factor.beside(by_size.iloc[0] / by_size.iloc[-1]))

once = sf.critical_compression(net, "synflow", criterion="path", iterations=1).compression
print(f"SynFlow scored once: the last path is lost beyond compression {once:.0f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Score again
#
# When a layer has lost weights, the same total is shared by fewer: **their scores rise.** What is left of a
# large layer is protected, if one asks again before going on.
#
# Iterate: score, remove a small share, score what is left, ...

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 5 minutes, until 37.* Draw two layers with a total of 1 each, one of ten weights, one of a hundred; remove fifty of the second;
# share again. Then run the cell: the same method, 1 to 100 rounds.
#
# Expect: the critical compression rises from 43 to the limit, 7,900, at thirty rounds. The last column is
# the largest score that one round removed, in units of what a layer carries. At thirty rounds it is
# below 1, and the theorem of the next slide says that this is enough.
#
# If asked: iteration alone does not save other scores, which do not keep the law or are not positive;
# notebook 06 tries it.

# %% tags=["live"]
# NBVAL_CHECK_OUTPUT
limit = sf.max_compression(net)
print("iterations  critical compression  largest prune size / cut size")
for iterations in (1, 3, 10, 30, 100):
    path = sf.trajectory(
        net, "synflow", schedule="exponential", iterations=iterations, compression=limit
    )
    points = experiments.collapse.collapse_points(net, {"synflow": path})
    by_path = points.set_index("criterion")["critical_compression"]["path"]
    print(f"{iterations:10}  {by_path:20,.0f}  {path.history['ratio'].max():10.2f}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## SynFlow, and what it promises
#
# $\mathcal R = \sum_{\text{paths}} \prod \lvert\theta\rvert$: no data, no negative term, conserved.
#
# **Theorem.** If each step removes less score than one layer carries ($\text{prune size} < \mathcal R$), some
# path survives it: a path is lost only with a removed weight on it, so the lost flow is at most the prune
# size, less than all.
#
# Such a step exists until every layer has one weight left: **maximal critical compression**,
# $\rho_{cr} = \rho_{max}$.

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 6 minutes, until 43.* Read the proof aloud; it is a union bound. Positive scores are needed for the first half, conservation
# for the second: if a layer has two weights left, the smaller carries at most half.
#
# Then use the theorem as a schedule: remove as much as it allows, score again. The cell needs some twenty
# rounds and ends with one weight in each layer, at exactly the limit. `sf.explore.steps()` shows it weight
# by weight.

# %% tags=["live"]
# NBVAL_CHECK_OUTPUT
path = sf.trajectory(net, "synflow", schedule="cut")
end = path.at(path.max_compression)
print(
    f"{len(path.history)} rounds, prune size always below a layer's total:",
    bool((path.history["ratio"] < 1).all()),
)
print(
    f"{end.kept} of {end.total:,} weights, one in each of {len(end)} layers:",
    end.table()["kept"].eq(1).all(),
)
print("exactly rho_max:", path.max_compression == sf.max_compression(net, "path"))

# %%
sf.explore.steps_picture(iteration=1, phase="cut")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Does it help? Results and honest limits
#
# The last experiment: five methods, four compressions, each network trained.

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 6 minutes, until 49.* Run it; twenty networks train at once, in about three seconds. Read the curves from left to right.
#
# Expect: at 10 all methods reach more than 90 percent. GraSP is level with SynFlow at 30. At 100 and beyond
# SynFlow is alone in learning much; the others have no path or hardly any. (SNIP and GraSP score in train
# mode here, so their paths end earlier than in the table of the vote. One seed; notebook 05 has five, with
# intervals, and the paper's own points.)
#
# Then the limits, which belong to the lecture: take the list below the figure line by line.

# %% tags=["live"]
runs = [(method, rho) for method in sf.figures.FIVE for rho in (10, 30, 100, 300)]
masks = [sf.prune(net, method, rho, batch=batch) for method, rho in runs]
copies = [copy.deepcopy(net) for _ in runs]
results = sf.train_many(copies, masks, digits, recipe)

table = pd.DataFrame(runs, columns=["method", "compression"])
table = table.assign(seed=0, accuracy=[result.top1 for result in results])
sf.figures.accuracy_curves(table)

# %% [markdown]
# **Limits**
#
# - Up to compression 10 the five methods are within 5 percent of each other on the perceptron.
# - On large networks pruning after training, or with rewinding, is reported to find better ones. It costs
#   trainings.
# - Shuffling SynFlow's mask within layers costs little up to 10: no choice of single weights has been shown
#   to matter there. At 100 it costs most of the accuracy, since few weights stay on paths (notebook 07).
# - Being blind to data costs accuracy where inputs are dead.
# - A mask makes nothing faster. Units without a path can be cut out; single zeros need other hardware.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## Questions
#
# Three to begin with, if nobody asks:
#
# - The network has a skip connection. What is its largest compression, and what is a collapse?
# - Would local thresholds, one a layer, avoid all this? What do they cost?
# - What would you have to measure to believe that a mask *knows* something?

# %% [markdown] slideshow={"slide_type": "notes"}
# *Speaker's notes, 1 minute, until 50.* If there is time, go back to the picture of the trained networks. Notebook 04 answers the first question,
# 08 the second (LAMP and exercise 2), 07 the third. The two exercises below are for after the lecture.

# %% [markdown] slideshow={"slide_type": "slide"}
# ## After the lecture

# %% [markdown]
# ### Exercise 1 · The limit
#
# *5 minutes, difficulty 1 of 5.* Write a function that gives $\rho_{max}$ of any chain of `nn.Linear`
# and `nn.Conv2d` layers (their weights count, their biases do not).
#
# <details><summary>Hint</summary>
#
# `net.named_parameters()` gives names and tensors; those of weights end in `weight`, and `numel()` counts.
#
# </details>


# %%
def largest_compression(net):
    """rho_max = N / L."""
    ...


# %%
print(sf.exercises.check_largest_compression(largest_compression))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def largest_compression(net):
#     sizes = [p.numel() for name, p in net.named_parameters() if name.endswith("weight")]
#     return sum(sizes) / len(sizes)
# ```
#
# (With BatchNorm in the chain its weights would have to be left out.)
#
# </details>

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
# ## Exercises
#
# Each has a hint, and a check that says which mistake it saw.
#
# | exercise | in section | minutes | difficulty |
# |---|---|---|---|
# | 1 · The limit | After the lecture | 5 | 1 |
# | 2 · One step of the cut schedule | After the lecture | 15 | 3 |

# %% [markdown]
# ## Takeaways
#
# - Pruning before training is a score and a threshold. It fails when a layer, or every path, is gone.
# - Derivative times weight is conserved where $\mathcal R$ depends on the function alone. So large layers have
#   small scores and go first.
# - Scored again, what is left of a large layer is protected. SynFlow makes a theorem of that and reaches
#   the largest possible compression.
# - Up to compression 10 the five methods hardly differ here; at 100 and beyond SynFlow is ahead.

# %% [markdown]
# ## References
#
# - H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, *Pruning neural networks without any data by
#   iteratively conserving synaptic flow*, NeurIPS 2020, [arXiv 2006.05467](https://arxiv.org/abs/2006.05467).
# - J. Frankle, M. Carbin, *The lottery ticket hypothesis*, ICLR 2019,
#   [arXiv 1803.03635](https://arxiv.org/abs/1803.03635).
# - N. Lee, T. Ajanthan, P. Torr, *SNIP*, ICLR 2019, [arXiv 1810.02340](https://arxiv.org/abs/1810.02340).
# - C. Wang, G. Zhang, R. Grosse, *Picking winning tickets before training by preserving gradient flow*
#   (GraSP), ICLR 2020, [arXiv 2002.07376](https://arxiv.org/abs/2002.07376).
# - J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin, *Pruning neural networks at initialization: why are we
#   missing the mark?*, ICLR 2021, [arXiv 2009.08576](https://arxiv.org/abs/2009.08576): the limits.
