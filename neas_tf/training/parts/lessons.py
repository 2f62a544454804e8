"""A teacher's part in a loss (Hinton et al., 2015), of retraining and supernet alike."""

from __future__ import annotations

import tensorflow as tf

from neas_tf.config.distillation import DistillationConfig


def distilled(
    loss: tf.Tensor,
    logits: tf.Tensor,
    target: tf.Tensor,
    settings: DistillationConfig,
    learns: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """(1 − w) · loss + w · T² · Σ_k mean KL(q ‖ p_k), with p = softmax(logits / T).

    Args:
      loss: of the labels.
      logits: (K, B, classes).
      target: q, (B, classes) or (K, B, classes); no gradient goes into it.
      settings: w and T.
      learns: factor on w.
    """
    heat, weight = settings.temperature, settings.weight * learns
    logs = tf.nn.log_softmax(tf.cast(logits, tf.float32) / heat)
    target = tf.stop_gradient(tf.maximum(target, 0.0))
    apart = tf.reduce_sum(tf.math.xlogy(target, target) - target * logs, -1)  # (K, B)
    return (1 - weight) * loss + weight * heat**2 * tf.reduce_sum(tf.reduce_mean(apart, 1))
