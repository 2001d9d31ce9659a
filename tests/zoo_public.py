"""The public part of the zoo: architectures of torchvision, timm and transformers, made small."""

from __future__ import annotations

import functools

import torch
from torch import nn

# fmt: off
TORCHVISION = {
    # whole, at 32 or 64 pixels: these cost little
    "alexnet": 64, "squeezenet1_0": 64, "squeezenet1_1": 64, "shufflenet_v2_x0_5": 32,
    "shufflenet_v2_x1_0": 32, "mnasnet0_5": 32, "mnasnet1_0": 32, "mobilenet_v3_small": 32,
    "googlenet": 64, "regnet_x_400mf": 32, "regnet_y_400mf": 32, "densenet121": 32,
    "resnet18": 32, "resnet34": 32, "vgg11": 32, "vgg11_bn": 32, "vgg13": 32, "vgg13_bn": 32,
    "vgg16": 32, "vgg16_bn": 32, "vgg19": 32, "vgg19_bn": 32, "resnet50": 32, "resnet101": 32,
    "resnext50_32x4d": 32, "wide_resnet50_2": 32, "densenet169": 32, "densenet201": 32,
    "densenet161": 32, "regnet_x_800mf": 32, "regnet_x_1_6gf": 32, "regnet_x_3_2gf": 32,
    "regnet_y_800mf": 32, "regnet_y_1_6gf": 32, "regnet_y_3_2gf": 32, "mobilenet_v2": 32,
    "mobilenet_v3_large": 32, "mnasnet0_75": 32, "mnasnet1_3": 32, "shufflenet_v2_x1_5": 32,
    "shufflenet_v2_x2_0": 32, "efficientnet_b0": 32, "efficientnet_b1": 32, "efficientnet_b2": 32,
    "efficientnet_b3": 32, "efficientnet_v2_s": 32, "inception_v3": 96, "convnext_tiny": 32,
    "swin_t": 32, "swin_v2_t": 64, "vit_b_32": 32, "maxvit_t": 64,
}
# At a quarter of the width or with few blocks.
SLIM = {
    "densenet_slim": lambda m: m.DenseNet(8, (2, 2, 2, 2), 16, num_classes=10),
    "efficientnet_slim": lambda m: _efficientnet(m, "efficientnet_b0"),
    "efficientnet_v2_slim": lambda m: _efficientnet(m, "efficientnet_v2_s"),
    "mobilenet_v2_slim": lambda m: m.mobilenet_v2(width_mult=0.25, num_classes=10),
    "mnasnet_slim": lambda m: m.MNASNet(0.25, num_classes=10),
    "shufflenet_slim": lambda m: m.ShuffleNetV2([1, 2, 1], [24, 16, 32, 64, 64], num_classes=10),
    "resnet_slim": lambda m: _resnet(m),
    "resnet_zero_slim": lambda m: _resnet(m, zero_init_residual=True),
    "resnext_slim": lambda m: _resnet(m, groups=4, width_per_group=4),
    "resnet_dilated_slim": lambda m: m.ResNet(
        m.resnet.Bottleneck, [1, 1, 1, 1], 10, width_per_group=8,
        replace_stride_with_dilation=[False, True, True]),
    "convnext_slim": lambda m: m.ConvNeXt(
        [m.convnext.CNBlockConfig(16, 32, 1), m.convnext.CNBlockConfig(32, None, 1)],
        num_classes=10),
    "swin_slim": lambda m: m.SwinTransformer([4, 4], 16, [1, 2], [2, 2], [4, 4], num_classes=10),
    "swin_v2_slim": lambda m: m.SwinTransformer(
        [4, 4], 16, [1, 2], [2, 2], [4, 4], num_classes=10,
        block=m.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=m.swin_transformer.PatchMergingV2),
    "vit_slim": lambda m: m.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10),
    "maxvit_slim": lambda m: m.MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=10),
    "alexnet_slim": lambda m: _with_head(m.AlexNet, 24, nn.Sequential(
        nn.Conv2d(3, 16, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(16, 24, 5, padding=2),
        nn.ReLU())),
    **{f"{name}_slim": functools.partial(lambda name, m: _vgg(m, name), name) for name in (
        "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn")},
    "wide_resnet_slim": lambda m: _resnet(m, width_per_group=16),
    "resnet_groupnorm_slim": lambda m: _resnet(m, norm_layer=lambda n: nn.GroupNorm(2, n)),
    "resnet_frozen_slim": lambda m: _resnet(m, norm_layer=_frozen),
    "regnet_x_slim": lambda m: _regnet(m, None),
    "regnet_y_slim": lambda m: _regnet(m, 0.25),
    "mobilenet_v3_small_slim": lambda m: _mobilenet_v3(m, "mobilenet_v3_small"),
    "mobilenet_v3_large_slim": lambda m: _mobilenet_v3(m, "mobilenet_v3_large"),
    "mobilenet_v3_dilated_slim": lambda m: _mobilenet_v3(m, "mobilenet_v3_small", dilated=True),
    "vit_stem_slim": lambda m: m.VisionTransformer(
        32, 8, 2, 2, 32, 64, num_classes=10, conv_stem_configs=[
            m.vision_transformer.ConvStemConfig(8, 3, 2, activation_layer=nn.ReLU)] * 3),
    "fcn_slim": lambda m: m.segmentation.FCN(
        _stages(m, {"layer2": "out"}), m.segmentation.fcn.FCNHead(64, 4)),
    "deeplabv3_slim": lambda m: m.segmentation.DeepLabV3(
        _stages(m, {"layer2": "out"}), nn.Sequential(
            m.segmentation.deeplabv3.ASPP(64, [2, 3], 8), nn.Conv2d(8, 4, 1))),
    "lraspp_slim": lambda m: m.segmentation.LRASPP(
        _stages(m, {"layer1": "low", "layer2": "high"}), 32, 64, 4, 16),
    "mvit_slim": lambda m: m.video.MViT(
        (16, 16), 4, [m.video.mvit.MSBlockConfig(1, 8, 16, [3] * 3, [3] * 3, [1] * 3, [1, 2, 2]),
                      m.video.mvit.MSBlockConfig(2, 16, 16, [3] * 3, [3] * 3, [1, 2, 2], [1] * 3)],
        residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
        proj_after_attn=True, num_classes=10),
    "swin3d_slim": lambda m: m.video.SwinTransformer3d(
        [2, 4, 4], 16, [1, 2], [2, 2], [2, 2, 2], num_classes=10),
    "fcn_resnet50": lambda m: m.segmentation.fcn_resnet50(weights=None, weights_backbone=None,
                                                          num_classes=4),
    "deeplabv3_mobilenet": lambda m: m.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4),
    "lraspp_mobilenet": lambda m: m.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4),
    "r3d_18": lambda m: m.video.r3d_18(weights=None, num_classes=10),
    "mc3_18": lambda m: m.video.mc3_18(weights=None, num_classes=10),
    "r2plus1d_18": lambda m: m.video.r2plus1d_18(weights=None, num_classes=10),
}
SLIM_SHAPES = {
    "alexnet_slim": (3, 64, 64), "mvit_slim": (3, 4, 16, 16), "swin3d_slim": (3, 4, 16, 16),
    "maxvit_slim": (3, 64, 64), "r3d_18": (3, 4, 16, 16), "mc3_18": (3, 4, 16, 16),
    "r2plus1d_18": (3, 4, 16, 16), "fcn_resnet50": (3, 32, 32),
    "deeplabv3_mobilenet": (3, 64, 64),
}
WHOLE = (
    "cs3darknet_s cspresnet50 cspresnext50 darknet17 dla34 dla46_c dpn48b eca_nfnet_l0"
    " ecaresnet26t efficientnet_lite0 efficientnet_es efficientnet_b0"
    " efficientnetv2_rw_t efficientvim_m1 efficientvit_b0 fasternet_t0 fastvit_t8 fbnetc_100"
    " fbnetv3_b focalnet_tiny_srf gernet_s ghostnet_050 hardcorenas_a hgnet_tiny"
    " hgnetv2_b0 hrnet_w18_small inception_next_atto lambda_resnet26t lcnet_050 mambaout_femto"
    " mixnet_s mobilenet_edgetpu_v2_xs mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050"
    " mobilenetv4_conv_small_050 mobileone_s0 mobilevit_xxs"
    " mobilevitv2_050 nextvit_small nf_regnet_b0 nf_resnet26 poolformer_s12 poolformerv2_s12"
    " pvt_v2_b0 rdnet_tiny regnetv_040 regnetx_002 regnety_002 regnetz_005 repghostnet_050"
    " repvgg_a0 repvit_m0_9 res2net50_14w_8s resnest14d resnet10t resnet14t resnet18 resnet26d"
    " resnet50_gn resnetaa50 resnetblur18 resnetv2_18 resnext26ts rexnet_100 semnasnet_050"
    " seresnet18 skresnet18 spnasnet_100 starnet_s050 swiftformer_xs"
    " tf_efficientnet_lite0 tf_mixnet_s tinynet_e tiny_vit_5m_224 vovnet39a ese_vovnet19b_slim"
    " xception41 legacy_xception"
).split()  # at 32 pixels
# With 32 pixels the last attention is over one position: no query moves the output.
LARGER = {"edgenext_xx_small": 64, "mobilenetv4_hybrid_medium": 128, "shvit_s1": 128}
TESTS = (
    "byobnet coatnet convnext convnext2 convnext3 efficientnet efficientnet_evos efficientnet_gn"
    " efficientnet_ln mambaout maxvit nfnet resnet vit vit2 vit3 vit4 vit_relpos"
).split()  # timm"s own small ones
_VIT = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}
VITS = (
    "beit_base_patch16_224 beitv2_base_patch16_224 cait_xxs24_224 deit_tiny_patch16_224"
    " deit_tiny_distilled_patch16_224 deit3_small_patch16_224 vit_tiny_patch16_224"
    " vit_relpos_small_patch16_224 xcit_nano_12_p16_224"
).split()
RESIZED = {
    # With smaller images the softmax of their gates is over one position: nothing to steer.
    "gcresnet33ts": 64, "levit_128s": 128,
    "botnet26t_256": 64, "coat_lite_tiny": 64, "crossvit_tiny_240": 240, "eca_botnext26ts_256":
    64, "efficientformerv2_s0": 64, "efficientvit_m0": 128, "gcvit_xxtiny": 64,
    "lamhalobotnet50ts_256": 256, "maxvit_rmlp_pico_rw_256": 64, "mvitv2_tiny":
    64, "nest_tiny": 32, "pit_ti_224": 64, "sebotnet33ts_256": 64, "sequencer2d_s": 64,
    "twins_svt_small": 64, "visformer_tiny": 64, "vitamin_small_224": 64, "volo_d1_224": 64,
}
NARROW = {
    "convit_tiny": _VIT | {"local_up_to_layer": 1},
    "convnextv2_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "convnext_zepto_rms": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "davit_tiny":
        {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (2, 2, 2, 2)},
    "densenet121": {"growth_rate": 8, "block_config": (2, 2, 2, 2)},
    "eva02_tiny_patch14_224": {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "hiera_tiny_224": {"img_size": 32, "embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224":
        {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)},
    "swinv2_tiny_window8_256":
        {"img_size": 64, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)},
    "swinv2_cr_tiny_224":
        {"img_size": 64, "window_size": 2, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads":
         (2, 2, 2, 2)},
    "vit_tiny_r_s16_p8_224": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
}
# fmt: on


def _with_head(kind, channels, features):
    """AlexNet and VGG, whose own heads hold a hundred million weights."""
    with torch.device("meta"):
        net = kind() if kind.__name__ == "AlexNet" else kind(nn.Identity(), init_weights=False)
    net.features, net.avgpool = features, nn.AdaptiveAvgPool2d(2)
    net.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(4 * channels, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)
    )
    return net


def _vgg(m, name):
    letter = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    sizes = [size if size == "M" else size // 16 for size in m.vgg.cfgs[letter]]
    return _with_head(m.VGG, sizes[-2], m.vgg.make_layers(sizes, name.endswith("_bn")))


def _resnet(m, **how):
    """Two stages of bottlenecks at a quarter of the width."""
    net = m.ResNet(m.resnet.Bottleneck, [1, 1, 1, 1], 10, **{"width_per_group": 8} | how)
    net.layer3 = net.layer4 = nn.Identity()
    net.fc = nn.Linear(512, 10)
    return net


def _frozen(channels):
    from torchvision.ops.misc import FrozenBatchNorm2d

    norm = FrozenBatchNorm2d(channels)
    for buffer in norm.buffers():
        torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return norm


def _regnet(m, se_ratio):
    sizes = m.regnet.BlockParams([1, 2], [16, 24], [8, 8], [1.0, 1.0], [2, 2], se_ratio)
    return m.RegNet(sizes, 10, 8)


def _mobilenet_v3(m, name, **how):
    conf = m.mobilenetv3._mobilenet_v3_conf(name, width_mult=0.25, **how)
    return m.MobileNetV3(conf[0], 64, 10)


def _stages(m, names):
    """A backbone of two stages, which returns what a segmentation head reads."""
    layers = {"stem": nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())}
    block = m.resnet.BasicBlock
    for name, before, after in (("layer1", 16, 32), ("layer2", 32, 64)):
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2), nn.BatchNorm2d(after))
        layers[name] = block(before, after, 2, shortcut)
    return m._utils.IntermediateLayerGetter(nn.ModuleDict(layers), names)


def _efficientnet(m, name):
    setting, last = m.efficientnet._efficientnet_conf(name, width_mult=0.25, depth_mult=0.3)
    if name.startswith("efficientnet_v2"):
        conf, dim = m.efficientnet.FusedMBConvConfig, 16
        setting = [
            conf(1, 3, 1, 8, 8, 1),
            conf(4, 3, 2, 8, dim, 1),
            m.efficientnet.MBConvConfig(4, 3, 2, dim, 32, 2),
        ]
        last = 64
    return m.EfficientNet(setting, 0.2, 0.2, num_classes=10, last_channel=last)


TIMM = (
    {name: (32, {}) for name in WHOLE}
    | {name: (size, {}) for name, size in LARGER.items()}
    | {f"test_{name}": (160, {}) for name in TESTS}
    | dict.fromkeys(VITS, (32, _VIT))
    | {name: (size, {"img_size": size}) for name, size in RESIZED.items()}
    | {name: (how.get("img_size", 32), how) for name, how in NARROW.items()}
)


def own_timm():
    """Those of timm whose own functions take no widths."""
    from timm.layers import GluMlp
    from timm.models.convmixer import ConvMixer
    from timm.models.mlp_mixer import (
        Affine,
        GatedMlp,
        MixerBlock,
        MlpMixer,
        ResBlock,
        SpatialGatingBlock,
    )

    small = {"num_classes": 10, "img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32}
    mixer = functools.partial(MlpMixer, **small)
    return {
        "mixer_slim": lambda: mixer(block_layer=MixerBlock),
        "gmixer_slim": lambda: mixer(
            mlp_ratio=(1.0, 4.0), mlp_layer=GluMlp, act_layer=torch.nn.SiLU
        ),
        "resmlp_slim": lambda: mixer(mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine),
        "gmlp_slim": lambda: mixer(mlp_ratio=6, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp),
        "convmixer_slim": lambda: ConvMixer(32, 3, kernel_size=5, patch_size=4, num_classes=10),
    }


IDS = torch.arange(6)[None] % 5 + 3
_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


def _vision(kind, **how):
    sizes = {"image_size": 16, "patch_size": 8, "num_labels": 4} | _SMALL | how
    name = f"{kind}ForImageClassification"
    return lambda t: getattr(t, name)(getattr(t, f"{kind}Config")(**sizes))


def _text(kind, task, **how):
    sizes = {"vocab_size": 40, "max_position_embeddings": 16, "pad_token_id": 0} | _SMALL | how
    return lambda t: getattr(t, f"{kind}For{task}")(getattr(t, f"{kind}Config")(**sizes))


_IMAGE, _TOKENS = {"pixel_values": (3, 16, 16)}, {"input_ids": IDS}
TRANSFORMERS = {
    "bert": (_text("Bert", "SequenceClassification"), _TOKENS),
    "roberta": (_text("Roberta", "SequenceClassification"), _TOKENS),
    "electra": (_text("Electra", "SequenceClassification", embedding_size=16), _TOKENS),
    "albert": (_text("Albert", "SequenceClassification", embedding_size=16), _TOKENS),
    "distilbert": (
        lambda t: t.DistilBertForSequenceClassification(
            t.DistilBertConfig(
                vocab_size=40,
                max_position_embeddings=16,
                dim=32,
                n_layers=2,
                n_heads=2,
                hidden_dim=48,
            )
        ),
        _TOKENS,
    ),
    "gpt2": (
        lambda t: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=2, use_cache=False
            )
        ),
        _TOKENS,
    ),
    "llama": (
        lambda t: t.LlamaForCausalLM(
            t.LlamaConfig(vocab_size=40, max_position_embeddings=16, use_cache=False, **_SMALL)
        ),
        _TOKENS,
    ),
    "t5": (
        lambda t: t.T5ForConditionalGeneration(
            t.T5Config(
                vocab_size=40,
                d_model=32,
                d_kv=16,
                d_ff=48,
                num_layers=2,
                num_heads=2,
                use_cache=False,
            )
        ),
        {"input_ids": IDS, "decoder_input_ids": IDS},
    ),
    "vit": (_vision("ViT"), _IMAGE),
    "deit": (_vision("DeiT"), _IMAGE),
    "beit": (_vision("Beit"), _IMAGE),
    "convnext": (
        lambda t: t.ConvNextForImageClassification(
            t.ConvNextConfig(num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], num_labels=4)
        ),
        {"pixel_values": (3, 32, 32)},
    ),
    "resnet": (
        lambda t: t.ResNetForImageClassification(
            t.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=4)
        ),
        {"pixel_values": (3, 32, 32)},
    ),
    "wav2vec2": (
        lambda t: t.Wav2Vec2ForSequenceClassification(
            t.Wav2Vec2Config(
                vocab_size=32,
                conv_dim=(16, 16),
                conv_stride=(5, 2),
                conv_kernel=(10, 3),
                num_feat_extract_layers=2,
                num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
                classifier_proj_size=8,
                num_labels=4,
                **_SMALL,
            )
        ),
        {"input_values": (400,)},
    ),
}
