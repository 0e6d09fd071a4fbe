"""Nothing but training: no search, no tracking, nothing that could be resumed."""

import sys

import keras
import numpy as np
from small_cnn import BATCH_SIZE, HIGHEST, LOWEST, VALIDATION_BATCH_SIZE, load, make_model

data, trials, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
x, y, x_val, y_val = load(data)
for learning_rate in np.geomspace(LOWEST, HIGHEST, trials):
    keras.utils.set_random_seed(0)
    model = make_model(learning_rate)
    model.fit(
        x, y, BATCH_SIZE, epochs, validation_data=(x_val, y_val),
        validation_batch_size=VALIDATION_BATCH_SIZE, verbose=0,
    )  # fmt: skip
    keras.backend.clear_session()
