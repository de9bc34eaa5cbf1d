# ruff: noqa: D103
"""Every way to step: train steps of one's own, tapes, optimizers and what they do to gradients."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_tokens, digits, iris, wine


class OwnStep(keras.Model):
    """As in the Keras guide."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


def train_step_of_the_guide():
    keras.utils.set_random_seed(201)
    x, y = diabetes(231)
    inputs = keras.Input((10,))
    model = OwnStep(inputs, layers.Dense(1)(layers.Dense(6, activation="relu")(inputs)))
    model.compile("adam", "mse", metrics=["mae"])
    h = model.fit(x, y, batch_size=46, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "evaluate": model.evaluate(x, y, verbose=0)}


class OwnTracker(keras.Model):
    """Keeps its own loss tracker and reduces by itself."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = layers.Dense(5, activation="relu"), layers.Dense(64)
        self.tracker = keras.metrics.Mean(name="loss")
        self.size = keras.metrics.Mean(name="size")

    @property
    def metrics(self):
        return [self.tracker, self.size]

    def call(self, x):
        return self.decoder(self.encoder(x))

    def train_step(self, x):
        with tf.GradientTape() as tape:
            code = self.encoder(x)
            loss = tf.reduce_mean(tf.reduce_sum(tf.square(self.decoder(code) - x), axis=1))
            loss += 0.01 * tf.reduce_mean(tf.abs(code))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.tracker.update_state(loss)
        self.size.update_state(tf.norm(code, axis=1))
        return {"loss": self.tracker.result(), "size": self.size.result()}

    def test_step(self, x):
        self.tracker.update_state(tf.reduce_mean(tf.reduce_sum(tf.square(self(x) - x), axis=1)))
        return {"loss": self.tracker.result()}


def train_step_with_own_mean():
    keras.utils.set_random_seed(202)
    x, _ = digits(193)
    model = OwnTracker()
    model.compile(keras.optimizers.Adam(0.005))
    h = model.fit(x, batch_size=32, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, batch_size=64, verbose=0),
        "predictions": model.predict(x[:65], verbose=0),
    }


class BareStep(keras.Model):
    """Returns the loss of the batch as it is, without a tracker."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True)[:, 0] - y))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "largest": tf.reduce_mean(tf.abs(y))}


def train_step_returning_its_batch_loss():
    keras.utils.set_random_seed(203)
    x, y = diabetes(203)
    inputs = keras.Input((10,))
    model = BareStep(inputs, layers.Dense(1)(inputs))
    model.compile("sgd")
    h = model.fit(x, y, batch_size=67, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class LazyNet(keras.Model):
    """Knows its shapes only when it sees data."""

    def __init__(self, units):
        super().__init__()
        self.stack = [layers.Dense(units, activation="relu") for _ in range(2)]
        self.head = layers.Dense(10)

    def call(self, x, training=False):
        for layer in self.stack:
            x = layer(x)
        return self.head(x)


def subclassed_and_built_lazily():
    keras.utils.set_random_seed(204)
    x, y = digits(251)
    model = LazyNet(9)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(x, y, batch_size=50, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=83, verbose=0),
    }


def run_eagerly():
    keras.utils.set_random_seed(205)
    x, y = iris(73)
    seen = []

    class Peek(layers.Layer):
        def call(self, x):
            seen.append(bool(tf.executing_eagerly()))
            return x

    model = keras.Sequential([keras.Input((4,)), Peek(), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    h = model.fit(x, y, batch_size=18, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "eager": seen[-1]}


class Duel(keras.Model):
    """A generator against a critic, each with its own optimizer; fixed latent points."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential(
            [keras.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dense(10)]
        )
        self.critic = keras.Sequential(
            [keras.Input((10,)), layers.Dense(6, activation="tanh"), layers.Dense(1)]
        )
        self.generator_loss = keras.metrics.Mean(name="generator_loss")
        self.critic_loss = keras.metrics.Mean(name="critic_loss")

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile()
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)

    @property
    def metrics(self):
        return [self.generator_loss, self.critic_loss]

    def train_step(self, data):
        latent, real = data
        n = tf.shape(real)[0]
        labels = tf.concat([tf.ones((n, 1)), tf.zeros((n, 1))], 0)
        with tf.GradientTape() as tape:
            both = tf.concat([self.generator(latent), real], 0)
            loss = self.loss_fn(labels, self.critic(both))
        variables = self.critic.trainable_weights
        self.critic_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.critic_loss.update_state(loss)
        with tf.GradientTape() as tape:
            fooled = self.loss_fn(tf.zeros((n, 1)), self.critic(self.generator(latent)))
        variables = self.generator.trainable_weights
        self.generator_optimizer.apply_gradients(
            zip(tape.gradient(fooled, variables), variables, strict=True)
        )
        self.generator_loss.update_state(fooled)
        return {m.name: m.result() for m in self.metrics}


def two_optimizers_in_one_step():
    keras.utils.set_random_seed(206)
    x, _ = diabetes(173)
    latent = np.random.RandomState(1).randn(173, 4).astype("float32")
    model = Duel()
    model.compile(keras.optimizers.Adam(0.002), keras.optimizers.SGD(0.05))
    h = model.fit(latent, x, batch_size=43, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def gradient_accumulation():
    keras.utils.set_random_seed(207)
    x, y = cancer(251)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(6, activation="relu"), layers.Dense(1)])
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True), metrics=["mae"])
    h = model.fit(x, y, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def clipped_by_norm():
    keras.utils.set_random_seed(208)
    x, y = digits(189)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(7, activation="relu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5, clipnorm=0.1), loss)
    h = model.fit(x, y, batch_size=47, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def clipped_by_global_norm():
    keras.utils.set_random_seed(209)
    x, y = diabetes(246)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(7, activation="selu"), layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True, global_clipnorm=0.2), "mse")
    h = model.fit(x, y, batch_size=61, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def clipped_by_value():
    keras.utils.set_random_seed(210)
    x, y = wine(170)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5, nesterov=True, momentum=0.8, clipvalue=0.03), loss)
    h = model.fit(x, y, batch_size=28, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def weight_decay():
    keras.utils.set_random_seed(211)
    x, y = cancer(229)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(5, activation="gelu"), layers.Dense(1)])
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, amsgrad=True)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=57, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def moving_average_of_weights():
    keras.utils.set_random_seed(212)
    x, y = iris(148)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    optimizer = keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    h = model.fit(x, y, batch_size=21, epochs=3, validation_split=0.3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def embedding_with_sparse_gradients():
    keras.utils.set_random_seed(213)
    tokens, y = digit_tokens(241)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Embedding(17, 4),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(tokens, y, batch_size=48, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def embedding_clipped_and_shared():
    keras.utils.set_random_seed(214)
    tokens, _ = digit_tokens(163)
    table = layers.Embedding(17, 5)
    left, right = keras.Input((8,), dtype="int32"), keras.Input((8,), dtype="int32")
    pooled = [layers.GlobalMaxPooling1D()(table(side)) for side in (left, right)]
    model = keras.Model([left, right], layers.Dot(axes=1, normalize=True)(pooled))
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9, global_clipnorm=0.5), "mse")
    same = (tokens[:, :8].max(1) == tokens[:, 8:].max(1)).astype("float32")
    h = model.fit([tokens[:, :8], tokens[:, 8:]], same, batch_size=54, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def layer_without_gradient():
    keras.utils.set_random_seed(215)
    x, y = wine(115)

    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3), layers.Dense(2)

        def call(self, x):
            tf.stop_gradient(self.unused(x))
            return self.used(x)

    model = Half()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=38, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def scaled_loss():
    keras.utils.set_random_seed(216)
    x, y = diabetes(187)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    inner = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(
        keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0, dynamic_growth_steps=3), "mse"
    )
    h = model.fit(x, y, batch_size=37, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "scale": float(model.optimizer.dynamic_scale),
    }


def scaled_loss_that_overflows():
    keras.utils.set_random_seed(217)
    x, y = diabetes(157)
    x[150] *= 1e30
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=64.0)
    model.compile(optimizer, "mse")
    model.fit(x, y, batch_size=52, epochs=2, shuffle=False, verbose=0)
    return {
        "weights": model.get_weights(),
        "scale": float(optimizer.dynamic_scale),
        "steps": int(optimizer.iterations),
    }


def learning_rate_schedules():
    keras.utils.set_random_seed(218)
    x, y = cancer(213)
    result = {}
    for name, schedule in {
        "decay": keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7, staircase=True),
        "cosine": keras.optimizers.schedules.CosineDecay(0.01, 8, warmup_target=0.2, warmup_steps=3),
    }.items():
        model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.SGD(schedule), "binary_crossentropy")
        h = model.fit(x, y, batch_size=53, epochs=2, verbose=0)
        result[name] = h.history, model.get_weights(), float(model.optimizer.learning_rate)
    return result


def one_optimizer_after_the_other():
    keras.utils.set_random_seed(219)
    x, y = diabetes(133)
    result = {}
    for name in ("Adam", "Adamax", "Adadelta", "Nadam", "Ftrl", "Adafactor"):
        model = keras.Sequential([keras.Input((10,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])
        model.compile(getattr(keras.optimizers, name)(0.01), "mse")
        h = model.fit(x, y, batch_size=44, epochs=1, verbose=0)
        result[name] = h.history, model.get_weights()
    return result


def lion():
    keras.utils.set_random_seed(220)
    x, y = diabetes(251)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Lion(0.003), "mse")
    h = model.fit(x, y, batch_size=50, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def jit_compiled():
    keras.utils.set_random_seed(221)
    x, y = wine(139)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(4, activation="relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=True)
    h = model.fit(x, y, batch_size=46, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Teacher(keras.Model):
    """Distils one model into another; two losses weighed by hand."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False):
        hard = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        soft = keras.losses.kl_divergence(ops.softmax(self.teacher(x) / 3), ops.softmax(y_pred / 3))
        return ops.mean(0.3 * hard + 0.7 * 9 * soft)


def distillation():
    keras.utils.set_random_seed(222)
    x, y = digits(227)
    teacher = keras.Sequential([keras.Input((64,)), layers.Dense(16, activation="relu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss)
    first = teacher.fit(x, y, batch_size=75, epochs=2, verbose=0)
    model = Teacher(keras.Sequential([keras.Input((64,)), layers.Dense(10)]), teacher)
    model.compile("adam", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=45, epochs=2, verbose=0)
    return {"teacher": first.history, "history": h.history, "weights": model.get_weights()}


class TwoPhases(keras.Model):
    """Steps twice per batch over different variables with one tape."""

    def __init__(self):
        super().__init__()
        self.low = layers.Dense(4, activation="tanh")
        self.high = layers.Dense(1)

    def call(self, x):
        return self.high(self.low(x))

    def train_step(self, data):
        x, y, w = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape(persistent=True) as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, w)
            pull = tf.reduce_mean(tf.square(self.low(x)))
        low = tape.gradient(loss + 0.1 * pull, self.low.trainable_variables)
        high = tape.gradient(loss, self.high.trainable_variables)
        self.optimizer.apply_gradients(
            zip(low + high, self.low.trainable_variables + self.high.trainable_variables, strict=True)
        )
        return self.compute_metrics(x, y, y_pred, w)


def one_tape_two_gradients():
    keras.utils.set_random_seed(223)
    x, y = diabetes(167)
    model = TwoPhases()
    model.compile("adam", "mse", metrics=["mae"], weighted_metrics=["mse"])
    h = model.fit(x, y, sample_weight=np.abs(x[:, 0]), batch_size=33, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class ClippedByHand(keras.Model):
    """Clips the gradients itself before they are applied."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), 0.25)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.compute_metrics(x, y, y_pred)


def clipped_by_hand_in_the_train_step():
    keras.utils.set_random_seed(224)
    x, y = diabetes(181)
    inputs = keras.Input((10,))
    model = ClippedByHand(inputs, layers.Dense(1)(layers.Dense(6, activation="relu")(inputs)))
    model.compile(keras.optimizers.SGD(0.2), "mse")
    h = model.fit(x, y, batch_size=36, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class SummedByHand(keras.Model):
    """Adds the samples' losses up and divides by the batch size that it knows."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            error = tf.square(self(x, training=True)[:, 0] - y)
            loss = tf.reduce_sum(error) / tf.cast(tf.shape(x)[0], tf.float32)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def summed_by_hand_over_the_batch_size():
    keras.utils.set_random_seed(225)
    x, y = diabetes(151)
    inputs = keras.Input((10,))
    model = SummedByHand(inputs, layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.05))
    h = model.fit(x, y, batch_size=30, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def loop_by_hand_over_arrays():
    keras.utils.set_random_seed(226)
    x, y = cancer(143)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(3, activation="relu"), layers.Dense(1)])
    optimizer, loss_fn = keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True)
    accuracy = keras.metrics.BinaryAccuracy(threshold=0.0)

    @tf.function
    def step(features, target):
        with tf.GradientTape() as tape:
            logits = model(features, training=True)
            loss = loss_fn(target[:, None], logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        accuracy.update_state(target[:, None], logits)
        return loss

    curve = [
        float(step(tf.constant(x[start : start + 35]), tf.constant(y[start : start + 35])))
        for _ in range(2)
        for start in range(0, len(x), 35)
    ]
    return {"curve": curve, "accuracy": float(accuracy.result()), "weights": model.get_weights()}


def attention():
    keras.utils.set_random_seed(227)
    x = digits(113)[0].reshape(-1, 8, 8)
    y = digits(113)[1]
    inputs = keras.Input((8, 8))
    seen = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    hidden = layers.LayerNormalization()(layers.Add()([inputs, seen]))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(hidden)))
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(x, y, batch_size=28, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}
