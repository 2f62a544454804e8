"""What is searched: operators of each layer, architectures, and which combinations are alive (paper 3.1, 4.1)."""

from neas_tf.common.moved import names_of

__getattr__ = names_of(__name__, "search_space")
