"""The registered experiments.

| name | data | recipe |
|---|---|---|
| `neas_retinanet_coco` | COCO 2017 | Model Garden's: 640², 72 epochs, batch 256 |
| `neas_retinanet_coco_paper` | COCO 2017 | the paper's (section 4.4): 12 epochs, batch 32 |
| `neas_retinanet_coco_mini` | the COCO subset of the tests | overfits 57 images on a CPU |
"""

from __future__ import annotations

from typing import Any

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import optimization
from official.vision.configs import common, decoders, retinanet

from neas_tf.detection import config as configs

NAMES = ("neas_retinanet_coco", "neas_retinanet_coco_paper", "neas_retinanet_coco_mini")
COCO_TRAIN, COCO_VAL = 118_287, 5_000  # images of train2017 and val2017
NUM_CLASSES = 91  # category ids run to 90; 0 is the background
MINI = "../shared/data/coco_mini"
_RESTRICTIONS = [
    "task.train_data.is_training != None",
    "task.validation_data.is_training != None",
]


def _trainer(epoch: int, epochs: int, optimizer: dict[str, Any], **values) -> cfg.TrainerConfig:
    """An epoch a loop; the best checkpoint by AP is kept beside the last ones."""
    return cfg.TrainerConfig(
        train_steps=epochs * epoch,
        validation_interval=epoch,
        steps_per_loop=epoch,
        summary_interval=epoch,
        checkpoint_interval=epoch,
        best_checkpoint_export_subdir="best_ckpt",
        best_checkpoint_eval_metric="AP",
        optimizer_config=optimization.OptimizationConfig(optimizer),
        **values,
    )


def _steps(momentum: float, boundaries: list[int], values: list[float], warmup: dict[str, Any]):
    """SGD with a rate that falls in steps, after a linear warm-up."""
    return {
        "optimizer": {"type": "sgd", "sgd": {"momentum": momentum}},
        "learning_rate": {
            "type": "stepwise",
            "stepwise": {"boundaries": boundaries, "values": values},
        },
        "warmup": {"type": "linear", "linear": warmup},
    }


def _coco_data(batch: int, training: bool, **parser: Any) -> retinanet.DataConfig:
    return retinanet.DataConfig(
        input_path="coco/train*" if training else "coco/val*",
        is_training=training,
        global_batch_size=batch,
        drop_remainder=training,
        parser=retinanet.Parser(**parser),
    )


@exp_factory.register_config_factory("neas_retinanet_coco")
def neas_retinanet_coco() -> cfg.ExperimentConfig:
    """Model Garden's recipe for RetinaNet (`retinanet_resnetfpn_coco`) with NEAS-S."""
    batch, eval_batch = 256, 8
    epoch = COCO_TRAIN // batch
    return cfg.ExperimentConfig(
        runtime=cfg.RuntimeConfig(mixed_precision_dtype="bfloat16"),
        task=configs.NeasRetinaNetTask(
            init_checkpoint_modules="backbone",
            annotation_file="coco/instances_val2017.json",
            model=configs.NeasRetinaNet(
                num_classes=NUM_CLASSES,
                input_size=[640, 640, 3],
                norm_activation=common.NormActivation(use_sync_bn=False),
            ),
            losses=retinanet.Losses(l2_weight_decay=1e-4),
            train_data=_coco_data(
                batch, True, aug_rand_hflip=True, aug_scale_min=0.8, aug_scale_max=1.2
            ),
            validation_data=_coco_data(eval_batch, False),
        ),
        trainer=_trainer(
            epoch,
            72,
            _steps(
                0.9,
                [57 * epoch, 67 * epoch],
                [0.32, 0.032, 0.0032],
                {"warmup_steps": 500, "warmup_learning_rate": 0.0067},
            ),
            validation_steps=-(-COCO_VAL // eval_batch),
        ),
        restrictions=_RESTRICTIONS,
    )


@exp_factory.register_config_factory("neas_retinanet_coco_paper")
def neas_retinanet_coco_paper() -> cfg.ExperimentConfig:
    """The paper's recipe (section 4.4): 12 epochs, batch 32, rate 0.04, 0.1 times at 8 and 11.

    NEAS-S reaches AP 33.0 in the paper (Table 6), from 500 epochs on ImageNet.
    """
    batch, eval_batch = 32, 8
    epoch = COCO_TRAIN // batch
    config = neas_retinanet_coco()
    config.task.model.input_size = [800, 1333, 3]
    config.task.model.norm_activation.use_sync_bn = True
    config.task.train_data = _coco_data(batch, True, aug_rand_hflip=True)
    config.runtime.mixed_precision_dtype = "float32"
    config.trainer = _trainer(
        epoch,
        12,
        _steps(
            0.9,
            [8 * epoch, 11 * epoch],
            [0.04, 0.004, 0.0004],
            {"warmup_steps": 500, "warmup_learning_rate": 0.04 / 3},
        ),
        validation_steps=-(-COCO_VAL // eval_batch),
    )
    return config


@exp_factory.register_config_factory("neas_retinanet_coco_mini")
def neas_retinanet_coco_mini() -> cfg.ExperimentConfig:
    """57 images by heart: a small ensemble, thin heads, 192², no augmentation.

    For checking that everything works, not for accuracy.
    """
    batch = 8
    epoch = 57 // batch
    space = {
        "name": "mini",
        "stages": [
            {"channels": 24, "layers": 1, "stride": 2},
            {"channels": 40, "layers": 2, "stride": 2},
            {"channels": 80, "layers": 2, "stride": 2},
            {"channels": 96, "layers": 1, "stride": 1},
            {"channels": 128, "layers": 2, "stride": 2},
        ],
        "operators": ["k3e4", "k5e4", "skip"],
        "min_split": 1,
        "max_split": 8,
    }
    config = cfg.ExperimentConfig(
        runtime=cfg.RuntimeConfig(distribution_strategy="one_device"),
        task=configs.NeasRetinaNetTask(
            init_checkpoint_modules="backbone",
            annotation_file=f"{MINI}/instances_val.json",
            model=configs.NeasRetinaNet(
                num_classes=NUM_CLASSES,
                input_size=[192, 192, 3],
                max_level=6,
                anchor=retinanet.Anchor(num_scales=2, anchor_size=2.0),
                decoder=decoders.Decoder(type="fpn", fpn=decoders.FPN(num_filters=64)),
                head=retinanet.RetinaNetHead(num_convs=2, num_filters=64),
                norm_activation=common.NormActivation(use_sync_bn=False, norm_momentum=0.9),
                # One operation in C++; the default builds 90 loops, minutes an image on a CPU.
                detection_generator=retinanet.DetectionGenerator(nms_version="batched"),
            ),
            train_data=retinanet.DataConfig(
                input_path=f"{MINI}/tfrecords/train*",
                is_training=True,
                global_batch_size=batch,
                dtype="float32",
                shuffle_buffer_size=64,
                cache=True,
            ),
            validation_data=retinanet.DataConfig(
                input_path=f"{MINI}/tfrecords/val*",
                is_training=False,
                global_batch_size=batch,
                dtype="float32",
                drop_remainder=False,
            ),
        ),
        trainer=_trainer(
            10 * epoch,
            26,
            {
                "optimizer": {"type": "adam", "adam": {}},
                "learning_rate": {
                    "type": "cosine",
                    "cosine": {"initial_learning_rate": 2e-3, "decay_steps": 260 * epoch},
                },
                "warmup": {"type": "linear", "linear": {"warmup_steps": 50}},
            },
        ),
        restrictions=_RESTRICTIONS,
    )
    config.trainer.validation_interval = 130 * epoch
    config.task.model.backbone.neas.override(
        {
            "architecture": "s5:k3e4.k3e4.k5e4.k3e4.k5e4|k3e4.k5e4.k3e4|k5e4.k3e4.k5e4",
            "space": space,
        }
    )
    return config
