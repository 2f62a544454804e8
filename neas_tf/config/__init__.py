"""Settings: their dataclasses, how they are read, the registered experiments."""

from neas_tf.common.moved import names_of

__getattr__ = names_of(__name__, "settings")
