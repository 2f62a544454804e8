"""Shrinking the space by a K-DPP diversity score (paper 3.2, Algorithm 1)."""

from neas_tf.common.moved import names_of

__getattr__ = names_of(__name__, "drops")
