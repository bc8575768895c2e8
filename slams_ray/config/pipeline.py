"""All settings of a pipeline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from slams_ray.config.checks import check
from slams_ray.config.compute import ComputeConfig, TrackingConfig
from slams_ray.config.data import DataConfig
from slams_ray.config.imported import ImportedConfig
from slams_ray.config.labels import ActivationInferenceConfig, CrfConfig, ThresholdConfig
from slams_ray.config.networks import (
    ActivationConfig,
    ClassifierConfig,
    EncoderConfig,
    SegmentationConfig,
)
from slams_ray.config.refinement import (
    AffinityConfig,
    PixelAdaptiveConfig,
    RefinementConfig,
    WalkConfig,
)
from slams_ray.config.search import SearchConfig
from slams_ray.config.systems import (
    AmnConfig,
    ClimsConfig,
    ClipEsConfig,
    CpnConfig,
    MctformerConfig,
    OccseConfig,
    PuzzleConfig,
    RecamConfig,
    SeamConfig,
)

MapSystem = Literal[
    "cam",
    "slams",
    "recam",
    "occse",
    "puzzle",
    "seam",
    "cpn",
    "amn",
    "clims",
    "clip_es",
    "mctformer",
    "imported",
]
LabelSource = Literal["imported_labels", "masks"]
LABEL_SOURCES = get_args(LabelSource)
GIVEN_WEIGHTS = {
    "clims": "the state dict of a CLIP network",
    "clip_es": "the state dict of a CLIP network",
    "mctformer": "the state dict of a vision transformer",
}
"""System -> what its setting `weights` must name, because nothing downloads it."""
SystemName = Literal[MapSystem, LabelSource]
SETTINGS_OF: Mapping[str, tuple[str, ...]] = {
    "slams": ("encoder", "activation"),
    "recam": ("recam",),
    "amn": ("amn",),
    "cpn": ("cpn",),
    "seam": ("seam",),
    "puzzle": ("puzzle",),
    "occse": ("occse",),
    "clims": ("clims",),
    "clip_es": ("clip_es",),
    "mctformer": ("mctformer",),
}
"""System -> fields of `PipelineConfig` that only this system reads."""


def unread_fields(systems: Iterable[str]) -> set[str]:
    """Returns the fields of `PipelineConfig` that only systems other than these read."""
    read = {name for system in systems for name in SETTINGS_OF.get(system, ())}
    return {name for names in SETTINGS_OF.values() for name in names} - read


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """All settings of a pipeline."""

    data: DataConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    recam: RecamConfig = field(default_factory=RecamConfig)
    occse: OccseConfig = field(default_factory=OccseConfig)
    puzzle: PuzzleConfig = field(default_factory=PuzzleConfig)
    seam: SeamConfig = field(default_factory=SeamConfig)
    cpn: CpnConfig = field(default_factory=CpnConfig)
    amn: AmnConfig = field(default_factory=AmnConfig)
    clims: ClimsConfig = field(default_factory=ClimsConfig)
    clip_es: ClipEsConfig = field(default_factory=ClipEsConfig)
    mctformer: MctformerConfig = field(default_factory=MctformerConfig)
    inference: ActivationInferenceConfig = field(default_factory=ActivationInferenceConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
    pixel_adaptive: PixelAdaptiveConfig = field(default_factory=PixelAdaptiveConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    imported: ImportedConfig = field(default_factory=ImportedConfig)
    system: SystemName = "slams"
    """System whose maps become pseudo labels; imported takes the maps of another program. Two
    sources have no maps: imported_labels, and masks for the supervised upper bound."""
    baselines: tuple[MapSystem, ...] = ("cam",)
    """Systems whose maps are made and scored for comparison."""
    seed: int = 0
    """Random seed of the initial weights, the augmentation and the image order of all trainings."""

    def __post_init__(self) -> None:
        trained = {"classifier", "affinity", "segmentation"}
        trained.update(name for names in SETTINGS_OF.values() for name in names)
        for name in sorted(trained - unread_fields(self.trained_systems)):
            if not hasattr(getattr(self, name), "training"):
                continue
            batch_size = getattr(self, name).training.batch_size
            check(
                batch_size >= self.compute.train_workers,
                f"{name}.training.batch_size",
                batch_size,
                f"at least one image for each of compute.train_workers "
                f"({self.compute.train_workers})",
            )

        self._check_sources()
        self._check_walk()
        self._check_pairs()
        self._check_weights()
        self._check_backbones()
        self._check_accumulation()
        self._check_pooled_batch()
        self._check_tiles()

    def _check_weights(self) -> None:
        """Checks that systems on networks of the user have a file of weights."""
        for name in GIVEN_WEIGHTS.keys() & set(self.trained_systems):
            check(
                getattr(self, name).weights is not None,
                f"{name}.weights",
                None,
                f"a file with {GIVEN_WEIGHTS[name]}, because system {name} needs it and nothing "
                "downloads it",
            )

    def _check_backbones(self) -> None:
        """Checks that weights are of the backbone, and that no random blocks stay for good."""
        for name in ("encoder", "classifier", "segmentation"):
            backbone = getattr(self, name).backbone
            # torchvision's ResNet50_Weights are those of resnet50.
            owner, is_named, _ = backbone.weights.partition("_Weights.")
            check(
                not is_named or owner.lower() == backbone.name,
                f"{name}.backbone.weights",
                backbone.weights,
                f"weights of {name}.backbone.name ({backbone.name}), a file, or none",
            )
            check(
                backbone.weights != "none" or not backbone.frozen_blocks,
                f"{name}.backbone.frozen_blocks",
                backbone.frozen_blocks,
                f"0 with {name}.backbone.weights none, because random blocks must learn",
            )

    def _check_walk(self) -> None:
        """Checks settings of the walk that would have no effect, or another than they say."""
        steps = self.refinement.steps
        searched = self.search.walk_beta or self.search.walk_num_steps
        check(
            not (self.search.num_samples and searched) or steps[:1] == ("walk",),
            "refinement.steps",
            steps,
            "walk first, because a search walks the maps as inferred",
        )
        has_features = self.classifier.backbone.weights != "none" or "cam" in self.systems
        check(
            "walk" not in steps or not self.has_maps or has_features,
            "classifier.backbone.weights",
            "none",
            "weights for the features that the walk needs, or cam among baselines, whose "
            "classifier then gives them",
        )

    def _check_pairs(self) -> None:
        """Checks that a fixed confident pair is not given where it would be ignored."""
        for name, used in (
            ("affinity", "walk" in self.refinement.steps),
            ("amn", "amn" in self.systems),
        ):
            pair = getattr(self, name).pair
            check(
                pair is None or self.crf.form != "power" or not used,
                f"{name}.pair",
                pair,
                "None with crf.form power, whose confident pair are crf.alpha_pair",
            )

    def _check_sources(self) -> None:
        """Checks that what another program made has a directory, and is not searched."""
        for system, name in (("imported", "maps"), ("imported_labels", "labels")):
            check(
                system not in self.systems or getattr(self.imported, name) is not None,
                f"imported.{name}",
                None,
                f"a directory, because system {system} reads it",
            )
        check(
            self.search.num_samples == 0 or self.system not in ("imported", *LABEL_SOURCES),
            "search.num_samples",
            self.search.num_samples,
            f"0, because a search infers maps again, and system {self.system} has no network",
        )
        check(
            self.system != "amn" or not self.search.num_samples,
            "search.num_samples",
            self.search.num_samples,
            "0 with the system amn, whose maps depend on labels that a search does not have",
        )
        check(
            self.threshold.fixed is None or not self.search.num_samples,
            "search.num_samples",
            self.search.num_samples,
            "0 with threshold.fixed, because a search chooses the threshold with other settings",
        )

    def _check_tiles(self) -> None:
        if "puzzle" not in self.trained_systems:
            return
        crop_px, stride = self.puzzle.training.crop_px, self.classifier.backbone.output_stride
        check(
            crop_px % (2 * stride) == 0,
            "puzzle.training.crop_px",
            crop_px,
            f"a multiple of {2 * stride}, so that each of 2 x 2 tiles is a multiple of "
            f"classifier.backbone.output_stride ({stride})",
        )

    def _check_accumulation(self) -> None:
        """Checks that no BatchNorm would see a part of a batch. Some networks have none."""
        for name in (f.name for f in fields(self) if f.name not in ("affinity", "mctformer")):
            part = getattr(self, name)
            parts = part.training.accumulation_steps if hasattr(part, "training") else 1
            # A network without a backbone of its own has the classifier's.
            backbone = getattr(part, "backbone", self.classifier.backbone)
            has_frozen = backbone.freeze_batch_norm and getattr(part, "head", "") != "deeplabv3"
            check(
                parts == 1 or has_frozen,
                f"{name}.training.accumulation_steps",
                parts,
                "1, because BatchNorm learns its statistics: set backbone.freeze_batch_norm, and "
                "segmentation.head to deeplabv2",
            )

    def _check_pooled_batch(self) -> None:
        """Checks that BatchNorm has two values of each channel that a head pools from an image."""
        batch_size = self.segmentation.training.batch_size
        check(
            batch_size > 1 or self.segmentation.head != "deeplabv3",
            "segmentation.training.batch_size",
            batch_size,
            "at least 2, because BatchNorm of segmentation.head deeplabv3 needs two images",
        )

    @property
    def has_maps(self) -> bool:
        """Whether the labels come from maps."""
        return self.system not in LABEL_SOURCES

    @property
    def systems(self) -> tuple[SystemName, ...]:
        """All systems, baselines first, each once; only the system if it has no maps."""
        if not self.has_maps:
            return (self.system,)
        return tuple(dict.fromkeys((*self.baselines, self.system)))

    @property
    def teacher(self) -> MapSystem | None:
        """System whose pseudo labels SLAMs learns; None if SLAMs does not run or learns none."""
        learns = "slams" in self.systems and self.activation.losses.pseudo_labels > 0
        return self.activation.pseudo_labels_of if learns else None

    @property
    def trained_systems(self) -> tuple[SystemName, ...]:
        """All systems, and the one whose pseudo labels SLAMs learns, each once."""
        teacher = () if self.teacher is None else (self.teacher,)
        return tuple(dict.fromkeys((*teacher, *self.systems)))
