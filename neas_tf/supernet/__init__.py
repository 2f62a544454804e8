"""The K-path supernet: weights of every operator, the architecture as a tensor (paper 3.3)."""

from neas_tf.common.moved import names_of

__getattr__ = names_of(__name__, "model")
