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
# # 09 · Course lab
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/synflow-lib/synflow-lib/blob/main/notebooks/09_course_lab.ipynb)
#
# A graded assignment: five ways of pruning before training, what they cost in accuracy, and what they
# save. You measure accuracy, multiply-adds (one is a multiplication and an addition) and milliseconds from
# nearly dense networks down to one percent of the weights, look into every layer, write five small
# functions that are checked, and answer five questions in a report.
#
# ![Speed of a forward pass and its multiply-adds against compression: masks alone save no time, networks whose dead units are cut out do](../figures/lab_inference.png)
#
# *Left, what a clock says; right, what a count of kept weights promises.*
#
# **Learning goals**
#
# - Compare pruning methods at one density and over many, and say which differences are noise.
# - Tell the multiply-adds that a mask promises from the milliseconds that a machine needs.
# - Read densities and weight histograms layer by layer, and recognize a method by them.
#
# At classroom scale (embedded digits, small networks) the cells take one to two minutes on a laptop. Plan
# about 45 minutes to read what they show and to write the five functions, and one to two hours for the
# report. With a GPU and `SYNFLOW_SCALE=colab` (VGG-16 on CIFAR-10 and a perceptron on MNIST) training takes
# about an hour longer (an estimate for a T4), and needs nobody. The numbers below are of classroom scale.
# No figure of the paper; its figure 6 asks the same of more networks.

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

import synflow_lib as sf
from synflow_lib.reproduction import experiments
from synflow_lib.reproduction.figures import FIVE

lab = experiments.lab
tenth, densities = lab.at_ten_percent(), lab.over_densities()
runs = list(dict.fromkeys([*tenth.runs(), *densities.runs()]))
for panel in tenth.panels:
    net, _ = panel.network()
    size = sum(weight.numel() for weight in sf.prunable(net).values())
    print(f"{panel.model} on {panel.dataset}: {size:,} weights, {panel.recipe.epochs} epochs")
print(f"{len(runs)} networks to train")

# %% [markdown]
# The next cell trains them all, and stores each when it is done: interrupt it and start it again, and it
# goes on where it was.

# %%
results = sf.sweep(runs, store=sf.env.runs_dir() / "lab", progress=False)
print(f"{len(results)} runs, {(results['status'] == 'failed').sum()} failed")

# %% [markdown]
# ## 1 · A tenth of the weights
#
# All methods prune the same networks at initialization to density 0.1 (compression 10); then each is
# trained like the dense one. **Predict, then run:** which method loses most against the dense network,
# and by how many percent? Write it down.

# %%
table = tenth.table(results)
pruned = table[table["compression"] > 1]
dense = table.query("compression == 1 and method == 'random'").assign(method="dense")
first = pd.concat([dense, pruned]).pivot_table(
    index="method", columns="model", values="accuracy", aggfunc=["mean", "min", "max"]
)
print(f"top-1 accuracy in percent, over {tenth.seeds} seeds")
print(first.loc[["dense", *FIVE]].round(1).to_string())

# %%
# NBVAL_CHECK_OUTPUT
lost = first["mean"].loc["dense"] - first["mean"].loc[list(FIVE)]
print(
    f"pruned to a tenth, networks that lose less than 15 percent: {(lost < 15).sum().sum()} of 10"
)
print(f"methods that lose less than 5 percent on the perceptron: {(lost['fc'] < 5).sum()} of 5")

# %% [markdown]
# ## 2 · From nearly dense to one percent
#
# The convolutional network at densities $10^{-0.05}, 10^{-0.1}, 10^{-0.2}, 10^{-0.5}, 10^{-1}, 10^{-2}$
# (89 to 1 percent of the weights), one seed. **Predict:** sketch the five curves first. Where do they part?

# %%
over = densities.table(results)
figure = sf.figures.accuracy_curves(over)
sf.figures.save(figure, "lab_accuracy", over)
figure

# %%
shown = over.assign(density=np.round(1 / over["compression"], 3))
shown = shown.pivot_table(index="method", columns="density", values="accuracy")
print("top-1 accuracy in percent, by density")
print(shown.loc[list(FIVE)].round(1).to_string())
cut = over.query("disconnected").groupby("method")["compression"].min()
print("\nno path from input to output from this compression on")
print(cut.round(1).to_string())

# %%
# NBVAL_CHECK_OUTPUT
at = over.set_index(["method", "compression"])["accuracy"].round(1)
ahead = {m: bool(at["synflow", 100.0] - at[m, 100.0] > 20) for m in ("random", "magnitude")}
print(f"SynFlow at density 0.01 more than 20 percent ahead: {ahead}")
nearly = over.query("compression < 1.3")["accuracy"]
print(f"at densities 0.79 and more, networks below 90 percent: {(nearly < 90).sum()}")

# %% [markdown]
# ## 3 · Multiply-adds and milliseconds
#
# Who counts only kept weights finds that a network with a hundredth of its weights needs a few percent
# of the multiply-adds. A masked layer, however, multiplies by its zeros like by any number. Time is saved
# where tensors become smaller: where a whole unit lies on no path from input to output, it can be cut
# out (`sf.surgery.without_dead_units`), and the network computes the same function. We time three
# networks in 41 turns: dense, masked, and with dead units cut out. The figure compares the fastest calls,
# since other work on a machine can only add time; median and quartiles show how much it added.
# **Predict:** by how many percent of the median do the quartiles of one network lie apart on your machine?
# Differences in speed that are smaller than that say little.

# %%
device = sf.env.device()
panel = densities.panel
net, data = panel.network()
net, masks = net.to(device).eval(), lab.masks_of(panel)
images = next(data.to(device).batches("test", 128))[0]
times = lab.inference_times(net, masks, images)
figure = sf.figures.inference_times(times)
sf.figures.save(figure, "lab_inference")
figure

# %%
last = times[times["compression"] == times["compression"].max()]
wide = last.pivot_table(index="method", columns="network", values="executed")
print("density 0.01, multiply-adds executed for one image")
print(wide.loc[list(FIVE)].astype(int).to_string())
print(f"\nmilliseconds for {len(images)} images: the fastest call, and quartiles")
spread = last.query("method == 'synflow'").set_index("network")[
    ["fastest", "low", "median", "high"]
]
print(spread.round(2).to_string())

# %%
# NBVAL_CHECK_OUTPUT
executed = times.pivot_table(index=["method", "compression"], columns="network", values="executed")
share = (executed["cut"] / executed["dense"]).xs(10.0, level="compression")
print("left with dead units cut out, of the dense network's multiply-adds, at density 0.1:")
print((100 * share[list(FIVE)]).round(0).astype(int).to_string())

# %% [markdown]
# ## 4 · Where the weights go
#
# The density of every layer, for each method, over compression; then, at a tenth of the weights, the
# histogram of every layer before pruning, and of the weights that each method keeps.

# %%
layers = lab.density_table(masks)
figure = sf.figures.layer_fractions(layers, sf.max_compression(net))
sf.figures.save(figure, "lab_layers", layers)
figure

# %%
# NBVAL_CHECK_OUTPUT
at = layers[layers["compression"] == 10].pivot_table(
    index="method", columns="layer", values="density"
)
print("density of each layer, a tenth of the weights kept (layer 1: input)")
print(at.loc[["random", "magnitude", "synflow"]].round(2).to_string())

# %%
chosen = {method: each for (method, compression), each in masks.items() if compression == 10}
histograms = lab.weight_histograms(net.cpu(), chosen)
figure = sf.figures.weight_histograms(histograms)
sf.figures.save(figure, "lab_histograms", histograms)
figure

# %% [markdown]
# ## Exercises
#
# Each function is a step that a cell above left to the library. A check tries it on random input and says
# what it saw; it is worth 8 points.
#
# **1. The kept weights.** (3 minutes, 8 points) The histogram above shows kept weights only. From the
# weights of a layer and its mask (`True`: kept), both of one shape, return the kept weights as a
# one-dimensional tensor.


# %%
def kept_weights(weight, mask):
    """The weights that the mask keeps, in any order."""
    ...


# %%
print(lab.check_kept_weights(kept_weights))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def kept_weights(weight, mask):
#     return weight[mask]
# ```
#
# `weight * mask` would count every pruned weight as a zero, and put a tall bar in the middle of the
# histogram.
#
# </details>
#
# **2. Density by layer.** (3 minutes, 8 points) `masks` behaves like a dict: layer name -> mask. Return a
# dict: layer name -> density.


# %%
def layer_densities(masks):
    """Kept weights over all weights, layer by layer, as a dict."""
    ...


# %%
print(lab.check_layer_densities(layer_densities))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def layer_densities(masks):
#     return {name: float(mask.double().mean()) for name, mask in masks.items()}
# ```
#
# </details>
#
# **3. Multiply-adds of a pruned convolution.** (5 minutes, 8 points) The mask is
# [outputs, inputs, rows, columns]; the output map has `height` x `width` places. Count the multiply-adds
# of one image if only kept weights are multiplied; a multiply-add is one.


# %%
def conv_multiply_adds(mask, height, width):
    """Multiply-adds of one image, kept weights alone."""
    ...


# %%
print(lab.check_conv_multiply_adds(conv_multiply_adds))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def conv_multiply_adds(mask, height, width):
#     return int(mask.sum()) * height * width
# ```
#
# A kept weight is used once at every place of the output map (taps over the border included). So
# weights of early layers, with large maps, cost more than weights of late ones; two masks of one
# density can differ in multiply-adds.
#
# </details>
#
# **4. The middle half.** (5 minutes, 8 points) `times` are seconds of repeated calls, in order; the first
# call warms up (memory, caches, kernels) and does not count. Return the median, the lower and the upper
# quartile of the others (`np.quantile`).


# %%
def middle_half(times):
    """Median, lower quartile, upper quartile of all calls but the first."""
    ...


# %%
print(lab.check_middle_half(middle_half))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def middle_half(times):
#     return np.quantile(times[1:], [0.5, 0.25, 0.75])
# ```
#
# One call that other work interrupts moves a mean and a standard deviation, and not these three.
#
# </details>
#
# **5. The first table.** (5 minutes, 8 points) From a table like `table` of section 1 (columns model,
# method, compression, seed, accuracy, best) return a DataFrame: a row a method, a column a model, the
# mean accuracy after the last epoch at compression 10.


# %%
def ten_percent(table):
    """Mean accuracy at compression 10: methods as rows, models as columns."""
    ...


# %%
print(lab.check_ten_percent(ten_percent))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def ten_percent(table):
#     pruned = table[np.isclose(table["compression"], 10)]
#     return pruned.pivot_table(index="method", columns="model", values="accuracy")
# ```
#
# The column `best` looks at the test set to choose the epoch, which is why it is not asked for here.
#
# </details>

# %% [markdown]
# ## Report
#
# Hand in this notebook with your answers in it, run from top to bottom, with its outputs. The report has
# two pages, a paragraph or two for each question, with your own numbers. A full answer names the
# numbers it rests on (4 of 12 points), explains them (5), and says what they do not show (3).
#
# **A tenth of the weights.** (12 points) Rank the methods on both networks. Which differences are larger
# than the spread over seeds? What would you do to be surer?

# %% [markdown]
# *Your answer:*

# %% [markdown]
# <details><summary>Solution</summary>
#
# Expected at classroom scale (three seeds): dense 97 to 98 percent (convolutional), 98 to 99
# (perceptron). Pruned: 91 to 95 and 95 to 99. On the convolutional network seeds of one method differ by
# up to 2.5 percent and the means by 2: there is no order to report (GraSP's lead of 1 to 2 percent is
# the one candidate). On the perceptron random and magnitude lie 1 to 2 percent behind SNIP and SynFlow,
# about the spread of the seeds. Full points for saying that most differences are noise, and with which
# comparison (the same seeds, method against method). On Colab one seed: no spread, so no order within 1
# percent. VGG-16 after 10 epochs lies some percent below the paper's 160 epochs, which give: dense 93.2
# to 93.7, random 90.9 to 91.3, GraSP 91.7 to 92.0, SNIP 92.0 to 92.7, magnitude 93.0 to 93.2, SynFlow
# 93.2 to 93.4.
#
# </details>
#
# **From nearly dense to one percent.** (12 points) Where do the curves part? Which networks are at
# chance, and are they so because training is hard or because no path is left?

# %% [markdown]
# *Your answer:*

# %% [markdown]
# <details><summary>Solution</summary>
#
# Expected at classroom scale: 94 to 98 percent everywhere down to density 0.3, 91 to 95 at 0.1, and at
# 0.01 random and magnitude 10 percent (chance), SNIP and GraSP 20 to 45, SynFlow 40 to 60. The curves
# part between 0.1 and 0.01. Random and magnitude are at chance because no path is left (the list below
# the figure; magnitude emptied the last layer, random left every layer some weights that do not meet).
# SNIP and GraSP are still connected and lose all the same. Why they do, and where between 0.1 and 0.01 a
# method fails, one seed and six densities do not show (notebook 01 computes exactly where paths end). The
# paper's VGG-16 at 0.01 is far from chance: random has 79 percent there, GraSP 87 to 88, SNIP 89,
# magnitude and SynFlow 90.
#
# </details>
#
# **Multiply-adds and milliseconds.** (12 points) Compare the count, the multiply-adds executed and the
# time at densities 0.1 and 0.01. For which methods does pruning make inference faster here, and why is
# it never by as much as the count says?

# %% [markdown]
# *Your answer:*

# %% [markdown]
# <details><summary>Solution</summary>
#
# Expected: the masked network takes as long as the dense one at every density (a speed of 1 up to what
# other work on the machine adds, here up to 0.25); it executes every multiply-add. Counted are 10 (random) to 40 percent at density 0.1 and 1 to 5 at 0.01:
# the weights of convolutions are used at 64 places each, those of the last layer once, and all methods
# but random prune the last layer most. With dead units cut out 75 (SynFlow) to 100 percent are executed
# at density 0.1, and 10 (SynFlow) to 50 (GraSP) at 0.01, where the network becomes 1.1 to 1.7 times as
# fast on a CPU; less than by multiply-adds, since calls, BatchNorm and memory cost time too. The fast
# networks of random and magnitude at 0.01 are constants. It is never as much as counted because the
# tensors that remain still hold zeros. Milliseconds depend on the machine; a report without a spread, or
# without saying on what it was measured, loses the 3 points for limits.
#
# </details>
#
# **Where the weights go.** (12 points) Describe each method by its densities and histograms. Which prunes
# all layers alike? Which empties large layers, which spares small ones? What does each do with small
# weights?

# %% [markdown]
# *Your answer:*

# %% [markdown]
# <details><summary>Solution</summary>
#
# Expected: random keeps the same share of every layer, and weights of every size (its histogram is the
# grey one, ten times lower). Magnitude keeps what lies beyond one threshold for all layers: a hole
# around zero with sharp edges, wide in the last layer, whose weights are small (fan-in 512) and of which
# 3 percent stay, narrow in the first (78 percent stay). At 0.01 its last layer is empty. SynFlow prefers
# large weights too, with a threshold less sharp, since a score also counts the paths through a weight;
# it spares the first layer like magnitude and keeps twice as much of the last. SNIP and GraSP have a
# dent at zero instead of a sharp edge: their scores contain the weight as a factor, and a gradient.
# GraSP alone prunes early layers most at densities near 1 (32 to 44 percent of them at 0.89): its score
# has a sign, and those of early layers reach furthest below zero.
#
# </details>
#
# **Advice.** (12 points) A colleague wants to prune a network before training by (a) a factor of 2,
# (b) a factor of 100, to make it faster on a CPU. What do you recommend, and what would you measure first?

# %% [markdown]
# *Your answer:*

# %% [markdown]
# <details><summary>Solution</summary>
#
# Expected: (a) any method, since none differs from another beyond noise at density 0.5; the cheapest, or
# random as a baseline. It will not be faster on a CPU: nothing can be cut out, and a sparse kernel pays
# only at lower densities (notebook 06, question 8). Better: a narrower dense network. (b) A method that
# keeps paths: SynFlow, or SNIP with a check by `sf.is_collapsed(..., criterion="path")`. Then cut the
# dead units out, and compare with a dense network of the same time, trained as long. Measure first:
# whether a path is left; time with quartiles on the machine that counts; accuracy over several seeds.
#
# </details>

# %% [markdown]
# **The rubric.** Points of the exercises are those that the checks give now; a reader gives those of the
# report.

# %%
lab.rubric(globals())

# %% [markdown]
# ## Takeaways
#
# - At a tenth of the weights the five methods differ by some percent; at a hundredth two have no path
#   left, and the others differ by 16 percent (one seed).
# - A mask saves no time. Units that lie on no path can be cut out, and that does.
# - A method shows in its layers: who compares all weights by size empties the layers of small weights.
# - A time is measured in turns with what it is compared to, and given with its spread.

# %% [markdown]
# ## References
#
# - H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, *Pruning neural networks without any data by
#   iteratively conserving synaptic flow*, NeurIPS 2020, [arXiv 2006.05467](https://arxiv.org/abs/2006.05467).
# - N. Lee, T. Ajanthan, P. Torr, *SNIP: single-shot network pruning based on connection sensitivity*,
#   ICLR 2019, [arXiv 1810.02340](https://arxiv.org/abs/1810.02340).
# - C. Wang, G. Zhang, R. Grosse, *Picking winning tickets before training by preserving gradient
#   flow*, ICLR 2020, [arXiv 2002.07376](https://arxiv.org/abs/2002.07376): GraSP.
