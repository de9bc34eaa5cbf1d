# ruff: noqa: D103
"""What is drawn while training, and statistics of the batch: the numbers of one process, without an option."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_images, digit_tokens, digits, iris, wine


def _classifier(hidden, width=64, classes=10):
    model = keras.Sequential([keras.Input((width,)), *hidden, layers.Dense(classes)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def dropout():
    keras.utils.set_random_seed(901)
    model = _classifier([layers.Dense(12, activation="relu"), layers.Dropout(0.5)])
    x, y = digits(154)
    h = model.fit(x, y, batch_size=38, epochs=2, validation_data=(x[:50], y[:50]), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dropout_of_inputs_with_a_seed():
    keras.utils.set_random_seed(902)
    model = _classifier([layers.Dropout(0.2, seed=7), layers.Dense(6, activation="tanh")])
    x, y = digits(122)
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(122).batch(33)
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def noises_of_several_kinds():
    keras.utils.set_random_seed(903)
    hidden = [
        layers.GaussianNoise(0.1),
        layers.Dense(10, activation="selu"),
        layers.AlphaDropout(0.2),
        layers.Dense(8, activation="relu"),
        layers.GaussianDropout(0.3, seed=4),
    ]
    model = _classifier(hidden)
    x, y = digits(117)
    h = model.fit(x, y, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dropout_of_whole_channels():
    keras.utils.set_random_seed(904)
    x, y = digit_images(96)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.SpatialDropout2D(0.3),
            layers.GlobalMaxPooling2D(),
            layers.Dropout(0.4, noise_shape=(None, 6)),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy")
    h = model.fit(x, y, batch_size=25, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dropout_in_recurrent_cells():
    keras.utils.set_random_seed(905)
    tokens, y = digit_tokens(92)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(17, 4),
            layers.LSTM(5, dropout=0.2, recurrent_dropout=0.1),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.2), loss, metrics=["accuracy"])
    h = model.fit(tokens[:, :6], y, batch_size=31, epochs=1, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dropout_in_attention():
    keras.utils.set_random_seed(906)
    x, y = digits(88)
    inputs = keras.Input((8, 8))
    seen = layers.MultiHeadAttention(2, 3, dropout=0.2)(inputs, inputs)
    hidden = layers.LayerNormalization()(inputs + layers.Dropout(0.1)(seen))
    model = keras.Model(
        inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(hidden))
    )
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    h = model.fit(x.reshape(-1, 8, 8), y, batch_size=29, epochs=1, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def augmentation_layers_in_the_model():
    keras.utils.set_random_seed(907)
    x, y = digit_images(94)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1, fill_mode="nearest"),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def augmentation_in_the_pipeline():
    keras.utils.set_random_seed(908)
    model = _classifier([layers.Dense(6, activation="relu")])
    x, y = digit_images(101)
    augment = keras.Sequential([layers.RandomFlip(seed=3), layers.RandomBrightness(0.2, (0, 1), seed=4)])
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(26)
    train = train.map(lambda x, y: (tf.reshape(augment(x, training=True), (-1, 64)), y))
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class StochasticDepth(layers.Layer):
    """Leaves a branch out, row by row."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.seed_generator = rate, keras.random.SeedGenerator(1337)

    def call(self, x, training=False):
        if not training:
            return x
        keep = 1 - self.rate
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        kept = ops.floor(keep + keras.random.uniform(shape, 0, 1, seed=self.seed_generator))
        return (x / keep) * kept


def branches_left_out_row_by_row():
    keras.utils.set_random_seed(909)
    x, y = digits(129)
    inputs = keras.Input((64,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    for rate in (0.2, 0.4):
        hidden = layers.Add()([hidden, StochasticDepth(rate)(layers.Dense(8, activation="gelu")(hidden))])
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(hidden))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class RDrop(keras.Model):
    """Two passes through dropout shall agree."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            one, two = self(x, training=True), self(x, training=True)
            told = self.compute_loss(y=y, y_pred=one) + self.compute_loss(y=y, y_pred=two)
            apart = ops.mean(keras.losses.kl_divergence(one, two) + keras.losses.kl_divergence(two, one))
            loss = told + 0.5 * apart
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "apart": apart}


def two_passes_through_dropout():
    keras.utils.set_random_seed(910)
    x, y = wine(129)
    inputs = keras.Input((13,))
    hidden = layers.Dropout(0.3)(layers.Dense(8, activation="relu")(inputs))
    model = RDrop(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    h = model.fit(x, y, batch_size=35, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dropout_in_a_loop_by_hand():
    keras.utils.set_random_seed(911)
    model = _classifier([layers.Dense(8, activation="relu"), layers.Dropout(0.4)], width=4, classes=3)
    x, y = iris(105)
    optimizer, curve = keras.optimizers.SGD(0.2), []

    @tf.function
    def step(xb, yb):
        with tf.GradientTape() as tape:
            logits = model(xb, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(yb, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for _ in range(2):
        for start in range(0, len(x), 35):
            curve.append(float(step(tf.constant(x[start : start + 35]), tf.constant(y[start : start + 35]))))
    uncertain = np.stack(
        [np.asarray(model(x[:20], training=True)) for _ in range(3)]
    )  # as Monte Carlo dropout
    return {"curve": curve, "uncertain": uncertain.std(axis=0), "weights": model.get_weights()}


def dropout_kept_on_in_prediction():
    keras.utils.set_random_seed(912)
    model = _classifier([layers.Dense(6, activation="relu")], width=30, classes=2)
    x, y = cancer(98)
    model.fit(x, y.astype("int32"), batch_size=49, epochs=1, verbose=0)
    inputs = keras.Input((30,))
    code = layers.Dropout(0.5, seed=2)(model.layers[0](inputs), training=True)
    sampler = keras.Model(inputs, model.layers[1](code))
    draws = np.stack([sampler.predict(x, batch_size=41, verbose=0) for _ in range(2)])
    return {"predictions": draws, "weights": model.get_weights()}


def what_is_drawn_after_a_training():
    keras.utils.set_random_seed(913)
    model = _classifier([layers.Dense(5, activation="relu"), layers.Dropout(0.5)], width=13, classes=3)
    x, y = wine(100)
    model.fit(x, y, batch_size=30, epochs=1, verbose=0)
    seeds = [
        np.asarray(layer.seed_generator.state) for layer in model.layers if isinstance(layer, layers.Dropout)
    ]
    return {
        "keras": np.asarray(keras.random.uniform((3,))),
        "numpy": np.random.rand(3),
        "seeds": seeds,
        "next": np.asarray(keras.initializers.GlorotUniform()((3, 4))),
    }


class MaskedTokens(layers.Layer):
    """Hides some tokens of each row, others every time."""

    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, tokens, training=False):
        if training:
            hidden = keras.random.uniform(ops.shape(tokens), seed=self.seed_generator) < 0.2
            tokens = ops.where(hidden, 0, tokens)
        return tokens


def tokens_hidden_at_random():
    keras.utils.set_random_seed(914)
    tokens, y = digit_tokens(107)
    model = keras.Sequential(
        [
            keras.Input((16,), dtype="int32"),
            MaskedTokens(),
            layers.Embedding(17, 5),
            layers.GlobalAveragePooling1D(),
            layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(tokens, y, batch_size=27, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def batch_normalization_as_it_is():
    keras.utils.set_random_seed(915)
    hidden = [layers.Dense(9, use_bias=False), layers.BatchNormalization(momentum=0.8), layers.ReLU()]
    model = _classifier(hidden)
    x, y = digits(153)
    h = model.fit(x, y, batch_size=37, epochs=2, validation_split=0.2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=70, verbose=0),
    }


def batch_normalization_of_pictures_and_dropout():
    keras.utils.set_random_seed(916)
    x, y = digit_images(118)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    h = model.fit(x, y, batch_size=39, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "evaluate": model.evaluate(x, y, verbose=0)}


class NormalisedStep(keras.Model):
    """Batch normalisation within a step of one's own, called twice for each batch."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            one, two = self(x, training=True)[:, 0], self(-x, training=True)[:, 0]
            loss = tf.reduce_mean((one - y) ** 2) + tf.math.reduce_variance(one + two)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "sum": tf.reduce_mean(one + two)}


def batch_normalization_in_ones_own_step():
    keras.utils.set_random_seed(917)
    x, y = diabetes(139)
    inputs = keras.Input((10,))
    hidden = layers.Activation("tanh")(layers.BatchNormalization()(layers.Dense(6)(inputs)))
    model = NormalisedStep(inputs, layers.Dense(1)(hidden))
    model.compile(keras.optimizers.SGD(0.05))
    h = model.fit(x, y, batch_size=35, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=60, verbose=0),
    }


def batch_normalization_in_a_loop_by_hand():
    keras.utils.set_random_seed(918)
    x, y = wine(125)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    model = keras.Sequential([keras.Input((13,)), layers.BatchNormalization(), layers.Dense(3)])
    optimizer, curve = keras.optimizers.SGD(0.1), []
    for _ in range(2):
        for xb, yb in train:
            with tf.GradientTape() as tape:
                logits = model(xb, training=True)
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(yb, logits))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            curve.append(float(loss))
    return {
        "curve": curve,
        "weights": model.get_weights(),
        "called": np.asarray(model(x[:9], training=False)),
    }
