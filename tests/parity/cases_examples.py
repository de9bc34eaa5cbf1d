"""Training functions as examples of the framework and questions of its users have them."""

# ruff: noqa: D103

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digits


class StochasticDepth(layers.Layer):
    """Drops whole rows of a residual branch, each by a draw of its own."""

    def __init__(self, rate, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, x, training=None):
        if not training:
            return x
        keep = 1 - self.rate
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        drawn = keep + keras.random.uniform(shape, 0, 1, seed=self.seed_generator)
        return (x / keep) * ops.floor(drawn)


def residual_branches_dropped_by_row():
    keras.utils.set_random_seed(1201)
    x, y = digits(143)
    inputs = keras.Input((64,))
    h = layers.Dense(8, activation="relu")(inputs)
    h = layers.Add()([h, StochasticDepth(0.4)(layers.Dense(8, activation="gelu")(h))])
    model = keras.Model(inputs, layers.Dense(10)(h))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Patches(layers.Layer):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, images):
        patches = ops.image.extract_patches(images, size=self.size)
        return ops.reshape(patches, (ops.shape(images)[0], -1, self.size * self.size))


class PatchEncoder(layers.Layer):
    def __init__(self, patches, width):
        super().__init__()
        self.patches = patches
        self.projection = layers.Dense(width)
        self.position = layers.Embedding(patches, width)

    def call(self, patch):
        positions = ops.expand_dims(ops.arange(0, self.patches, step=1), axis=0)
        return self.projection(patch) + self.position(positions)


def vision_transformer_on_patches():
    keras.utils.set_random_seed(1202)
    x, y = digits(131)
    x = x.reshape(-1, 8, 8, 1)
    inputs = keras.Input((8, 8, 1))
    h = PatchEncoder(4, 8)(Patches(4)(inputs))
    a = layers.LayerNormalization(epsilon=1e-6)(h)
    h = layers.Add()([layers.MultiHeadAttention(2, 4, dropout=0.1)(a, a), h])
    h = layers.Dropout(0.3)(layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(h)))
    model = keras.Model(inputs, layers.Dense(10)(h))
    model.compile(
        keras.optimizers.AdamW(0.002, weight_decay=0.0001),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(5, name="top-5")],
    )
    h = model.fit(x, y, batch_size=30, epochs=2, validation_split=0.1, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class OrthogonalRegularizer(keras.regularizers.Regularizer):
    def __init__(self, num_features, strength=0.001):
        self.num_features, self.strength = num_features, strength
        self.eye = ops.eye(num_features)

    def __call__(self, x):
        x = ops.reshape(x, (-1, self.num_features, self.num_features))
        product = ops.tensordot(x, x, axes=(2, 2))
        product = ops.reshape(product, (-1, self.num_features, self.num_features))
        return ops.sum(self.strength * ops.square(product - self.eye))


def transform_net_with_a_regularizer_over_the_batch():
    keras.utils.set_random_seed(1203)
    x, y = digits(96)
    points = x.reshape(-1, 32, 2)
    inputs = keras.Input((32, 2))
    h = layers.BatchNormalization(momentum=0.0)(layers.Conv1D(4, 1, activation="relu")(inputs))
    h = layers.GlobalMaxPooling1D()(h)
    h = layers.Dense(
        4,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(np.eye(2).flatten()),
        activity_regularizer=OrthogonalRegularizer(2),
    )(h)
    moved = layers.Dot(axes=(2, 1))([inputs, layers.Reshape((2, 2))(h)])
    out = layers.Dense(10)(layers.GlobalMaxPooling1D()(layers.Conv1D(6, 1, activation="relu")(moved)))
    model = keras.Model(inputs, out)
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["sparse_categorical_accuracy"],
    )
    h = model.fit(points, y, batch_size=20, epochs=2, shuffle=False, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def actor_and_critic_one_state_at_a_time():
    keras.utils.set_random_seed(1204)
    x, _ = diabetes(40)
    inputs = keras.Input((10,))
    common = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(2, activation="softmax")(common), layers.Dense(1)(common)])
    optimizer, huber = keras.optimizers.Adam(0.01), keras.losses.Huber()
    drawn, curve = np.random.default_rng(3), []
    for episode in range(3):
        chances, values, rewards = [], [], []
        with tf.GradientTape() as tape:
            for row in x[episode * 8 : episode * 8 + 8]:
                state = ops.expand_dims(ops.convert_to_tensor(row, "float32"), 0)
                action_probs, critic_value = model(state)
                values.append(critic_value[0, 0])
                action = drawn.choice(2, p=np.squeeze(action_probs) / np.sum(action_probs))
                chances.append(ops.log(action_probs[0, action]))
                rewards.append(float(row[action]))
            returns, discounted = [], 0.0
            for r in rewards[::-1]:
                discounted = r + 0.9 * discounted
                returns.insert(0, discounted)
            actor, critic = [], []
            for log_prob, value, ret in zip(chances, values, returns, strict=True):
                actor.append(-log_prob * (ret - value))
                critic.append(huber(ops.expand_dims(value, 0), ops.expand_dims(ret, 0)))
            loss = sum(actor) + sum(critic)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        curve.append(float(loss))
    return {"curve": curve, "weights": model.get_weights()}


def deep_q_with_replay_and_a_target():
    keras.utils.set_random_seed(1205)
    x, y = diabetes(200)
    drawn = np.random.default_rng(1)

    def q_network():
        return keras.Sequential([keras.Input((10,)), layers.Dense(8, activation="relu"), layers.Dense(3)])

    model, target = q_network(), q_network()
    target.set_weights(model.get_weights())
    optimizer = keras.optimizers.Adam(0.005, clipnorm=1.0)
    loss_function = keras.losses.Huber()
    curve = []
    for frame in range(6):
        rows = drawn.choice(200, 23)
        nxt = target.predict(x[(rows + 1) % 200], verbose=0)
        updated = y[rows].reshape(-1) + 0.9 * ops.amax(nxt, axis=1)
        masks = ops.one_hot(drawn.integers(0, 3, 23), 3)
        with tf.GradientTape() as tape:
            q_action = ops.sum(ops.multiply(model(x[rows]), masks), axis=1)
            loss = loss_function(updated, q_action)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        curve.append(float(loss))
        if frame % 3 == 2:
            target.set_weights(model.get_weights())
    return {"curve": curve, "weights": model.get_weights()}


def style_transfer_of_a_variable_image():
    keras.utils.set_random_seed(1206)
    x, _ = digits(3)
    base, style = x[0].reshape(1, 8, 8, 1), x[1].reshape(1, 8, 8, 1)
    features = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
        ]
    )
    image = tf.Variable(np.concatenate([base]).astype("float32"))
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 4, 0.96))

    def gram_matrix(x):
        x = ops.transpose(x, (2, 0, 1))
        flat = ops.reshape(x, (ops.shape(x)[0], -1))
        return ops.matmul(flat, ops.transpose(flat))

    @tf.function
    def loss_and_grads(image, base, style):
        with tf.GradientTape() as tape:
            found = features(tf.concat([base, style, image], axis=0))
            content = ops.sum(ops.square(found[2] - found[0]))
            loss = 0.1 * content + ops.sum(ops.square(gram_matrix(found[1]) - gram_matrix(found[2]))) / 100
            loss += 1e-2 * tf.reduce_sum(tf.abs(image[:, 1:] - image[:, :-1]))
        return loss, tape.gradient(loss, image)

    curve = []
    for _ in range(5):
        loss, grads = loss_and_grads(image, base, style)
        optimizer.apply_gradients([(grads, image)])
        curve.append(float(loss))
    return {"curve": curve, "image": image.numpy()}


def saliency_and_activations_of_a_class():
    keras.utils.set_random_seed(1207)
    x, y = digits(90)
    x = x.reshape(-1, 8, 8, 1)
    inputs = keras.Input((8, 8, 1))
    last = layers.Conv2D(4, 3, activation="relu", name="last_conv")(inputs)
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(last)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    grad_model = keras.Model(model.inputs, [model.get_layer("last_conv").output, model.output])
    with tf.GradientTape() as tape:
        activations, preds = grad_model(x[:1])
        class_channel = preds[:, int(tf.argmax(preds[0]))]
    grads = tape.gradient(class_channel, activations)
    pooled = tf.reduce_mean(grads, axis=(0, 1, 2))
    heatmap = tf.squeeze(activations[0] @ pooled[..., tf.newaxis])
    steps = tf.linspace(0.0, 1.0, 7)[:, None, None, None]
    interpolated = steps * x[:1]
    with tf.GradientTape() as tape:
        tape.watch(interpolated)
        top = model(interpolated, training=True)[:, 3]
    integrated = tf.reduce_mean(tape.gradient(top, interpolated), axis=0) * x[0]
    return {"heatmap": heatmap.numpy(), "integrated": integrated.numpy(), "weights": model.get_weights()}


class CycleGan(keras.Model):
    def __init__(self, there, back, judge_x, judge_y):
        super().__init__()
        self.there, self.back, self.judge_x, self.judge_y = there, back, judge_x, judge_y

    def call(self, inputs):
        return self.judge_x(inputs), self.judge_y(inputs), self.there(inputs), self.back(inputs)

    def compile(self, gen_optimizers, disc_optimizers, generator_loss):
        super().compile()
        self.gen_optimizers, self.disc_optimizers = gen_optimizers, disc_optimizers
        self.generator_loss, self.cycle_loss = generator_loss, keras.losses.MeanAbsoluteError()

    def train_step(self, batch):
        real_x, real_y = batch
        with tf.GradientTape(persistent=True) as tape:
            fake_y, fake_x = self.there(real_x, training=True), self.back(real_y, training=True)
            cycled_x, cycled_y = self.back(fake_y, training=True), self.there(fake_x, training=True)
            judged_x, judged_fake_x = self.judge_x(real_x), self.judge_x(fake_x)
            judged_y, judged_fake_y = self.judge_y(real_y), self.judge_y(fake_y)
            there_loss = self.generator_loss(tf.ones_like(judged_fake_y), judged_fake_y)
            there_loss += 10 * self.cycle_loss(real_y, cycled_y)
            back_loss = self.generator_loss(tf.ones_like(judged_fake_x), judged_fake_x)
            back_loss += 10 * self.cycle_loss(real_x, cycled_x)
            x_loss = tf.reduce_mean(judged_x**2) + tf.reduce_mean((1 - judged_fake_x) ** 2)
            y_loss = tf.reduce_mean(judged_y**2) + tf.reduce_mean((1 - judged_fake_y) ** 2)
        for loss, model, optimizer in (
            (there_loss, self.there, self.gen_optimizers[0]),
            (back_loss, self.back, self.gen_optimizers[1]),
            (x_loss, self.judge_x, self.disc_optimizers[0]),
            (y_loss, self.judge_y, self.disc_optimizers[1]),
        ):
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return {"there_loss": there_loss, "back_loss": back_loss, "x_loss": x_loss, "y_loss": y_loss}


def cycle_of_two_generators_and_two_critics():
    keras.utils.set_random_seed(1208)
    x, _ = digits(74)

    def small(width):
        return keras.Sequential([layers.Dense(6, activation="relu"), layers.Dense(width)])

    model = CycleGan(small(32), small(32), small(1), small(1))
    adam = [keras.optimizers.Adam(2e-3, beta_1=0.5) for _ in range(4)]
    model.compile(adam[:2], adam[2:], keras.losses.MeanSquaredError())
    data = tf.data.Dataset.zip(
        (
            tf.data.Dataset.from_tensor_slices(x[:37, :32]).batch(8),
            tf.data.Dataset.from_tensor_slices(x[37:, 32:]).batch(8),
        )
    )
    h = model.fit(data, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Trainer(keras.Model):
    """A model that trains another one, which stands in it."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @property
    def metrics(self):
        return [self.loss_metric, self.accuracy]

    def compile(self, optimizer, loss):
        super().compile()
        self.optimizer, self.loss_fn = optimizer, loss

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            predictions = self.model(x, training=True)
            loss = self.loss_fn(y, predictions)
        weights = self.model.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.loss_metric.update_state(loss)
        self.accuracy.update_state(y, predictions)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data):
        x, y = data
        predictions = self.model(x, training=False)
        self.loss_metric.update_state(self.loss_fn(y, predictions))
        self.accuracy.update_state(y, predictions)
        return {m.name: m.result() for m in self.metrics}

    def call(self, x):
        return self.model(x)


def trainer_around_a_model():
    keras.utils.set_random_seed(1209)
    x, y = digits(133)
    inner = keras.Sequential(
        [keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dropout(0.2), layers.Dense(10)]
    )
    trainer = Trainer(inner)
    trainer.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = trainer.fit(x, y, batch_size=30, epochs=2, validation_data=(x[:31], y[:31]), verbose=0)
    return {
        "history": h.history,
        "weights": inner.get_weights(),
        "predictions": trainer.predict(x[:11], verbose=0),
    }


class MaskedAutoencoder(keras.Model):
    """Hides some patches of each row and rebuilds them."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = layers.Dense(6, activation="relu"), layers.Dense(8)
        self.seeds = keras.random.SeedGenerator(7)

    def hidden(self, patches):
        drawn = keras.random.uniform((ops.shape(patches)[0], 8), seed=self.seeds)
        order = ops.argsort(drawn, axis=-1)
        return order[:, :4], order[:, 4:]

    def calculate_loss(self, x):
        patches = ops.reshape(x, (-1, 8, 8))
        masked, seen = self.hidden(patches)
        there = tf.gather(patches, seen, axis=1, batch_dims=1)
        code = ops.mean(self.encoder(there), axis=1, keepdims=True)
        rebuilt = self.decoder(ops.repeat(code, 4, axis=1))
        wanted = tf.gather(patches, masked, axis=1, batch_dims=1)
        return self.compute_loss(y=wanted, y_pred=rebuilt)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = self.calculate_loss(x)
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(grads, self.trainable_variables)
        return {"loss": loss}

    def test_step(self, x):
        return {"loss": self.calculate_loss(x)}


def masked_autoencoder_on_patches():
    keras.utils.set_random_seed(1210)
    x, _ = digits(101)
    model = MaskedAutoencoder()
    model.compile(keras.optimizers.AdamW(0.01), keras.losses.MeanSquaredError())
    data = tf.data.Dataset.from_tensor_slices(x).shuffle(101, seed=2).batch(24)
    h = model.fit(
        data, epochs=2, validation_data=tf.data.Dataset.from_tensor_slices(x[:30]).batch(24), verbose=0
    )
    return {"history": h.history, "weights": model.get_weights()}


def sequences_with_teacher_forcing():
    keras.utils.set_random_seed(1211)
    x, _ = digits(87)
    source, wanted = x.reshape(-1, 8, 8), x.reshape(-1, 8, 8)[:, ::-1, :3]
    encoder_inputs, decoder_inputs = keras.Input((None, 8)), keras.Input((None, 3))
    _, h, c = layers.LSTM(5, return_state=True)(encoder_inputs)
    decoded, _, _ = layers.LSTM(5, return_sequences=True, return_state=True)(
        decoder_inputs, initial_state=[h, c]
    )
    model = keras.Model([encoder_inputs, decoder_inputs], layers.Dense(3)(decoded))
    model.compile("rmsprop", "mse", metrics=["mae"])
    given = np.concatenate([np.zeros_like(wanted[:, :1]), wanted[:, :-1]], axis=1)
    h = model.fit([source, given], wanted, batch_size=20, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class MinimalRNNCell(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="uniform", name="kernel"
        )
        self.recurrent = self.add_weight(
            shape=(self.units, self.units), initializer="uniform", name="recurrent"
        )

    def call(self, inputs, states):
        output = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent)
        return output, [output]


def recurrent_cell_of_ones_own_with_masking():
    keras.utils.set_random_seed(1212)
    x, y = digits(97)
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Masking(0.0),
            layers.RNN(MinimalRNNCell(4)),
            layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(x.reshape(-1, 8, 8), y, batch_size=26, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def mean_of_the_weights_swapped_in():
    keras.utils.set_random_seed(1213)
    x, y = cancer(120)
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(6, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile(
        keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=None),
        "binary_crossentropy",
        metrics=[keras.metrics.AUC()],
    )
    h = model.fit(
        x, y, batch_size=25, epochs=3, validation_split=0.2, verbose=0,
        callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
    )  # fmt: skip
    return {"history": h.history, "weights": model.get_weights()}


def spectral_and_unit_normalization():
    keras.utils.set_random_seed(1214)
    x, y = digits(91)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.SpectralNormalization(layers.Conv2D(4, 3)),
            layers.GroupNormalization(2),
            layers.BatchNormalization(synchronized=True),
            layers.Flatten(),
            layers.UnitNormalization(),
            layers.Dense(10, kernel_constraint="max_norm"),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(x.reshape(-1, 8, 8, 1), y, batch_size=24, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class PrintsNumbers(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        if loss.numpy() < 0:
            raise ValueError("never")
        grads = tape.gradient(loss, self.trainable_variables)
        norm = float(np.sqrt(sum(np.sum(g.numpy() ** 2) for g in grads)))
        self.optimizer.apply_gradients(
            [(g if norm < 1 else g / norm, v) for g, v in zip(grads, self.trainable_variables, strict=True)]
        )
        return {"loss": loss, "norm": norm}


def step_that_runs_eagerly():
    keras.utils.set_random_seed(1215)
    x, y = diabetes(83)
    inputs = keras.Input((10,))
    model = PrintsNumbers(inputs, layers.Dense(1)(layers.Dense(6, activation="tanh")(inputs)))
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    h = model.fit(x, y, batch_size=20, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def several_steps_in_one_execution():
    keras.utils.set_random_seed(1216)
    x, y = digits(137)
    found = {}
    for name, kind in (("plain", keras.Model), ("own", Centered)):
        inputs = keras.Input((64,))
        model = kind(
            inputs, layers.Dense(10)(layers.Dropout(0.2)(layers.Dense(6, activation="relu")(inputs)))
        )
        model.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=3,
        )
        h = model.fit(x, y, batch_size=20, epochs=2, validation_split=0.2, verbose=0)
        found[name] = {
            "history": h.history,
            "weights": model.get_weights(),
            "p": model.predict(x[:33], batch_size=4, verbose=0),
        }
    return found


class Centered(keras.Model):
    """Centralizes gradients in its step."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        grads = tape.gradient(loss, self.trainable_variables)
        grads = [g - tf.reduce_mean(g, axis=0, keepdims=True) if len(g.shape) > 1 else g for g in grads]
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
        return self.compute_metrics(x, y, y_pred)


class CentralizedRMSprop(keras.optimizers.RMSprop):
    def apply(self, grads, trainable_variables=None):
        grads = [
            g - ops.mean(g, axis=list(range(len(g.shape) - 1)), keepdims=True) if len(g.shape) > 1 else g
            for g in grads
        ]
        return super().apply(grads, trainable_variables)


def optimizer_that_centralizes_gradients():
    keras.utils.set_random_seed(1217)
    x, y = digits(123)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(7, activation="relu"), layers.Dense(10)])
    model.compile(
        CentralizedRMSprop(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    h = model.fit(x, y, batch_size=25, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class TextGenerator(keras.callbacks.Callback):
    """Predicts row after row at the end of each epoch."""

    def __init__(self, x):
        super().__init__()
        self.x, self.told = x, []

    def on_epoch_end(self, epoch, logs=None):
        row = self.x[:1]
        for _ in range(3):
            row = np.roll(row + self.model.predict(row, verbose=0).mean(), 1, axis=1)
        self.told.append(float(row.sum()))
        self.told.append(float(ops.sum(self.model(self.x[:5], training=False))))


def callback_that_generates_rows():
    keras.utils.set_random_seed(1218)
    x, y = diabetes(77)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse")
    told = TextGenerator(x)
    h = model.fit(x, y, batch_size=20, epochs=3, verbose=0, callbacks=[told])
    return {"history": h.history, "told": told.told, "weights": model.get_weights()}


def windows_of_a_series():
    keras.utils.set_random_seed(1219)
    series = diabetes(150)[0][:, :4]
    data = keras.utils.timeseries_dataset_from_array(
        series, series[6:, :1], sequence_length=6, sampling_rate=1, batch_size=32, shuffle=True, seed=4
    )
    model = keras.Sequential([keras.Input((6, 4)), layers.LSTM(5), layers.Dense(1)])
    model.compile("adam", "mse")
    h = model.fit(data, epochs=2, validation_data=data, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "score": model.evaluate(data, verbose=0)}


class F1Score(keras.metrics.Metric):
    def __init__(self, name="f1", **kwargs):
        super().__init__(name=name, **kwargs)
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.told = self.add_weight(name="told", initializer="zeros")
        self.best = self.add_weight(name="best", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true, said = ops.cast(y_true, "bool"), ops.greater(y_pred, 0.5)
        hits = ops.sum(ops.cast(ops.logical_and(y_true, said), "float32"))
        self.hits.assign_add(hits)
        self.told.assign_add(ops.sum(ops.cast(said, "float32")))
        self.best.assign(ops.maximum(self.best, hits))

    def result(self):
        return {"hits": self.hits / (self.told + 1e-7), "best": self.best + 0.0}


def metric_with_two_results():
    keras.utils.set_random_seed(1220)
    x, y = cancer(140)
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(6, activation="relu"), layers.Dense(1, activation="sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=[F1Score(), "accuracy"])
    h = model.fit(x, y, batch_size=30, epochs=2, validation_split=0.3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def focal_and_dice_and_tversky_by_hand():
    keras.utils.set_random_seed(1221)
    x, _ = digits(88)
    masks = (x > 0.5).astype("float32")

    def dice(y_true, y_pred, smooth=1.0):
        met = ops.sum(y_true * y_pred)
        return 1 - (2 * met + smooth) / (ops.sum(y_true) + ops.sum(y_pred) + smooth)

    def focal(y_true, y_pred):
        p = ops.where(ops.equal(y_true, 1), y_pred, 1 - y_pred)
        return -ops.mean(0.25 * (1 - p) ** 2 * ops.log(p + 1e-6))

    def tversky(y_true, y_pred):
        y_true, y_pred = ops.reshape(y_true, (-1,)), ops.reshape(y_pred, (-1,))
        tp, fn = ops.sum(y_true * y_pred), ops.sum(y_true * (1 - y_pred))
        return ops.power(1 - tp / (tp + 0.7 * fn + 0.3 * ops.sum((1 - y_true) * y_pred)), 0.75)

    found = {}
    for loss in (dice, focal, tversky, keras.losses.Dice(), keras.losses.BinaryFocalCrossentropy()):
        inputs = keras.Input((64,))
        model = keras.Model(
            inputs, layers.Dense(64, activation="sigmoid")(layers.Dense(6, activation="relu")(inputs))
        )
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=[dice])
        h = model.fit(x, masks, batch_size=20, epochs=2, validation_split=0.2, verbose=0)
        found[getattr(loss, "name", getattr(loss, "__name__", ""))] = h.history
    return found


def loop_with_scaled_losses_in_half_precision():
    keras.utils.set_random_seed(1222)
    x, y = digits(64)
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(10, dtype="float32")]
    )
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=128.0)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(24)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x, training=True))
            scaled = optimizer.scale_loss(loss)
        grads = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return loss

    curve = [float(train_step(*batch)) for _ in range(2) for batch in data]
    return {"curve": curve, "weights": model.get_weights()}


def endpoint_of_a_length_dependent_loss():
    keras.utils.set_random_seed(1223)
    x, y = digits(58)
    labels = np.stack([y, (y + 1) % 10, (y + 2) % 10], axis=1).astype("int32")

    class CTC(layers.Layer):
        def call(self, y_true, y_pred):
            batch_len = ops.cast(ops.shape(y_true)[0], "int32")
            given = ops.ones((batch_len,), "int32")
            loss = ops.ctc_loss(y_true, y_pred, 3 * given, ops.shape(y_pred)[1] * given, mask_index=10)
            self.add_loss(ops.mean(loss))
            return y_pred

    images, wanted = keras.Input((8, 8), name="image"), keras.Input((3,), dtype="int32", name="label")
    h = layers.Dense(11)(layers.Bidirectional(layers.GRU(4, return_sequences=True))(images))
    model = keras.Model([images, wanted], CTC()(wanted, h))
    model.compile(keras.optimizers.Adam(0.01))
    h = model.fit(
        {"image": x.reshape(-1, 8, 8), "label": labels},
        batch_size=16,
        epochs=2,
        validation_split=0.2,
        verbose=0,
    )
    return {"history": h.history, "weights": model.get_weights()}


class AdaptsDomains(keras.Model):
    """Labelled rows and others in one call, put apart again by their number."""

    def compile(self, optimizer):
        super().compile(optimizer=optimizer)
        self.tracker = keras.metrics.Mean(name="loss")

    def train_step(self, data):
        (x, y), other = data
        n = tf.shape(x)[0]
        with tf.GradientTape() as tape:
            together = self(tf.concat([x, other, other * 0.9], axis=0), training=True)
            ours, weak, strong = together[:n], *tf.split(together[n:], 2)
            sure = tf.reduce_max(tf.nn.softmax(ours), -1)
            threshold = 0.9 * tf.reduce_mean(sure)
            mask = tf.cast(tf.reduce_max(tf.nn.softmax(weak), -1) >= threshold, "float32")
            pseudo = tf.stop_gradient(tf.nn.softmax(weak))
            target = tf.reduce_mean(
                tf.keras.losses.categorical_crossentropy(pseudo, strong, from_logits=True) * mask
            )
            loss = target + tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(y, ours, from_logits=True)
            )
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True)
        )
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def two_domains_of_unequal_batches():
    keras.utils.set_random_seed(1224)
    x, y = digits(120)
    inputs = keras.Input((64,))
    model = AdaptsDomains(
        inputs, layers.Dense(10)(layers.BatchNormalization()(layers.Dense(8, use_bias=False)(inputs)))
    )
    model.compile(keras.optimizers.Adam(0.01))
    data = tf.data.Dataset.zip(
        (
            tf.data.Dataset.from_tensor_slices((x[:40], y[:40])).batch(10),
            tf.data.Dataset.from_tensor_slices(x[40:]).batch(17),
        )
    )
    h = model.fit(data, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def ensemble_and_its_mean():
    keras.utils.set_random_seed(1225)
    x, y = diabetes(90)

    def member():
        return keras.Sequential(
            [
                keras.Input((10,)),
                layers.Dense(5, activation="relu"),
                layers.GaussianNoise(0.1),
                layers.Dense(1),
            ]
        )

    members, histories = [member() for _ in range(3)], []
    for one in members:
        one.compile("adam", "mse")
        histories.append(one.fit(x, y, batch_size=19, epochs=1, verbose=0).history)
    inputs = keras.Input((10,))
    both = keras.Model(inputs, layers.Average()([one(inputs) for one in members]))
    both.compile(loss="mae")
    return {
        "rows": histories,
        "score": both.evaluate(x, y, batch_size=19, verbose=0),
        "p": both.predict(x[:7], verbose=0),
    }


def rows_of_text_through_a_vectorizer():
    keras.utils.set_random_seed(1226)
    words = np.array(["good film", "bad film", "very good", "awful", "a very bad film", "good good"] * 9)
    labels = np.array([1, 0, 1, 0, 0, 1] * 9).astype("float32")[:, None]
    vectorizer = layers.TextVectorization(max_tokens=12, output_sequence_length=4)
    vectorizer.adapt(words)
    data = (
        tf.data.Dataset.from_tensor_slices((words, labels))
        .shuffle(54, seed=1)
        .batch(10)
        .map(lambda x, y: (vectorizer(x), y))
    )
    model = keras.Sequential(
        [
            layers.Embedding(12, 4, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(data, epochs=3, verbose=0)
    end = keras.Sequential([keras.Input((1,), dtype="string"), vectorizer, model])
    return {"history": h.history, "p": end.predict(tf.constant([["good film"], ["bad"]]), verbose=0)}
