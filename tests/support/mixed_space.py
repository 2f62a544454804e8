"""A small space with operators of every family, for tests."""

from neas_tf.space.search_space import SearchSpace

MIXED = SearchSpace.from_dict(
    {
        "name": "mixed",
        "input_size": 12,
        "num_classes": 4,
        "stem_channels": 8,
        "stem_stride": 1,
        "block_channels": 0,
        "activation": "relu",
        "stages": [
            {
                "channels": 8,
                "layers": 2,
                "stride": 1,
                "operators": ["fused_k3e2", "fused_k5e2", "fused_k3e2_se_relu", "k3e2", "skip"],
            },
            [16, 3, 2],
        ],
        "operators": [
            "k3e2",
            "k5e2",
            "k3e4",
            "fused_k3e2",
            "fused_k5e2",
            "fused_k3e2_se_relu",
            "uib_s3m5e2",
            "uib_s5m3e2",
            "uib_m3e2",
            "uib_s3e4_se_swish",
            "uib_e2",
            "skip",
        ],
        "min_split": 0,
        "max_split": 5,
        "head_channels": 16,
        "feature_channels": 12,
    }
)
