"""Deflation: exact where it must be, near after re-learning, exported as it is."""

from itertools import repeat

import pytest
import torch
from support import check, random_statistics

from triptych_trainer.config import TINY, ModelConfig
from triptych_trainer.deflate import Deflated, Relearning, inflate, inflated_feature, relearn
from triptych_trainer.deflate_data import evaluate_deflation, world_images
from triptych_trainer.models.mmv import Mmv
from triptych_trainer.models.norm import BatchNorm
from triptych_trainer.models.s3d import Conv

KINDS = [("s3d", "s2d"), ("s3d", "rgb"), ("tsm", "s2d")]


def tiny(backbone: str, stem: str = "s2d", **more) -> Mmv:
    torch.manual_seed(0)
    model = Mmv(ModelConfig(**(TINY.to_dict() | {"backbone": backbone, "stem": stem} | more)))
    random_statistics(model)
    return model.eval()


def without_ends(model: Mmv) -> None:
    """A temporal kernel with its only weight in the middle reaches beyond no end, so that the
    deflated network must be exact. The stem's last tap is behind the end of the last pair."""
    with torch.no_grad():
        for module in model.video_backbone.modules():
            if isinstance(module, Conv):
                middle = (module.weight.shape[2] - 1) // 2
                kept = module.weight[:, :, middle].clone()
                module.weight.zero_()
                module.weight[:, :, middle] = kept


@pytest.mark.parametrize("stem", ["s2d", "rgb"])
def test_s3d_is_exact_where_no_kernel_reaches_an_end(stem: str) -> None:
    model = tiny("s3d", stem)
    without_ends(model)
    images = torch.rand(3, 32, 32, 3)
    with torch.no_grad():
        check(Deflated(model).feature(images), inflated_feature(model, images), "deflated")


def test_kernels_are_summed_over_time_and_both_frames_of_a_pair() -> None:
    """A long still clip is all inside: the stem's inner frames are the deflated stem's."""
    from triptych_trainer.models.s3d import space_to_depth

    model = tiny("s3d")
    image = torch.rand(1, 32, 32, 3)
    clip = inflate(image, 8).permute(0, 4, 1, 2, 3)
    net, deflated = model.video_backbone, Deflated(model).backbone.net
    with torch.no_grad():
        want = net.stem(space_to_depth(clip), "3d")[:, :, 1]
        x = image.permute(0, 3, 1, 2).reshape(1, 3, 16, 2, 16, 2).permute(0, 3, 5, 1, 2, 4)
        got = deflated.stem(x.reshape(1, 12, 1, 16, 16), "2d")[:, :, 0]
    check(got, want, "stem", cosine=False)


def test_tsm_is_exact_inside_a_long_still_clip() -> None:
    """16 blocks spread an end over 16 frames; the frame beyond them is the picture's own."""
    model = tiny("tsm")
    image = torch.rand(1, 32, 32, 3)
    frames = 35
    clip = inflate(image, frames)[0].permute(0, 3, 1, 2)
    net = model.video_backbone
    with torch.no_grad():
        inner = torch.relu(net.bn(net.maps(clip, frames))).mean(dim=(2, 3))[17]
        check(Deflated(model).feature(image)[0], inner, "deflated")


@pytest.mark.parametrize(("backbone", "stem"), KINDS)
def test_relearning_brings_it_near(backbone: str, stem: str) -> None:
    model = tiny(backbone, stem)
    fixed = next(world_images(model.cfg, 4))
    deflated = Deflated(model)
    before = deflated.backbone.state_dict()
    before = {k: v.clone() for k, v in before.items()}
    how = Relearning(steps=40, lr=1e-2)
    losses = relearn(model, deflated, repeat(fixed), how, say=lambda _: None)
    assert losses[-1] < 0.7 * losses[0], (losses[0], losses[-1])
    changed = {
        k for k, v in deflated.backbone.state_dict().items() if not torch.equal(v, before[k])
    }
    assert changed and changed <= deflated.learnt().keys()
    again = Deflated(model).load_learnt(deflated.learnt())
    assert torch.equal(again.feature(fixed), deflated.feature(fixed))
    with pytest.raises(ValueError, match="another network"):
        Deflated(model).load_learnt({})


def test_statistics_and_the_video_network_stay() -> None:
    model = tiny("s3d")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    deflated = Deflated(model)
    relearn(model, deflated, world_images(model.cfg, 4), Relearning(steps=2), say=print)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    norms = [m for m in deflated.backbone.modules() if isinstance(m, BatchNorm)]
    theirs = [m for m in model.video_backbone.modules() if isinstance(m, BatchNorm)]
    for a, b in zip(norms, theirs, strict=True):
        assert torch.equal(a.running_mean, b.running_mean)


def test_report_has_the_three_ways() -> None:
    model = tiny("s3d", spaces="disjoint")
    report = evaluate_deflation(model, Deflated(model), 12)
    for name in ("naive", "deflated", "inflated"):
        assert set(report[name]) == {"video_audio", "video_text"}
    assert report["inflated"]["video_text"]["cosine_min"] == 1.0
    assert report["naive"] == report["deflated"]
    assert "text->image" in report["naive"]["video_text"]
