"""The commands that people type besides `neas_tf.train`; each is a file of flags and a `main`."""
