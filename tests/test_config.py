import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slams_ray import config
from slams_ray.artifacts import fingerprint, to_plain
from slams_ray.config import (
    ActivationConfig,
    ActivationInferenceConfig,
    BackboneConfig,
    ClassifierConfig,
    ComputeConfig,
    CrfConfig,
    DataConfig,
    InferenceConfig,
    PipelineConfig,
    PredictionCrfConfig,
    SearchConfig,
    SegmentationConfig,
    ThresholdConfig,
    TrainingConfig,
)
from slams_ray.config.overrides import override
from slams_ray.errors import ConfigError
from slams_ray.recipes import RECIPES

CONFIG_CLASSES = [
    c for c in vars(config).values() if isinstance(c, type) and dataclasses.is_dataclass(c)
]


def pipeline(batch_size: int, train_workers: int) -> PipelineConfig:
    return PipelineConfig(
        data=DataConfig(format="synthetic"),
        segmentation=SegmentationConfig(training=TrainingConfig(batch_size=batch_size)),
        compute=ComputeConfig(train_workers=train_workers),
    )


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: DataConfig(format="coco"), "data.root"),
        (lambda: DataConfig(format="folder", root=""), "data.root"),
        (lambda: DataConfig(format="synthetic", images_per_shard=0), "data.images_per_shard"),
        (lambda: DataConfig(format="synthetic", synthetic_val_images=2), "data.synthetic_"),
        (lambda: TrainingConfig(epochs=0), "training.epochs"),
        (lambda: TrainingConfig(epochs=float("nan")), "training.epochs"),
        (lambda: TrainingConfig(batch_size=0), "training.batch_size"),
        (lambda: TrainingConfig(crop_px=16), "training.crop_px"),
        (lambda: TrainingConfig(long_side_px=(640, 320)), "training.long_side_px"),
        (lambda: TrainingConfig(long_side_px=(0, 320)), "training.long_side_px"),
        (lambda: TrainingConfig(accumulation_steps=0), "training.accumulation_steps"),
        (lambda: TrainingConfig(head_bias_multiplier=-1.0), "training.head_bias_multiplier"),
        (lambda: SegmentationConfig(input_scales=()), "segmentation.input_scales"),
        (lambda: TrainingConfig(colour_jitter=(0, 0, -0.1, 0)), "training.colour_jitter"),
        (lambda: TrainingConfig(colour_jitter=(0, 0, 0, 0.6)), "training.colour_jitter"),
        (lambda: TrainingConfig(max_gradient_norm=0.0), "training.max_gradient_norm"),
        (lambda: TrainingConfig(learning_rate=-1.0), "training.learning_rate"),
        (lambda: TrainingConfig(checkpoint_every_steps=0), "training.checkpoint_every_steps"),
        (lambda: TrainingConfig(log_every_steps=0), "training.log_every_steps"),
        (lambda: InferenceConfig(scales=()), "scales"),
        (lambda: ActivationInferenceConfig(scales=()), "scales"),
        (lambda: ActivationInferenceConfig(max_logit=0.0), "max_logit"),
        (lambda: InferenceConfig(scales=(1.0, -0.5)), "scales"),
        (lambda: ThresholdConfig(num_thresholds=1), "threshold.num_thresholds"),
        (lambda: ThresholdConfig(fallback=1.5), "threshold.fallback"),
        (lambda: ThresholdConfig(fixed=-0.1), "threshold.fixed"),
        (lambda: CrfConfig(iterations=-1), "crf.iterations"),
        (lambda: CrfConfig(gt_prob=1.0), "crf.gt_prob"),
        (lambda: CrfConfig(gt_prob=0.5), "crf.gt_prob"),
        (lambda: CrfConfig(alpha_pair=(24.0, 6.0)), "crf.alpha_pair"),
        (lambda: CrfConfig(alpha=30.0), "crf.alpha_pair"),
        (lambda: CrfConfig(gaussian_sxy_px=0.0), "crf.gaussian_sxy_px"),
        (lambda: CrfConfig(bilateral_srgb=0.0), "crf.bilateral_srgb"),
        (lambda: CrfConfig(foreground_margin=1.1), "crf.foreground_margin"),
        (lambda: CrfConfig(background_margin=-0.1), "crf.background_margin"),
        (lambda: PredictionCrfConfig(iterations=-1), "segmentation.crf.iterations"),
        (lambda: PredictionCrfConfig(bilateral_srgb=0.0), "segmentation.crf.bilateral_srgb"),
        (lambda: SearchConfig(scales=("0.5,x",)), "search.scales"),
        (lambda: SearchConfig(scales=("0.5,-1",)), "search.scales"),
        (lambda: ComputeConfig(train_workers=0), "compute.train_workers"),
        (
            lambda: ComputeConfig(train_workers=2, min_train_workers=3),
            "compute.min_train_workers",
        ),
        (lambda: pipeline(3, 4), "segmentation.training.batch_size"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(
    build: Callable[[], object], field: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^\S*{field}\S* is .*, expected "):
        build()


def test_settings_that_contradict_each_other_are_refused() -> None:
    data = DataConfig(format="synthetic")
    search, fixed = SearchConfig(num_samples=3), ThresholdConfig(fixed=0.4)
    with pytest.raises(ConfigError, match=r"search\.num_samples is 3, .* threshold\.fixed"):
        PipelineConfig(data=data, search=search, threshold=fixed)
    assert PipelineConfig(data=data, search=search)
    assert PipelineConfig(data=data, threshold=fixed)
    single = SegmentationConfig(training=TrainingConfig(batch_size=1))
    assert PipelineConfig(data=data, segmentation=single)
    with pytest.raises(ConfigError, match=r"segmentation\.training\.batch_size is 1, .* deeplabv3"):
        PipelineConfig(data=data, segmentation=replace(single, head="deeplabv3"))


@pytest.mark.parametrize("learns", ["backbone", "head"])
def test_a_batch_norm_that_learns_its_statistics_sees_whole_batches(learns: str) -> None:
    parts = SegmentationConfig(training=TrainingConfig(accumulation_steps=2))
    changes = {
        "backbone": {"backbone": BackboneConfig(freeze_batch_norm=False)},
        "head": {"head": "deeplabv3"},
    }
    data = DataConfig(format="synthetic")
    assert PipelineConfig(data=data, segmentation=parts)
    with pytest.raises(ConfigError, match=r"segmentation.training.accumulation_steps is 2.*freeze"):
        PipelineConfig(data=data, segmentation=dataclasses.replace(parts, **changes[learns]))


def test_the_activation_network_has_the_batch_norm_of_the_classifier() -> None:
    parts = ActivationConfig(training=TrainingConfig(accumulation_steps=2))
    learning = ClassifierConfig(backbone=BackboneConfig(freeze_batch_norm=False))
    data = DataConfig(format="synthetic")
    assert PipelineConfig(data=data, activation=parts)
    with pytest.raises(ConfigError, match=r"activation.training.accumulation_steps is 2"):
        PipelineConfig(data=data, activation=parts, classifier=learning)


@pytest.mark.parametrize("network", ["encoder", "classifier", "segmentation"])
def test_random_blocks_must_learn(network: str) -> None:
    folder = RECIPES["folder"]()
    part = getattr(folder, network)
    frozen = dataclasses.replace(part.backbone, frozen_blocks=2)
    assert dataclasses.replace(folder, **{network: dataclasses.replace(part, backbone=frozen)})
    random = dataclasses.replace(frozen, weights="none")
    with pytest.raises(ConfigError, match=rf"{network}\.backbone\.frozen_blocks is 2, expected 0"):
        dataclasses.replace(folder, **{network: dataclasses.replace(part, backbone=random)})


def test_a_batch_that_workers_cannot_share_names_the_number_of_workers() -> None:
    with pytest.raises(ConfigError, match=r"is 3, expected at least .*train_workers \(4\)"):
        pipeline(3, 4)
    assert pipeline(10, 4).segmentation.training.batch_size == 10


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_the_threshold_range_are_allowed(value: float) -> None:
    assert ThresholdConfig(fallback=value, fixed=value).fixed == value


@pytest.mark.parametrize("cls", CONFIG_CLASSES, ids=lambda c: c.__name__)
def test_every_config_is_frozen_and_keyword_only(cls: type) -> None:
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(f.kw_only for f in dataclasses.fields(cls))


def test_every_config_and_every_plain_field_has_a_docstring() -> None:
    sources = [
        p.read_text(encoding="utf-8") for p in Path(inspect.getfile(config)).parent.glob("*.py")
    ]
    nodes = [node for source in sources for node in ast.parse(source).body]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes} == {cls.__name__ for cls in CONFIG_CLASSES}
    undocumented = []
    for cls in classes:
        if not ast.get_docstring(cls):
            undocumented.append(cls.name)
        hints = typing.get_type_hints(getattr(config, cls.name))
        for node, following in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                # A nested config is described by its own docstring.
                is_nested = dataclasses.is_dataclass(hints[node.target.id])
                if not is_nested and not is_text(following):
                    undocumented.append(f"{cls.name}.{node.target.id}")
    assert undocumented == []


def is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and len(node.value.value.strip()) > 5
    )


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_describes_itself(name: str) -> None:
    recipe = RECIPES[name]
    assert isinstance(recipe(), PipelineConfig)
    assert len(inspect.getdoc(recipe) or "") > 40


def test_every_recipe_has_its_own_fingerprint() -> None:
    prints = {fingerprint("pipeline", to_plain(recipe()), {}) for recipe in RECIPES.values()}
    assert len(prints) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_on_as_many_workers_as_a_batch_allows(name: str) -> None:
    recipe = RECIPES[name]()
    assert dataclasses.replace(recipe, compute=ComputeConfig(train_workers=2))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (
            {
                "refinement.steps": ("pixel_adaptive", "walk", "crf"),
                "search.num_samples": 4,
                "search.walk_beta": (4.0, 8.0),
            },
            "refinement.steps",
        ),
        (
            {
                "refinement.steps": ("walk", "crf"),
                "affinity.pair": (0.05, 0.3),
                "crf.form": "power",
            },
            "affinity.pair",
        ),
        (
            {
                "refinement.steps": ("crf",),
                "system": "amn",
                "amn.pair": (0.05, 0.3),
                "crf.form": "power",
            },
            "amn.pair",
        ),
    ],
)
def test_settings_that_would_mislead_are_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        override(RECIPES["demo"](), changes)
    kept = dict(list(changes.items())[:-1])
    assert override(RECIPES["demo"](), kept).refinement.steps == changes["refinement.steps"]


def test_a_system_whose_labels_nobody_learns_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pseudo_labels_of is 'recam', expected cam where"):
        override(RECIPES["demo"](), {"activation.pseudo_labels_of": "recam"})
    assert override(RECIPES["folder"](), {"activation.pseudo_labels_of": "recam"}).teacher
