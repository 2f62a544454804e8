"""What every part may use: errors, files, paths, terminals, settings of Keras. No TensorFlow."""
