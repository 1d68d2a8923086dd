"""The commands of the paper's protocols; `docs/training.md` lists the data that each needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..errors import TrainerError

if TYPE_CHECKING:
    from ..protocols.features import Extractor
    from ..protocols.report import Report
    from ..protocols.splits import Labelled
    from ..protocols.towers import Towers

Way = Literal["naive", "deflated", "inflated"]


@dataclass(frozen=True)
class Common:
    """What every protocol takes."""

    model: Path = Path("runs/mmv-s3d/checkpoint.pt")
    """checkpoint.pt of a run, a published mmv_*.pkl, or a folder of `export-features`."""
    out: Path = Path("runs/protocols")
    """Gets <protocol>.json, and the features, which a second run finds there."""
    deflated: Path | None = None
    """What `deflate` wrote."""
    vocab: Path | None = None
    """The word list of a published checkpoint."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = 8
    """Windows that the network sees at once."""
    workers: int = 2
    """Files that are decoded at once."""

    def towers(self) -> "Towers":
        from ..protocols.towers import open_towers

        return open_towers(
            self.model,
            device=self.device,
            batch_size=self.batch_size,
            deflated=self.deflated,
            vocab=self.vocab,
        )

    def extractor(self) -> "Extractor":
        from ..protocols.features import Extractor

        return Extractor(self.towers(), self.out / "features", self.workers)

    def report(self, report: "Report") -> None:
        print(report.write(self.out))


Options = Annotated[Common, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class ZeroShot:
    """What both tests of zero-shot text to video take."""

    windows: int = 10
    score: Literal["cosine", "dot"] = "cosine"

    def run(self, name: str, pairs: list, common: Common) -> None:
        from ..protocols.retrieval import zero_shot

        found = zero_shot(common.extractor(), name, pairs, windows=self.windows, score=self.score)
        common.report(found)


ZeroShotOptions = Annotated[ZeroShot, tyro.conf.arg(name="")]


def eval_msrvtt(csv: Path, videos: Path, common: Options, options: ZeroShotOptions) -> None:
    """Zero-shot text to video on MSR-VTT.

    Args:
        csv: the 1,000 test pairs: video_id, sentence.
        videos: folder of video7010.mp4 ...
    """
    from ..protocols.retrieval import msrvtt_pairs

    options.run("msrvtt", msrvtt_pairs(csv, videos), common)


def eval_youcook2(csv: Path, videos: Path, common: Options, options: ZeroShotOptions) -> None:
    """Zero-shot text to video on YouCook2's validation clips.

    Args:
        csv: video_id, task, start, end, text.
        videos: folder with validation/<task>/<video_id>.mp4, or with all videos.
    """
    from ..protocols.retrieval import youcook2_pairs

    options.run("youcook2", youcook2_pairs(csv, videos), common)


@dataclass(frozen=True)
class LinearSvm:
    """What both linear SVMs on frozen features of actions take."""

    epochs: int = 10
    """Random windows of each training video."""
    windows: int = 10
    splits: tuple[int, ...] = (1, 2, 3)

    def run(
        self, name: str, data: "Labelled", extractor: "Extractor", rule: dict, c: float
    ) -> "Report":
        from ..protocols.actions import linear_svm

        more = {"epochs": self.epochs, "windows": self.windows, "splits": self.splits}
        return linear_svm(extractor, name, data, rule, c, **more)


LinearSvmOptions = Annotated[LinearSvm, tyro.conf.arg(name="")]


def eval_ucf101(
    videos: Path, lists: Path, common: Options, options: LinearSvmOptions, c: float = 1e-3
) -> None:
    """Linear SVM on frozen features, UCF101.

    Args:
        videos: folder of <Class>/<name>.avi.
        lists: ucfTrainTestlist.
        c: the SVM's C.
    """
    from ..protocols.actions import ucf101_rule
    from ..protocols.splits import ucf101

    extractor = common.extractor()
    rule = ucf101_rule(extractor.towers.cfg)
    common.report(options.run("ucf101", ucf101(videos, lists), extractor, rule, c))


def eval_hmdb51(
    videos: Path, lists: Path, common: Options, options: LinearSvmOptions, c: float | None = None
) -> None:
    """Linear SVM on frozen features, HMDB51.

    Args:
        videos: folder of <class>/<name>.avi.
        lists: testTrainMulti_7030_splits.
        c: the SVM's C; by the network if not given.
    """
    from ..protocols.actions import hmdb51_c, own_rule
    from ..protocols.splits import hmdb51

    extractor = common.extractor()
    cfg = extractor.towers.cfg
    value = hmdb51_c(cfg) if c is None else c
    common.report(options.run("hmdb51", hmdb51(videos, lists), extractor, own_rule(cfg), value))


def eval_kinetics600(
    videos: Path,
    train: Path,
    test: Path,
    common: Options,
    train_windows: int = 4,
    windows: int = 10,
    epochs: int = 30,
    lr: float = 1e-3,
) -> None:
    """Linear classifier on frozen features, Kinetics-600.

    Args:
        videos: folder that has <id>_000012_000022.mp4 ... somewhere in it.
        train: CSV with label, youtube_id, time_start, time_end.
        test: the same of the validation part.
    """
    from ..protocols.actions import kinetics_linear
    from ..protocols.classify import HeadRecipe
    from ..protocols.splits import kinetics

    data, how = kinetics(videos, train, test), HeadRecipe(epochs=epochs, lr=lr)
    more = {"train_windows": train_windows, "windows": windows}
    common.report(kinetics_linear(common.extractor(), data, how, **more))


def eval_esc50(root: Path, common: Options, c: float = 1e-3, windows: int = 10) -> None:
    """Linear SVM on the frozen audio feature, ESC-50, five folds.

    Args:
        root: folder with meta/esc50.csv and audio/.
        c: the SVM's C; the paper's is not published.
    """
    from ..protocols.sounds import esc50

    common.report(esc50(common.extractor(), root, c=c, windows=windows))


def eval_audioset(
    train: Path,
    train_files: Path,
    test: Path,
    test_files: Path,
    classes: Path,
    common: Options,
    hidden: int = 512,
    epochs: int = 30,
    lr: float = 1e-3,
    windows: int = 10,
) -> None:
    """Mean average precision of an MLP on the frozen audio feature, AudioSet.

    Args:
        train: a CSV of segments, balanced_train_segments.csv or unbalanced_train_segments.csv.
        train_files: the folder of its files.
        test: eval_segments.csv.
        classes: class_labels_indices.csv.
        hidden: units of the MLP's hidden layer.
    """
    from ..protocols.classify import HeadRecipe
    from ..protocols.sounds import audioset, audioset_classes, audioset_list

    class_of = audioset_classes(classes)
    parts = [audioset_list(t, f, class_of) for t, f in ((train, train_files), (test, test_files))]
    how = HeadRecipe(hidden=hidden, epochs=epochs, lr=lr)
    common.report(audioset(common.extractor(), *parts, how, windows=windows))


def eval_voc07(
    root: Path,
    common: Options,
    ways: tuple[Way, ...] = ("naive", "deflated", "inflated"),
    c: float = 1e-3,
) -> None:
    """Linear SVMs on pictures, PASCAL VOC 2007, through deflated networks.

    Args:
        root: VOCdevkit or VOCdevkit/VOC2007.
        ways: `deflated` needs --deflated.
        c: the SVMs' C; the paper's is not published.
    """
    from ..protocols.pictures import voc07

    common.report(voc07(common.extractor(), root, ways, c=c))


def eval_imagenet(
    root: Path,
    common: Options,
    ways: tuple[Way, ...] = ("naive", "deflated", "inflated"),
    epochs: int = 30,
    lr: float = 1e-3,
) -> None:
    """Linear classifier on pictures, ImageNet, through deflated networks.

    Args:
        root: folder with train/<wnid>/ and val/<wnid>/.
        ways: `deflated` needs --deflated.
    """
    from ..protocols.classify import HeadRecipe
    from ..protocols.pictures import imagenet

    common.report(imagenet(common.extractor(), root, ways, HeadRecipe(epochs=epochs, lr=lr)))


@dataclass(frozen=True)
class Finetuning:
    """What both fine-tunings of the whole video network take."""

    epochs: int = 40
    clips: int = 32
    """Clips of a training batch."""
    lr: float = 0.02
    splits: tuple[int, ...] = (1, 2, 3)

    def run(self, name: str, data: "Labelled", common: Common) -> None:
        from ..protocols.finetune import FinetuneRecipe, finetune
        from ..protocols.towers import TorchTowers

        towers = common.towers()
        if not isinstance(towers, TorchTowers):
            raise TrainerError("fine-tuning needs a checkpoint, not exported files")
        how = FinetuneRecipe(epochs=self.epochs, batch_size=self.clips, lr=self.lr)
        report = finetune(towers, name, data, how, splits=self.splits, workers=common.workers)
        common.report(report)


FinetuningOptions = Annotated[Finetuning, tyro.conf.arg(name="")]


def finetune_ucf101(videos: Path, lists: Path, common: Options, options: FinetuningOptions) -> None:
    """Fine-tunes the whole video network on UCF101."""
    from ..protocols.splits import ucf101

    options.run("ucf101", ucf101(videos, lists), common)


def finetune_hmdb51(videos: Path, lists: Path, common: Options, options: FinetuningOptions) -> None:
    """Fine-tunes the whole video network on HMDB51."""
    from ..protocols.splits import hmdb51

    options.run("hmdb51", hmdb51(videos, lists), common)


def export_features(
    to: Path,
    common: Options,
    crop: int | None = None,
    towers: tuple[str, ...] = (),
) -> None:
    """Writes ONNX files that the protocols can use instead of PyTorch.

    Args:
        to: the folder; other protocols take it as --model.
        crop: pixels, the model's own if not given; UCF101's protocol has 224.
        towers: only these of video, audio, text, image, naive.
    """
    from dataclasses import replace

    from ..protocols.towers import TorchTowers
    from ..protocols.towers import export_features as run

    made = replace(common, device="cpu").towers()
    if not isinstance(made, TorchTowers):
        raise TrainerError("expected a checkpoint, got exported files")
    names = run(made, to, crop or made.cfg.crop, towers)
    print(f"{to}: {', '.join(names)}")


COMMANDS = {
    "eval-msrvtt": eval_msrvtt,
    "eval-youcook2": eval_youcook2,
    "eval-ucf101": eval_ucf101,
    "eval-hmdb51": eval_hmdb51,
    "eval-kinetics600": eval_kinetics600,
    "eval-esc50": eval_esc50,
    "eval-audioset": eval_audioset,
    "eval-voc07": eval_voc07,
    "eval-imagenet": eval_imagenet,
    "finetune-ucf101": finetune_ucf101,
    "finetune-hmdb51": finetune_hmdb51,
    "export-features": export_features,
}
