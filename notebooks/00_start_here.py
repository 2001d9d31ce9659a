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
# # 00 · Start here: prune VGG-16 and watch it break
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/synflow-lib/synflow-lib/blob/main/notebooks/00_start_here.ipynb)
#
# Pruning sets most weights of a network to zero and keeps the few that matter. *At initialization*
# nothing has been learned yet, so a score has to say which ones those are. Here five scores prune
# the same untrained network, harder and harder, and four of them cut it in two.
#
# ![Five rows, one a pruning method, and a cell for each of the 14 layers of VGG-16 with the number of weights left in it: only the SynFlow row is connected from input to output](../figures/start_layers_left.png)
#
# *VGG-16 with one weight of ten thousand left. Only the last row still connects input to output.*
#
# **Learning goals**
#
# - Prune a network at an exact compression with five methods, and read the masks.
# - Tell the two signs of *layer-collapse* apart: a layer that is empty, a network without a path.
# - Say why one threshold for all layers is unfair to large layers, and why scoring again helps.
# - Write a pruning method of your own.
#
# You need PyTorch, and nothing about pruning. Twenty minutes to read and predict, fifteen for the
# exercises; about a minute to run on two CPU cores. Terms are explained where they first appear, and all
# of them in the [glossary](../docs/glossary.md); [one page](../docs/card.md) holds the laws, the
# algorithm and the paper's numbers.

# %% [markdown]
# ## Setup
#
# `SCALE` says how much is computed. `classroom` suits a laptop, the larger ones a GPU.

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

import pandas as pd
import torch

import synflow_lib as sf
from synflow_lib.reproduction import experiments

settings, device = sf.env.settings(), sf.env.device()
print(
    f"scale {settings.scale}: {settings.scoring_per_class} images per class of"
    f" {settings.scoring_data} to score on, device {device}"
)

# %% [markdown]
# ## Why prune before training?
#
# A trained network can often lose nine of ten weights and stay as accurate as it was. But to get
# there all of them had to be trained, in memory and time that were paid for weights which are then
# thrown away. Could the small network be trained from the start? In 2019 Frankle and Carbin found
# small networks inside large untrained ones that train as well as the whole; but they found them by
# training the large one first. Methods that prune *at initialization* look for them without that.
#
# (What is saved today is counted in notebook 06: a mask of zeros alone makes no network faster on an
# ordinary processor.)
#
# At strong compression these methods share one difficulty, and it is the subject of this course: they
# remove so much of one layer that no signal gets through.
#
# ## The network
#
# VGG-16 for images of 32x32 pixels and 100 classes, as in figure 1 of the paper: 13 convolutions and
# a classifier. What can be pruned are the weights of these $L$ layers, $N$ in total (not biases, not
# BatchNorm). **Compression** is $\rho = N / \text{kept weights}$: 1 is the whole network, 1,000 keeps
# one weight in a thousand.
#
# How far can it go at all? A signal needs at least one weight in each of the $L$ layers, so
#
# $$\rho_{max} = N / L .$$

# %%
# NBVAL_CHECK_OUTPUT
net = sf.models.vgg16(num_classes=100, seed=0).to(device)

weights = sf.prunable(net)
N, L = sum(weight.numel() for weight in weights.values()), len(weights)
print(f"N = {N:,} weights in L = {L} layers, rho_max = N / L = {N / L:,.0f}")

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
# ## Prune it
#
# A method gives every weight a score; the lowest scores go, whatever layer they are in. Magnitude
# pruning scores a weight $\theta$ with $|\theta|$. To keep one weight in a hundred is five lines of
# torch: put all scores into one list, find the threshold that $N / 100$ of them reach, and compare.

# %%
# NBVAL_CHECK_OUTPUT
magnitudes = {name: weight.detach().abs() for name, weight in weights.items()}
together = torch.cat([magnitude.flatten() for magnitude in magnitudes.values()])
threshold = together.topk(round(N / 100)).values[-1]  # one threshold for all layers
mine = {name: magnitude >= threshold for name, magnitude in magnitudes.items()}

masks = sf.prune(net, "magnitude", compression=100)
sf.predict.compare("masks of magnitude", mine, masks)

# %% [markdown]
# That is all that happens inside of `sf.prune` for a score that is given once. (Besides, it breaks ties
# such that the number of weights is always exact.) Masks hold True where a weight stays.
#
# **Predict, then run.** One weight in a hundred stays in the whole network. How many stay in the first
# layer, which has 1,728 weights? Where a kernel runs, a slider asks you; anywhere else write your
# answer in the place of `None`. Cells that show the measurement put your guess beside it.

# %%
first_layer = sf.predict.Number("How much of the first layer stays?", 0, 100, "percent", mine=None)
first_layer

# %%
# NBVAL_CHECK_OUTPUT
print(masks)
print(masks.table().round(5).to_string(index=False))
print(first_layer.beside(100 * masks.table()["density"].iloc[0]))

# %% [markdown]
# Exactly $N / 100$ weights are left, but not a hundredth of each layer: the first layer keeps four
# weights of five, the largest layers one of a thousand. The reason is how the weights were drawn: with
# a standard deviation that falls with the number of inputs of a neuron, so small in large layers. `net`
# itself has not changed; `masks.apply_(net)` would write the zeros.
#
# ## Five methods
#
# | method | score of a weight $\theta$ | looks at |
# |---|---|---|
# | random | a random number | nothing |
# | magnitude | $\lvert\theta\rvert$ | the weight |
# | SNIP | $\lvert\partial\mathcal L/\partial\theta \cdot \theta\rvert$: to first order, how much the loss $\mathcal L$ would change | images and labels |
# | GraSP | $\theta \cdot (Hg)$: to first order, how much the gradient would shrink; $g$ is the gradient of $\mathcal L$, $H$ the matrix of its second derivatives (Hessian) | images and labels |
# | SynFlow | $\partial\mathcal R/\partial\theta \cdot \theta$, $\mathcal R$ the sum over all paths from input to output of the product of their $\lvert\theta\rvert$ | all weights, no data |
#
# The first four score once, and that order of the weights holds for every compression. SynFlow
# removes some weights, scores the rest again, and goes on. In both cases no weight that is gone
# returns, so a single run holds the masks for every compression. The library calls such a run a
# `trajectory`: `path.at(100)` gives the masks at compression 100.
# (`mode="eval"`: BatchNorm uses its stored statistics while SNIP and GraSP score. That matters;
# notebook 01 shows how much.)

# %%
data = sf.data.by_name(settings.scoring_data, size=32, channels=3).to(device)
batch = data.scoring_batch(settings.scoring_per_class)
# On data float32 takes a third of the time; the pictures are the same.
types = {"snip": torch.float32, "grasp": torch.float32}
scores = {m: sf.score(net, m, batch, mode="eval", dtype=types.get(m)) for m in sf.figures.FIVE}


def given_once(found):
    """A method that always returns these scores."""
    return lambda model, batch: found


one_shot = ["random", "magnitude", "snip", "grasp"]
paths = {m: sf.trajectory(net, given_once(scores[m])) for m in one_shot}
paths["synflow"] = sf.trajectory(net, "synflow")
{method: path.at(10_000) for method, path in paths.items()}

# %% [markdown]
# Five masks with the same number of weights. Here is where they left them.

# %%
harsh = experiments.collapse.layer_densities(paths, [10_000])
joined = experiments.collapse.collapse_verdicts(net, paths, [10_000]).set_index("method")
notes = joined["connected"].map({True: "connected", False: "no path"}).to_dict()

figure = sf.figures.layers_left(harsh, notes)
sf.figures.save(figure, "start_layers_left", harsh.drop(columns="name"))
figure

# %% [markdown]
# ## Who collapses?
#
# **Layer-collapse** has two signs. The paper's is an *empty layer*. The stricter one is that *no
# path* of kept weights leads from input to output: then the output no longer depends on the image,
# and training cannot repair that. An empty layer cuts every path of a chain like VGG; the reverse is
# not true.
#
# **Predict, then run.** At which of these compressions has magnitude pruning cut the network?

# %%
compressions = [10**2, 10**2.5, 10**3, 10**3.5, 10**4, 10**5, N / L]
names = [f"{c:,.0f}" for c in compressions]
first_cut = sf.predict.Choice("From where on has magnitude no path left?", names, mine=None)
first_cut

# %% [markdown]
# Each entry says `ok`, or `no path` and how many of the 14 layers are empty.

# %%
# NBVAL_CHECK_OUTPUT
verdicts = experiments.collapse.collapse_verdicts(net, paths, compressions)
verdicts["sign"] = [
    "ok" if row.connected else f"no path, {row.empty_layers} empty" for row in verdicts.itertuples()
]
table = verdicts.pivot_table(index="compression", columns="method", values="sign", aggfunc="first")
table.index = names
print(table[list(paths)].to_string())
print(first_cut.beside(table.index[table["magnitude"] != "ok"][0]))

# %% [markdown]
# Read the entries `no path, 0 empty`: every layer has weights left, and still the network is in two
# pieces. Counting empty layers would miss it.
#
# SynFlow goes all the way to $\rho_{max}$, one weight a layer, a single path. (A network that is
# connected can be trained; that does not make it accurate. What collapse does to accuracy is in
# notebook 01.)

# %% [markdown]
# ## The race
#
# Five methods prune the same small network together; a cross marks where a method has lost a whole
# layer. With a running kernel the slider below moves the compression. The picture after it needs no
# kernel, and the animation plays anywhere. Without a kernel and without Python, the pages that
# `make site` builds move by themselves: [this race](../notebooks/tools/site/static/explore/race.md) on
# three networks, the [collapse](../notebooks/tools/site/static/explore/collapse.md) of each layer, and
# [SynFlow step by step](../notebooks/tools/site/static/explore/synflow.md) on a network that is drawn
# weight by weight.
#
# ![The race as a page: a slider for the compression and, for each method, a bar for each layer of VGG-16; at compression 1000 magnitude and GraSP have no path left](../docs/race.png)

# %%
sf.explore.race()

# %%
sf.explore.race_picture()

# %%
sf.explore.race_animation()

# %% [markdown]
# ## A first look at why
#
# All layers are compared with one threshold. So ask what the *average* score of a layer is, and how it
# depends on the size of the layer.

# %%
means = pd.concat(
    experiments.conservation.layer_means(
        net, {name: score.abs() for name, score in scores[m].items()}
    ).assign(method=m)
    for m in sf.figures.FIVE
)
figure = sf.figures.layer_scores(means)
sf.figures.save(figure, "start_layer_means", means)
figure

# %% [markdown]
# To the left are large layers, to the right small ones. Both axes are logarithmic: slope 0 says that the
# size does not matter, slope 1 that the average is proportional to one over the size. The slopes:

# %%
# NBVAL_CHECK_OUTPUT
for method, rows in means.groupby("method", sort=False):
    print(f"{method:<10}{sf.paper.loglog_slope(rows.layer_size, rows.mean_score):5.2f}")

# %% [markdown]
# Random scores are flat. With all others large layers have small averages, and with SynFlow the slope
# is steepest: it is 1 (notebook 02 proves it). Under one threshold the large layers lose their weights
# first: in the picture of the layers above, at compression 10,000, magnitude has emptied the eight
# largest layers, GraSP six of them and SNIP two. With random scores it is the smallest layer that has
# the fewest chances to keep a weight.
#
# But then SynFlow should collapse before all others. What if it scores only once, like the others?
#
# **Predict, then run.** Up to which compression is no layer empty then? (Magnitude: 742.)

# %%
once = sf.predict.Number(
    "SynFlow, scored once: no layer is empty up to which compression?", 1, 1e6, log=True, mine=None
)
once

# %%
# NBVAL_CHECK_OUTPUT
for how, options in {"scored once": {"iterations": 1}, "scored again and again": {}}.items():
    found = sf.critical_compression(net, "synflow", criterion="layer", **options)
    print(f"SynFlow, {how}: no layer is empty up to compression {found.compression:,.0f}")
    if options:
        print(once.beside(found.compression))
print(f"largest possible, rho_max: {N / L:,.0f}")

# %% [markdown]
# The score is the same in both lines; only scoring again makes the difference. All layers always have
# the same *total* score. In a layer that has lost many weights few are left to share it, so at the next
# scoring each of them has a higher score. Notebook 04 makes a theorem of this, with a condition on the
# size of the steps, and a schedule that keeps the condition.

# %% [markdown]
# ### Exercise 2 · A method of your own
#
# *10 minutes, difficulty 2 of 5.* A method is a function of the model and a batch that
# returns a score for every prunable weight. Write one that is fair to layers: the magnitude of a
# weight, divided by the average magnitude in its layer. Then see up to which compression no layer is
# empty, `sf.critical_compression(net, fair_magnitude)`, and up to which a path is left: the same with
# `criterion="path"`.
#
# <details><summary>Hint</summary>
#
# `sf.prunable(model)` gives name and weight of every prunable layer. Take magnitudes *before* the mean:
# of the weights themselves the mean is about zero.
#
# </details>


# %%
def fair_magnitude(model, batch):
    """Parameter name -> |theta| / mean |theta| of the layer."""
    ...


# %%
print(sf.exercises.check_fair_magnitude(fair_magnitude))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def fair_magnitude(model, batch):
#     weights = sf.prunable(model)
#     return {name: w.detach().abs() / w.detach().abs().mean() for name, w in weights.items()}
# ```
#
# With this network no layer is empty up to compression 18,781 instead of 742 (magnitude), but input and
# output are cut apart at 1,269 already (magnitude: 227). So a better balance between layers moves the
# collapse, by path by a factor of 5.6, and it still comes far from $\rho_{max}$.
#
# </details>

# %% [markdown]
# ## Exercises
#
# They stand where their idea is read. Each has a hint, and a check that says which mistake it saw.
#
# | exercise | in section | minutes | difficulty |
# |---|---|---|---|
# | 1 · The limit | The network | 5 | 1 |
# | 2 · A method of your own | A first look at why | 10 | 2 |

# %% [markdown]
# ## Takeaways
#
# - A pruning method is a score; one threshold over all layers decides what stays.
# - Layer-collapse has two signs, an empty layer and a missing path. In a chain an empty layer cuts
#   every path; under random, magnitude, SNIP and GraSP the last path was lost before that.
# - The largest possible compression of a chain is $N / L$. Random, magnitude, SNIP and GraSP collapse
#   long before; SynFlow reaches it.
# - Large layers have small average scores. With SynFlow the averages fall most steeply with size, and
#   scored once it collapses first; scored again after every step it reaches the limit.
#
# **Further questions.** How much of the time that training costs could a mask save on hardware that
# knows zeros? Is there a cheap measurement at initialization that tells how accurate a pruned network
# will be, and not only whether it is connected? Neither is answered here.
#
# Next: `01_layer_collapse` measures all this exactly and compares it with the paper.
# `02_conservation_laws` explains the averages, and `04_synflow` proves that scoring again prevents
# collapse.

# %% [markdown]
# ## References
#
# - H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, *Pruning neural networks without any data by
#   iteratively conserving synaptic flow*, NeurIPS 2020, [arXiv 2006.05467](https://arxiv.org/abs/2006.05467):
#   SynFlow, layer-collapse.
# - J. Frankle, M. Carbin, *The lottery ticket hypothesis: finding sparse, trainable neural networks*,
#   ICLR 2019, [arXiv 1803.03635](https://arxiv.org/abs/1803.03635).
# - N. Lee, T. Ajanthan, P. Torr, *SNIP: single-shot network pruning based on connection
#   sensitivity*, ICLR 2019, [arXiv 1810.02340](https://arxiv.org/abs/1810.02340).
# - C. Wang, G. Zhang, R. Grosse, *Picking winning tickets before training by preserving gradient
#   flow* (GraSP), ICLR 2020, [arXiv 2002.07376](https://arxiv.org/abs/2002.07376).
# - K. Simonyan, A. Zisserman, *Very deep convolutional networks for large-scale image recognition*
#   (VGG), ICLR 2015, [arXiv 1409.1556](https://arxiv.org/abs/1409.1556).
