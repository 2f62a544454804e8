"""Evolution under a budget and the evaluation of its candidates (paper 3.4, Algorithm 2).

The package itself can be called: `neas.search(data, max_macs="60M")` is `neas_tf.api.search.search`.
"""

from neas_tf.common import moved

moved.make_callable(__name__, "neas_tf.api.search", "search")
