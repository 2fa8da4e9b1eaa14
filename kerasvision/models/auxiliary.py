"""Auxiliary heads: logits from a coarser or earlier level that only training looks at.

A segmenter's output is its logits, in training as at any other time. What its auxiliary heads say travels along with
them, and is worked out when the losses ask for it: never in `predict`, and in an exported model neither.
"""

from keras.src.backend.common.tensor_attributes import get_tensor_attr, set_tensor_attr

_NAME = "_kerasvision_auxiliary"


def attach_auxiliary(logits, function):
    """Attach to logits a function that returns the auxiliary heads' logits, as Keras attaches masks to tensors.

    Args:
        logits: A model's output; the very tensor that the losses will be given.
        function: Takes nothing, returns a list of (B, H, W, C).

    Returns:
        `logits`.
    """
    set_tensor_attr(logits, _NAME, function)
    return logits


def auxiliary_logits(logits):
    """Return the list of the auxiliary heads' logits that belong to a model's output; empty if there are none."""
    function = get_tensor_attr(logits, _NAME)
    return [] if function is None else function()
