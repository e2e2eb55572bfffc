"""Discrete latent variables trained by expectation maximisation, in the manner of Tensor2Tensor."""

import os

__version__ = "0.1.0"

# Keras reads this at its first import; a ~/.keras/keras.json that names another backend would break it all.
os.environ["KERAS_BACKEND"] = "tensorflow"
