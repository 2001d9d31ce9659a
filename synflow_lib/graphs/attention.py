"""Attention and gated halves as sums over paths: positions share alike, paths run through values.

The three spellings, ``nn.MultiheadAttention``, ``scaled_dot_product_attention`` and a softmax
between two products, have one meaning: a softmax is the mean over the positions that no mask takes
away, whatever queries and keys are.
"""

from __future__ import annotations

import functools
import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from .nodes import name_of
from .surrogate import Run, Use, gain, is_numbers, of_one_type

# exp(-80) is nothing beside one in float32: -100 and -1e9 are masks as -inf is.
_REMOVES = 80.0


def shares(scores: Tensor, dim: int) -> Tensor:
    """Equal shares along ``dim`` for all that no mask removes; ``scores`` hold the masks alone."""
    top = scores.amax(dim, keepdim=True)
    stay = ((scores >= top - _REMOVES) & (scores > -torch.inf)).to(scores.dtype)
    return stay / stay.sum(dim, keepdim=True).clamp(min=1.0)


def _masks(
    like: Tensor, shape: tuple[int, ...], mask: Tensor | None, *, keeps: bool, causal: bool = False
) -> Tensor:
    """Scores of zero, and minus infinity where a mask is; of bools True ``keeps``, or removes."""
    scores = like.new_zeros(shape)
    if causal:
        scores = scores.masked_fill(scores.new_ones(shape).tril().logical_not(), -torch.inf)
    if mask is not None and mask.dtype == torch.bool:
        gone = mask.logical_not() if keeps else mask
        mask = torch.zeros_like(gone, dtype=like.dtype).masked_fill(gone, -torch.inf)
    return scores if mask is None else scores + mask.to(like.dtype)


def dot_product(use: Use) -> Run:
    """``scaled_dot_product_attention``: each query gets the mean of the values it may see."""
    if use.argument("value", 2) not in use.signals:
        raise use.refusal()
    unknown = use.argument("attn_mask", 3) in use.still  # it is computed of the input

    def run(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None,
        enable_gqa=False,
    ):  # fmt: skip
        size = query.shape[-2], value.shape[-2]
        if enable_gqa and query.shape[-3] != value.shape[-3]:
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        if unknown and attn_mask.dtype == torch.bool:  # of floats the fixed part is left
            attn_mask = None
        scores = _masks(value, size, attn_mask, keeps=True, causal=is_causal)
        found = shares(scores, -1) @ value
        lead = torch.broadcast_shapes(query.shape[:-2], found.shape[:-2])
        return found.expand(*lead, *found.shape[-2:])

    return run


def multihead(use: Use) -> Run:
    """``nn.MultiheadAttention``, whose values and outputs have weights of their own."""
    if use.argument("value", 2) not in use.signals:
        raise use.refusal()
    if use.module.bias_k is not None:  # a value beside those of the tokens, an input or a constant
        raise use.refusal("MultiheadAttention with add_bias_kv=True")
    return _heads(use.module)


def _heads(module: nn.MultiheadAttention) -> Run:
    def run(
        query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
        average_attn_weights=True, is_causal=False,  # a hint here: the mask says what is hidden
    ):  # fmt: skip
        batched = query.dim() == 3
        if not batched:
            query, value = query.unsqueeze(0), value.unsqueeze(0)
        elif not module.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        weight = module.v_proj_weight
        if weight is None:
            weight = module.in_proj_weight[2 * module.embed_dim :]
        value = F.linear(value, weight)
        (images, seen, _), heads = value.shape, module.num_heads
        value = value.view(images, seen, heads, -1).transpose(1, 2)
        if attn_mask is not None and attn_mask.dim() == 3:  # one for each image and head
            attn_mask = attn_mask.view(images, heads, *attn_mask.shape[1:])
        scores = _masks(value, (query.shape[1], seen), attn_mask, keeps=False)
        if key_padding_mask is not None:
            padding = key_padding_mask.view(images, 1, 1, seen)
            scores = scores + _masks(value, (1, seen), padding, keeps=False)
        if module.add_zero_attn:  # a constant beside the tokens lies on no path and takes a share
            scores, value = F.pad(scores, (0, 1)), F.pad(value, (0, 0, 0, 1))
        weights = shares(scores, -1).expand(images, heads, -1, -1)
        found = F.linear((weights @ value).transpose(1, 2).flatten(2), module.out_proj.weight)
        if not batched:
            found = found.squeeze(0)
        elif not module.batch_first:
            found = found.transpose(0, 1)
        if not need_weights:
            return found, None
        # What is returned of the weights is no path: they are made of queries and keys.
        weights = weights.mean(1) if average_attn_weights else weights
        return found, torch.zeros_like(weights)

    return run


def encoder(use: Use) -> Run:
    """``nn.TransformerEncoder``, and its layers, which call the mask ``src_mask``."""
    run = _stack(use.module)

    def encoded(src, mask=None, src_key_padding_mask=None, is_causal=None, *, src_mask=None):
        mask = mask if src_mask is None else src_mask
        return run(src, tgt_mask=mask, tgt_key_padding_mask=src_key_padding_mask)

    return encoded


def decoder(use: Use) -> Run:
    """``nn.TransformerDecoder`` and its layers: paths run from what is decoded and from memory."""
    if set(use.signals) != {use.argument("tgt", 0), use.argument("memory", 1)}:
        raise use.refusal()
    return _stack(use.module)


def transformer(use: Use) -> Run:
    """``nn.Transformer``: the encoder's output is the decoder's memory."""
    kinds = nn.TransformerEncoder, nn.TransformerDecoder
    own = use.module.encoder, use.module.decoder
    sources = {use.argument("src", 0), use.argument("tgt", 1)}
    if set(use.signals) != sources or any(
        type(m) is not k for m, k in zip(own, kinds, strict=True)
    ):
        raise use.refusal()
    encode, decode = map(_stack, own)

    def run(
        src, tgt, src_mask=None, tgt_mask=None, memory_mask=None, src_key_padding_mask=None,
        tgt_key_padding_mask=None, memory_key_padding_mask=None, *_, **__,
    ):  # fmt: skip
        memory = encode(src, tgt_mask=src_mask, tgt_key_padding_mask=src_key_padding_mask)
        paddings = tgt_key_padding_mask, memory_key_padding_mask
        return decode(tgt, memory, tgt_mask, memory_mask, *paddings)

    return run


def _stack(module: nn.Module) -> Run:
    """An encoder, a decoder, or one layer of either, with the arguments of a decoder."""
    blocks = [_block(layer) for layer in getattr(module, "layers", [module])]
    end = gain(getattr(module, "norm", None))

    def run(tgt, *args, **kwargs) -> Tensor:
        for block in blocks:
            tgt = block(tgt, *args, **kwargs)
        return end(tgt)

    return run


def _block(module: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> Run:
    heads, crossed = _heads(module.self_attn), getattr(module, "multihead_attn", None)
    crossed = crossed and _heads(crossed)
    gains = [gain(norm) for name, norm in module.named_children() if name.startswith("norm")]

    def run(
        x, memory=None, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None,
        memory_key_padding_mask=None, tgt_is_causal=None, memory_is_causal=False,
    ):  # fmt: skip
        def attend(x):
            return heads(x, x, x, tgt_key_padding_mask, attn_mask=tgt_mask)[0]

        def remember(x):
            return crossed(x, memory, memory, memory_key_padding_mask, attn_mask=memory_mask)[0]

        def forward(x):
            return F.linear(F.linear(x, module.linear1.weight), module.linear2.weight)

        steps = [attend, remember, forward] if crossed else [attend, forward]
        for step, scale in zip(steps, gains, strict=True):
            x = x + step(scale(x)) if module.norm_first else scale(x + step(x))
        return x

    return run


def windows(use: Use) -> Run:
    """torchvision's attention in shifted windows, with queries and keys of zeros: equal shares."""
    signature = inspect.signature(use.node.target)

    def run(*args, **kwargs) -> Tensor:
        given = dict(signature.bind(*args, **kwargs).arguments)
        value = given["qkv_weight"].chunk(3)[2].abs()
        given["qkv_weight"] = F.pad(value, (0, 0, 2 * len(value), 0))
        given["proj_weight"] = given["proj_weight"].abs()
        given["relative_position_bias"] = torch.zeros_like(given["relative_position_bias"])
        given |= {"qkv_bias": None, "proj_bias": None, "training": False}
        return use.node.target(**given)

    return run


def first_half(use: Use) -> Run:
    """A gated linear unit: the second half of the channels opens and closes the first."""
    if use.module is not None:
        return lambda x: x.chunk(2, use.module.dim)[0]
    return lambda x, dim=-1: x.chunk(2, dim)[0]


def zeros_of_its_shape(run: Run, *args, **kwargs):
    """Zeros in place of what ``run`` gives: of what only steers, nothing but the shape is used."""
    return tree_map_only(Tensor, torch.zeros_like, run(*args, **kwargs))


def refusing_masks(run: Run, use: Use) -> Run:
    """``run``, or a ValueError where its first call is given a mask, which it would not pass on."""
    known = False

    def checked(*args, **kwargs):
        nonlocal known
        for value in [] if known else tree_leaves((args, kwargs)):
            if is_numbers(value) and bool((value <= -_REMOVES).any()):
                raise use.refusal(f"{name_of(use.node)} of what a fixed mask has taken away")
        known = True
        return run(*args, **kwargs)

    return checked


def masks_only(run: Run, *args, **kwargs):
    """``run`` on attention scores: zeros, but for the large negative numbers that masks wrote."""
    found = of_one_type(run, *args, **kwargs)
    return found.masked_fill(found.isnan(), 0.0) if is_numbers(found) else found


def ones_but_masks(run: Run, zeros: bool, *args, **kwargs):
    """Ones in place of numbers, except for masks and, with ``zeros``, for zeros."""
    found = run(*args, **kwargs)
    if not is_numbers(found):
        return found
    stays = (found <= -_REMOVES) | ((found == 0) & zeros)
    return torch.where(stays, found, torch.ones_like(found))


def opened(run: Run, *args, **kwargs) -> Tensor:
    """An open gate: ones of the shape that ``run`` gives, zeros where a mask closes it."""
    found, like = run(*args, **kwargs), next(arg for arg in args if isinstance(arg, Tensor))
    gate = torch.ones_like(found, dtype=like.dtype)
    if like is args[0] and like.shape == found.shape:
        return gate.masked_fill(like <= -_REMOVES, 0.0)
    return gate


def softmax(dim: int | None, sign: int = 1) -> Run:
    """The mean along ``dim``; with ``sign`` -1 that of a softmin."""

    def run(x: Tensor, *_, **__) -> Tensor:
        along = dim
        if along is None:  # as torch chooses it
            along = 0 if x.dim() in (0, 1, 3) else 1
        return shares(sign * x, along)

    return run


def without_gradients(run: Run) -> Run:
    """``run`` without gradients: no score comes through what only steers."""
    return functools.wraps(run)(torch.no_grad()(run))
