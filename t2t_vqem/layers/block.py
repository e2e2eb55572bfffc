"""The base of layers that are made of layers."""

import keras


class Block(keras.layers.Layer):
    """A layer whose weights are those of its parts, which make them at their first call.

    Masks are explicit arguments everywhere; Keras's implicit ones may pass through.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.built = True
