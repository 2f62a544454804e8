"""What an ensemble costs, and how ensembles are drawn under a budget."""

from neas_tf.common.moved import names_of

__getattr__ = names_of(__name__, "cost_table")
