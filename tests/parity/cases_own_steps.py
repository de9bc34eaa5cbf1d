# ruff: noqa: D103
"""Steps, losses, metrics and optimizers of the user's own, each doing one thing that is not a mean over samples."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_images, digit_tokens, digits, iris, wine


class SpreadOfErrors(keras.losses.Loss):
    """One number for the batch, in ``__call__`` itself."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        return tf.math.reduce_std(y_pred[:, 0] - y_true)


def loss_overriding_its_call():
    keras.utils.set_random_seed(701)
    x, y = diabetes(153)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), SpreadOfErrors())
    h = model.fit(x, y, batch_size=38, epochs=2, shuffle=False, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "evaluate": model.evaluate(x, y, verbose=0)}


class ClippingSGD(keras.optimizers.SGD):
    """Clips where it applies."""

    def apply(self, grads, trainable_variables=None):
        grads, _ = tf.clip_by_global_norm(grads, 0.05)
        return super().apply(grads, trainable_variables)


def optimizer_clipping_where_it_applies():
    keras.utils.set_random_seed(702)
    x, y = diabetes(131)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(ClippingSGD(0.5), "mse", metrics=["mae"])
    h = model.fit(x, y, batch_size=33, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class CentredRMSprop(keras.optimizers.RMSprop):
    """Takes the mean out of every kernel's gradient, and squares it only then."""

    def update_step(self, gradient, variable, learning_rate):
        if len(gradient.shape) > 1:
            gradient = gradient - ops.mean(gradient, axis=list(range(len(gradient.shape) - 1)), keepdims=True)
        super().update_step(gradient, variable, learning_rate)


def optimizer_centring_gradients():
    keras.utils.set_random_seed(703)
    x, y = digit_images(128)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(3, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    )
    model.compile(CentredRMSprop(0.002), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=43, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def optimizer_free_of_schedules():
    keras.utils.set_random_seed(704)
    x, y = cancer(171)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    optimizer = keras.optimizers.ScheduleFreeAdamW(0.005, warmup_steps=3)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True), metrics=["mae"])
    h = model.fit(x, y, batch_size=40, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Accumulating(keras.Model):
    """Adds three batches' gradients up in variables of its own and applies them at once."""

    def __init__(self, batches, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches = tf.constant(batches, dtype=tf.int32)
        self.seen = tf.Variable(0, dtype=tf.int32, trainable=False)
        self.sums = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.trainable_variables]

    def train_step(self, data):
        x, y = data
        self.seen.assign_add(1)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        for total, gradient in zip(self.sums, tape.gradient(loss, self.trainable_variables), strict=True):
            total.assign_add(gradient)
        tf.cond(tf.equal(self.seen, self.batches), self.apply_sums, lambda: None)
        return {"loss": loss, "seen": self.seen}

    def apply_sums(self):
        gradients = [total / tf.cast(self.batches, tf.float32) for total in self.sums]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        self.seen.assign(0)
        for total in self.sums:
            total.assign(tf.zeros_like(total))


def accumulation_by_hand_in_the_step():
    keras.utils.set_random_seed(705)
    x, y = cancer(157)
    inputs = keras.Input((30,))
    model = Accumulating(3, inputs, layers.Dense(1)(layers.Dense(4, activation="relu")(inputs)))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=23, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class GaussNewton(keras.Model):
    """Solves for its step with the Jacobian of the rows' errors."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            errors = self(x, training=True)[:, 0] - y
        jacobians = tape.jacobian(errors, self.trainable_variables)
        j = tf.concat([tf.reshape(part, (tf.shape(x)[0], -1)) for part in jacobians], axis=1)
        matrix = tf.transpose(j) @ j + 5.0 * tf.eye(tf.shape(j)[1])
        step = tf.linalg.solve(matrix, tf.linalg.matvec(j, errors, transpose_a=True)[:, None])[:, 0]
        sizes = [int(np.prod(v.shape)) for v in self.trainable_variables]
        for variable, part in zip(self.trainable_variables, tf.split(step, sizes), strict=True):
            variable.assign_sub(tf.reshape(part, variable.shape))
        return {"loss": tf.reduce_mean(errors**2), "largest": tf.reduce_max(tf.abs(step))}


def gauss_newton_with_a_jacobian():
    keras.utils.set_random_seed(706)
    x, y = diabetes(121)
    inputs = keras.Input((10,))
    model = GaussNewton(inputs, layers.Dense(1)(layers.Dense(2, activation="tanh")(inputs)))
    model.compile()
    h = model.fit(x, y, batch_size=60, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Penalised(keras.Model):
    """L2 by hand: weights are used outside of any call."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            penalty = tf.add_n([tf.nn.l2_loss(v) for v in self.trainable_variables if len(v.shape) > 1])
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(y, y_pred)) + 0.05 * penalty
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "penalty": penalty}


def l2_by_hand_in_the_step():
    keras.utils.set_random_seed(707)
    x, y = cancer(139)
    inputs = keras.Input((30,))
    model = Penalised(inputs, layers.Dense(1, activation="sigmoid")(layers.Dense(4)(inputs)))
    model.compile(keras.optimizers.SGD(0.1))
    h = model.fit(x, y[:, None], batch_size=32, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Weighted(keras.Model):
    """Weighs samples by hand: divides by the weights' sum over the batch, and logs by hand."""

    def train_step(self, data):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            each = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
            loss = ops.sum(weights * each) / ops.sum(weights)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        right = ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(y, "int64")), "float32")
        rows = ops.cast(ops.shape(x)[0], "float32")
        return {"loss": loss, "accuracy": ops.sum(right) / rows, "rows": rows, "weight": ops.sum(weights)}


def _weighted_model(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((13,))
    model = Weighted(inputs, layers.Dense(3)(layers.Dense(5, activation="relu")(inputs)))
    model.compile(keras.optimizers.Adam(0.01))
    return model


def sample_weights_divided_by_their_sum():
    model = _weighted_model(708)
    x, y = wine(150)
    weights = np.random.RandomState(4).choice([0.0, 0.2, 1.0, 5.0], 150).astype("float32")
    h = model.fit(x, y, sample_weight=weights, batch_size=32, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def class_weights_in_ones_own_step():
    model = _weighted_model(709)
    x, y = wine(141)
    h = model.fit(x, y, class_weight={0: 0.5, 1: 1.0, 2: 4.0}, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Averaged(keras.Model):
    """Keeps an average of its weights and uses it for evaluation and prediction."""

    def __init__(self, net):
        super().__init__()
        self.net, self.average = net, keras.models.clone_model(net)
        self.average.set_weights(net.get_weights())
        self.average.trainable = False

    def call(self, x, training=False):
        return self.net(x, training=training) if training else self.average(x, training=False)

    def train_step(self, data):
        logs = super().train_step(data)
        for weight, average in zip(self.net.weights, self.average.weights, strict=True):
            average.assign(0.8 * average + 0.2 * weight)
        return logs


def average_of_weights_in_the_step():
    keras.utils.set_random_seed(710)
    x, y = iris(134)
    net = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(3)])
    model = Averaged(net)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.2), loss, metrics=["accuracy"])
    h = model.fit(x, y, batch_size=33, epochs=2, validation_split=0.25, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=50, verbose=0),
    }


class FineTuned(keras.Model):
    """A frozen base that is called with ``training=False`` under a head that learns."""

    def __init__(self, base):
        super().__init__()
        self.base, self.head = base, layers.Dense(10)
        self.base.trainable = False

    def call(self, x, training=False):
        return self.head(self.base(x, training=False))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            logits = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=logits)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "sure": tf.reduce_mean(tf.reduce_max(tf.nn.softmax(logits), axis=1))}


def frozen_base_in_ones_own_step():
    keras.utils.set_random_seed(711)
    x, y = digit_images(125)
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model = FineTuned(base)
    model.compile(
        keras.optimizers.SGD(0.2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
    )
    h = model.fit(x, y, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class SharpnessAware(keras.Model):
    """SAM: climbs along the whole batch's gradient, takes the gradient there, goes back and applies it."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        scale = 0.05 / (tf.linalg.global_norm(gradients) + 1e-12)
        climbs = [gradient * scale for gradient in gradients]
        for variable, climb in zip(self.trainable_variables, climbs, strict=True):
            variable.assign_add(climb)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            there = self.compute_loss(y=y, y_pred=y_pred)
        sharp = tape.gradient(there, self.trainable_variables)
        for variable, climb in zip(self.trainable_variables, climbs, strict=True):
            variable.assign_sub(climb)
        self.optimizer.apply_gradients(zip(sharp, self.trainable_variables, strict=True))
        return self.compute_metrics(x, y, y_pred) | {"loss": loss, "there": there}


def sharpness_aware_minimisation():
    keras.utils.set_random_seed(712)
    x, y = digits(137)
    inputs = keras.Input((64,))
    model = SharpnessAware(inputs, layers.Dense(10)(layers.Dense(7, activation="relu")(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.2), loss, metrics=["accuracy"])
    h = model.fit(x, y, batch_size=34, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class AdaptivelyClipped(keras.Model):
    """Clips each unit's gradient by the norm of its own weights."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        clipped = []
        for gradient, variable in zip(
            tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True
        ):
            axis = 0 if len(variable.shape) > 1 else None
            most = 0.02 * tf.maximum(tf.norm(tf.convert_to_tensor(variable), axis=axis, keepdims=True), 1e-3)
            norm = tf.maximum(tf.norm(gradient, axis=axis, keepdims=True), 1e-6)
            clipped.append(tf.where(norm < most, gradient, gradient * most / norm))
        self.optimizer.apply_gradients(zip(clipped, self.trainable_variables, strict=True))
        return self.compute_metrics(x, y, y_pred) | {"loss": loss}


def adaptive_clipping_unit_by_unit():
    keras.utils.set_random_seed(713)
    x, y = wine(127)
    inputs = keras.Input((13,))
    model = AdaptivelyClipped(inputs, layers.Dense(3)(layers.Dense(5, activation="relu")(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
    h = model.fit(x, y, batch_size=41, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class UncertainTasks(keras.Model):
    """Several tasks, weighed by variances that are learnt and used in the loss only."""

    def __init__(self):
        super().__init__()
        self.trunk = layers.Dense(6, activation="relu")
        self.kind, self.proof = layers.Dense(3), layers.Dense(1)
        self.log_variances = self.add_weight(shape=(2,), initializer="zeros", name="log_variances")

    def call(self, x):
        hidden = self.trunk(x)
        return {"kind": self.kind(hidden), "proof": self.proof(hidden)}

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            out = self(x, training=True)
            kinds = keras.losses.sparse_categorical_crossentropy(y["kind"], out["kind"], from_logits=True)
            tasks = tf.stack([tf.reduce_mean(kinds), tf.reduce_mean((out["proof"][:, 0] - y["proof"]) ** 2)])
            loss = tf.reduce_sum(tf.exp(-self.log_variances) * tasks + self.log_variances)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "kind": tasks[0], "proof": tasks[1]}


def two_tasks_and_learnt_weights_of_their_losses():
    keras.utils.set_random_seed(714)
    x, y = wine(147)
    model = UncertainTasks()
    model.compile(keras.optimizers.Adam(0.01))
    targets = {"kind": y, "proof": x[:, 0]}
    h = model.fit(x[:, 1:], targets, batch_size=37, epochs=2, verbose=0)
    predicted = model.predict(x[:, 1:], batch_size=60, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "predictions": predicted}


class Centres(keras.Model):
    """Pulls rows towards centres of their classes, which move with the step."""

    def __init__(self):
        super().__init__()
        self.code, self.head = layers.Dense(4, activation="tanh"), layers.Dense(10)
        self.centres = self.add_weight(shape=(10, 4), initializer="zeros", trainable=False, name="centres")

    def call(self, x):
        code = self.code(x)
        return code, self.head(code)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            code, logits = self(x, training=True)
            mine = tf.gather(self.centres, y)
            told = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = tf.reduce_mean(told) + 0.1 * tf.nn.l2_loss(code - mine)  # half the sum over the batch
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        _, where, counts = tf.unique_with_counts(y)
        share = tf.cast(tf.gather(counts, where) + 1, tf.float32)[:, None]
        self.centres.assign(tf.tensor_scatter_nd_sub(self.centres, y[:, None], 0.5 * (mine - code) / share))
        return {"loss": loss, "told": tf.reduce_mean(told)}


def centres_of_classes_that_move():
    keras.utils.set_random_seed(715)
    x, y = digits(143)
    model = Centres()
    model.compile(keras.optimizers.SGD(0.05))
    h = model.fit(x, y, batch_size=36, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class MarginHead(keras.Model):
    """A margin softmax: the last weights are used outside of a call, normalised."""

    def __init__(self):
        super().__init__()
        self.body = layers.Dense(5)
        self.prototypes = self.add_weight(shape=(5, 3), initializer="glorot_uniform", name="prototypes")

    def call(self, x):
        return self.body(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        code = tf.math.l2_normalize(y_pred, axis=1)
        cosines = code @ tf.math.l2_normalize(self.prototypes, axis=0)
        logits = 4.0 * (cosines - 0.2 * tf.one_hot(y, 3))
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))


def margin_loss_with_weights_of_its_own():
    keras.utils.set_random_seed(716)
    x, y = iris(138)
    model = MarginHead()
    model.compile(keras.optimizers.Adagrad(0.1))
    h = model.fit(x, y, batch_size=34, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class SmoothGradients(keras.Model):
    """R1: penalises the slope at the rows themselves, differentiated twice."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                y_pred = self(x, training=True)
                summed = tf.reduce_sum(y_pred)
            slopes = inner.gradient(summed, x)
            penalty = tf.reduce_mean(tf.reduce_sum(slopes**2, axis=1))
            loss = self.compute_loss(y=y, y_pred=y_pred) + 0.5 * penalty
        self.optimizer.apply(outer.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "penalty": penalty}


def slope_penalty_in_the_step():
    keras.utils.set_random_seed(717)
    x, y = diabetes(137)
    inputs = keras.Input((10,))
    model = SmoothGradients(inputs, layers.Dense(1)(layers.Dense(5, activation="tanh")(inputs)))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    h = model.fit(x, y, batch_size=34, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class SeveralUpdates(keras.Model):
    """Cuts the batch into three by itself and updates after each."""

    def train_step(self, data):
        x, y = data
        losses = []
        for part in range(3):
            rows = slice(part, None, 3)
            with tf.GradientTape() as tape:
                y_pred = self(x[rows], training=True)
                loss = self.compute_loss(y=y[rows], y_pred=y_pred)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            losses.append(loss)
        return {"loss": losses[0], "last": losses[-1]}


def several_updates_from_one_batch():
    keras.utils.set_random_seed(718)
    x, y = diabetes(141)
    inputs = keras.Input((10,))
    model = SeveralUpdates(inputs, layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    h = model.fit(x, y, batch_size=47, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class TellsItself(keras.Model):
    """Evaluates and predicts by hand: a ratio of sums over the batch, ranks within the batch."""

    def test_step(self, data):
        x, y = data
        errors = tf.abs(self(x, training=False)[:, 0] - y)
        there = tf.cast(y > 0, tf.float32)
        return {"error": tf.reduce_sum(errors * there) / tf.reduce_sum(there), "rows": tf.shape(x)[0]}

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        out = self(x, training=False)[:, 0]
        return {"value": out, "place": tf.argsort(tf.argsort(out)), "above": out - tf.reduce_mean(out)}


def evaluation_and_prediction_by_hand():
    keras.utils.set_random_seed(719)
    x, y = diabetes(152)
    inputs = keras.Input((10,))
    model = TellsItself(inputs, layers.Dense(1)(layers.Dense(4, activation="relu")(inputs)))
    model.compile("sgd", "mse")
    h = model.fit(x, y, batch_size=38, epochs=1, validation_data=(x[:71], y[:71]), verbose=0)
    return {
        "history": h.history,
        "evaluate": model.evaluate(x, y, batch_size=45, return_dict=True, verbose=0),
        "predictions": model.predict(x, batch_size=45, verbose=0),
    }


class OwnMetrics(keras.Model):
    """Overrides ``compute_metrics`` with a number that is a ratio over the batch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ratio = keras.metrics.Mean(name="ratio")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        self.ratio.update_state(ops.std(y_pred) / (ops.std(y) + 1e-6))
        results["ratio"] = self.ratio.result()
        return results


def metrics_overridden_with_a_ratio():
    keras.utils.set_random_seed(720)
    x, y = diabetes(163)
    inputs = keras.Input((10,))
    model = OwnMetrics(inputs, layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    h = model.fit(x, y[:, None], batch_size=41, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def triplets_within_the_batch_in_a_loss_function():
    keras.utils.set_random_seed(721)
    x, y = iris(144)

    def hardest(y_true, y_pred):  # one number per row, which looks at the other rows
        apart = tf.reduce_sum((y_pred[:, None] - y_pred[None]) ** 2, axis=-1)
        same = tf.equal(tf.reshape(y_true, (-1, 1)), tf.reshape(y_true, (1, -1)))
        far = tf.reduce_max(tf.where(same, apart, 0.0), axis=1)
        near = tf.reduce_min(tf.where(same, 1e3, apart), axis=1)
        return tf.nn.softplus(far - near)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.05), hardest)
    h = model.fit(x, y, batch_size=36, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def overlap_of_masks_over_the_batch():
    keras.utils.set_random_seed(722)
    x, _ = digit_images(106)
    masks = (x > 0.5).astype("float32")

    def dice(y_true, y_pred):
        y_true, y_pred = ops.reshape(y_true, (-1,)), ops.reshape(y_pred, (-1,))
        return (2 * ops.sum(y_true * y_pred) + 1) / (ops.sum(y_true) + ops.sum(y_pred) + 1)

    def dice_loss(y_true, y_pred):
        return 1 - dice(y_true, y_pred)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(3, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), dice_loss, metrics=[dice])
    h = model.fit(0.7 * x, masks, batch_size=27, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Places(layers.Layer):
    """Embeds tokens, and the places they stand at; the latter do not depend on the batch."""

    def __init__(self, length, tokens, width):
        super().__init__()
        self.length = length
        self.words, self.places = layers.Embedding(tokens, width), layers.Embedding(length, width)

    def call(self, x):
        return self.words(x) + self.places(ops.arange(self.length))


def _placed(optimizer, seed):
    keras.utils.set_random_seed(seed)
    tokens, y = digit_tokens(134)
    model = keras.Sequential(
        [keras.Input((16,), dtype="int32"), Places(16, 17, 4), layers.Flatten(), layers.Dense(10)]
    )
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    h = model.fit(tokens, y, batch_size=33, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def positions_under_adam():
    return _placed(keras.optimizers.Adam(0.01), 723)


def positions_under_adagrad():
    return _placed(keras.optimizers.Adagrad(0.1), 724)


class TiedEmbedding(keras.Model):
    """One table reads tokens and, transposed, tells them."""

    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(17, 5)
        self.mixer = layers.Dense(5, activation="tanh")

    def call(self, tokens):
        hidden = self.mixer(self.table(tokens))
        return ops.matmul(hidden, ops.transpose(self.table.embeddings))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        each = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        there = ops.cast(y > 0, "float32")
        return ops.sum(each * there) / ops.sum(there)


def table_that_reads_and_tells():
    keras.utils.set_random_seed(725)
    tokens, _ = digit_tokens(126)
    model = TiedEmbedding()
    model.compile(keras.optimizers.Adam(0.01))
    h = model.fit(tokens[:, :-1], tokens[:, 1:], batch_size=32, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Backwards(layers.Layer):
    """Turns gradients around on their way back."""

    def call(self, x):
        @tf.custom_gradient
        def turned(x):
            return tf.identity(x), lambda upstream: -0.3 * upstream

        return turned(x)


class OfTwoDomains(keras.Model):
    """Learns to classify while it unlearns which of two sources a row is from."""

    def __init__(self):
        super().__init__()
        self.code, self.kind = layers.Dense(6, activation="relu"), layers.Dense(10)
        self.domain = keras.Sequential([Backwards(), layers.Dense(2)])
        self.kind_loss = keras.metrics.Mean(name="kind_loss")
        self.domain_loss = keras.metrics.Mean(name="domain_loss")

    @property
    def metrics(self):
        return [self.kind_loss, self.domain_loss]

    def train_step(self, data):
        (source, labels), target = data
        with tf.GradientTape() as tape:
            codes = self.code(tf.concat([source, target], axis=0))
            told = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, self.kind(codes[: tf.shape(source)[0]])
            )
            side = tf.concat(
                [tf.zeros(tf.shape(source)[0], tf.int32), tf.ones(tf.shape(target)[0], tf.int32)], 0
            )
            guessed = tf.nn.sparse_softmax_cross_entropy_with_logits(side, self.domain(codes))
            loss = tf.reduce_mean(told) + tf.reduce_mean(guessed)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.kind_loss.update_state(told)
        self.domain_loss.update_state(guessed)
        return {m.name: m.result() for m in self.metrics}


def domains_told_apart_backwards():
    keras.utils.set_random_seed(726)
    x, y = digits(160)
    source = tf.data.Dataset.from_tensor_slices((x[:90], y[:90])).batch(30)
    target = tf.data.Dataset.from_tensor_slices(1 - x[90:]).batch(23)
    model = OfTwoDomains()
    model.compile(keras.optimizers.SGD(0.1))
    h = model.fit(tf.data.Dataset.zip((source, target)), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def metric_that_returns_a_python_number():
    keras.utils.set_random_seed(727)
    x, y = wine(123)

    def classes(y_true, y_pred):
        return float(y_pred.shape[-1])

    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[classes, "accuracy"])
    h = model.fit(x, y, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y, batch_size=50, verbose=0)}


class Autoregressive(keras.Model):
    """A recurrent cell unrolled by hand in the step, teacher-forced, one loss per place."""

    def __init__(self, width=6):
        super().__init__()
        self.table, self.cell, self.head = (
            layers.Embedding(17, width),
            layers.GRUCell(width),
            layers.Dense(17),
        )
        self.width = width

    def train_step(self, tokens):
        with tf.GradientTape() as tape:
            state, total, there = tf.zeros((tf.shape(tokens)[0], self.width)), 0.0, 0.0
            for place in range(4):
                out, (state,) = self.cell(self.table(tokens[:, place]), [state])
                wanted = tokens[:, place + 1]
                mask = tf.cast(wanted > 0, tf.float32)
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, self.head(out))
                total += tf.reduce_sum(each * mask)
                there += tf.reduce_sum(mask)
            loss = total / there
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss, "places": there}


def cell_unrolled_by_hand():
    keras.utils.set_random_seed(728)
    tokens, _ = digit_tokens(110)
    model = Autoregressive()
    model.compile(keras.optimizers.SGD(0.2))
    h = model.fit(tokens, batch_size=37, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}
