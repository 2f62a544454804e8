"""The stand-alone ensemble: its network, its exact rewrites, its folder on disk (paper 3.1)."""

from neas_tf.common.moved import names_of

__getattr__ = names_of(__name__, "model")
