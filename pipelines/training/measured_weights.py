"""The weights with which a model is measured, and kept.

They are not always those that training goes on from:

- Batch normalisation predicts with moving statistics, which follow the batches with a momentum of
  0.99 and are far from the weights in the first epochs: a network that has learned well measures
  as one that guesses. Here they are recomputed for the weights as they are: the plain mean of the
  statistics of a few batches ("precise batch normalisation": Wu and Johnson, "Rethinking 'Batch' in
  BatchNorm", arXiv 2105.07576, section 3). Everything but the batch normalisation runs as in
  prediction: without dropout, noise or augmentation, and no random generator moves.
- An optimizer that averages the weights (Keras' `use_ema`) means the averages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.training.feeding import Pixels

if TYPE_CHECKING:
    import keras

STATISTICS_IMAGES = 1024
STATISTICS_BATCH = 256
"""As many at once as are predicted at once, so that they need no more memory."""
AVERAGING_SPANS = 3
"""An average of momentum m spans about 1 / (1 - m) steps. It starts from the first step's weights,
and is not measured before it has seen so many spans: a twentieth of it is the start by then."""


def averaging(optimizer: Any) -> Any:
    """The optimizer that keeps averages, where another one scales the loss around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


class MeasuredWeights:
    """Puts a model's measured weights in place for as long as it is measured.

    Layers whose statistics have not moved since then were not trained as batch normalisation: they
    are frozen, or a model calls them as in prediction, as is usual for pretrained ones. They keep
    their own.

    Args:
        model: as it was built, before anything is trained or put back.
        x: training images (n, height, width, channels) as the model gets them; a few are read.
        optimizer: the one that trains the model; None where a HyperModel's own `fit` makes one.
        batch_size: images of one pass.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Pixels,
        optimizer: Any = None,
        batch_size: int = STATISTICS_BATCH,
    ) -> None:
        self._model, self._x, self._size = model, x, batch_size
        self._built = {
            layer: _copy(layer.moving_mean) for layer in self._normalizing() if layer.built
        }
        self._optimizer = None if optimizer is None else averaging(optimizer)
        self._batches: list[np.ndarray] = []

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has its measured weights in the block, and those of training after it."""
        averages, norms = self._averages(), self._norms()
        changing = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
        changing += [variable for variable, _ in averages]
        own = [_copy(variable) for variable in changing]
        try:
            for variable, average in averages:
                variable.assign(average)
            if norms:
                self._fit_statistics(norms)
            yield
        finally:
            for variable, value in zip(changing, own, strict=True):
                variable.assign(value)

    def _normalizing(self) -> list[Any]:
        import keras

        layers = self._model._flatten_layers(include_self=False)
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    def _norms(self) -> list[Any]:
        return [
            layer
            for layer in self._normalizing()
            # Renormalisation keeps moving statistics that its training follows closely.
            if layer.built
            and not getattr(layer, "renorm", False)
            # One that was not built yet began with means of 0.
            and (_copy(layer.moving_mean) != self._built.get(layer, 0.0)).any()
        ]

    def _averages(self) -> list[tuple[Any, Any]]:
        """Weights with their averages, once these are more than where they began."""
        optimizer = self._optimizer
        if optimizer is None or not optimizer.use_ema or not optimizer.built:
            return []
        spans = int(optimizer.iterations) * (1 - optimizer.ema_momentum)
        if spans < AVERAGING_SPANS - 1e-6:  # 30 * (1 - 0.9) is a little less than 3.
            return []
        kept = optimizer._model_variables_moving_average
        pairs = zip(optimizer._trainable_variables, kept, strict=True)
        return [(variable, average) for variable, average in pairs if average is not None]

    def _fit_statistics(self, norms: list[Any]) -> None:
        batches = self._images()
        means = [np.zeros(norm.moving_mean.shape) for norm in norms]
        variances = [np.zeros(norm.moving_variance.shape) for norm in norms]
        with _collecting(norms), _without_gradients():
            for batch in batches:
                self._model(batch, training=False)
                for k, norm in enumerate(norms):
                    means[k] += _copy(norm.moving_mean)
                    variances[k] += _copy(norm.moving_variance)
        for k, norm in enumerate(norms):
            norm.moving_mean.assign(means[k] / len(batches))
            norm.moving_variance.assign(variances[k] / len(batches))

    def _images(self) -> list[np.ndarray]:
        """Always the same, spread over all training images, which may be sorted by class."""
        if not self._batches:
            num = min(len(self._x), STATISTICS_IMAGES)
            rows = np.linspace(0, len(self._x) - 1, num).astype(np.int64)
            num_batches = -(-num // self._size)
            self._batches = [np.asarray(self._x[rows[k::num_batches]]) for k in range(num_batches)]
        return self._batches


@contextlib.contextmanager
def _collecting(norms: list[Any]) -> Iterator[None]:
    """Has batch normalisation take a batch's own statistics, and show them as its own.

    With momentum 0 the moving statistics become those of the last batch.
    """
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.call = 0.0, _as_in_training(norm.call)
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            del norm.call


def _as_in_training(call: Any) -> Any:
    def called(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        del training
        more = {} if mask is None else {"mask": mask}
        return call(inputs, training=True, **more)

    return called


def _without_gradients() -> Any:
    import keras

    if keras.config.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def _copy(variable: Any) -> np.ndarray:
    import keras

    return np.array(keras.ops.convert_to_numpy(variable))
