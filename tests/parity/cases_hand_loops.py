# ruff: noqa: D103
"""Training loops written by hand, over whatever data, without ``fit`` and without ``dataset_fn``."""

import copy

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digits, iris, wine


def loop_over_slices_of_arrays():
    keras.utils.set_random_seed(801)
    x, y = diabetes(130)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    optimizer, curve = keras.optimizers.Adam(0.02), []
    for _ in range(2):
        for start in range(0, len(x), 37):
            xb, yb = x[start : start + 37], y[start : start + 37]
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(xb)[:, 0] - yb) ** 2)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            curve.append(float(loss))
    return {"curve": curve, "weights": model.get_weights()}


def loop_of_the_guide_with_metrics_and_validation():
    keras.utils.set_random_seed(802)
    x, y = digits(190)
    train = tf.data.Dataset.from_tensor_slices((x[:140], y[:140])).shuffle(140, seed=2).batch(32)
    check = tf.data.Dataset.from_tensor_slices((x[140:], y[140:])).batch(21)
    penalty = keras.regularizers.L2(0.01)
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(8, activation="relu", kernel_regularizer=penalty), layers.Dense(10)]
    )
    optimizer = keras.optimizers.SGD(0.1)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    train_acc, val_acc = keras.metrics.SparseCategoricalAccuracy(), keras.metrics.SparseCategoricalAccuracy()

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_fn(y, logits) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply(gradients, model.trainable_weights)
        train_acc.update_state(y, logits)
        return loss

    @tf.function
    def test_step(x, y):
        val_acc.update_state(y, model(x, training=False))

    curve, scores = [], []
    for _ in range(2):
        for xb, yb in train:
            curve.append(float(train_step(xb, yb)))
        for xb, yb in check:
            test_step(xb, yb)
        scores.append((float(train_acc.result()), float(val_acc.result())))
        train_acc.reset_state()
        val_acc.reset_state()
    return {"curve": curve, "scores": scores, "weights": model.get_weights()}


def loop_over_two_datasets_zipped_in_python():
    keras.utils.set_random_seed(803)
    x, y = digits(150)
    told = tf.data.Dataset.from_tensor_slices((x[:60], y[:60])).batch(20)
    untold = tf.data.Dataset.from_tensor_slices(x[60:]).batch(31)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(10)])
    optimizer, curve = keras.optimizers.SGD(0.2), []
    for _ in range(2):
        for (xb, yb), free in zip(told, untold, strict=False):
            with tf.GradientTape() as tape:
                known = tf.nn.sparse_softmax_cross_entropy_with_logits(yb, model(xb, training=True))
                guess = tf.nn.softmax(model(free, training=True))
                vague = -tf.reduce_mean(tf.reduce_sum(guess * tf.math.log(guess + 1e-7), axis=1))
                loss = tf.reduce_mean(known) + 0.1 * vague
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            curve.append(float(loss))
    return {"curve": curve, "weights": model.get_weights()}


def loop_beside_an_iterator_left_open():
    keras.utils.set_random_seed(804)
    x, y = wine(121)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(30)
    first, _ = next(iter(train))  # a look at the shapes
    left_open = iter(train.map(lambda x, y: x * 2))
    next(left_open)
    model = keras.Sequential([keras.Input((first.shape[1],)), layers.Dense(3)])
    optimizer, curve = keras.optimizers.Adam(0.05), []
    for xb, yb in train:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(yb, model(xb)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        curve.append(float(loss))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(x, y, batch_size=37, epochs=1, verbose=0)
    rest = np.concatenate([np.asarray(part) for part in left_open])
    return {"curve": curve, "history": h.history, "rest": rest, "weights": model.get_weights()}


def loop_with_l2_by_hand():
    keras.utils.set_random_seed(805)
    x, y = cancer(128)
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(200, seed=9).batch(33)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    optimizer, curve = keras.optimizers.SGD(0.1, momentum=0.5), []

    @tf.function
    def step(xb, yb):
        with tf.GradientTape() as tape:
            logits = model(xb, training=True)[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=yb, logits=logits))
            loss += 0.02 * sum(tf.reduce_sum(w**2) for w in model.trainable_variables if "kernel" in w.name)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for _ in range(2):
        curve += [float(step(xb, yb)) for xb, yb in train]
    return {"curve": curve, "weights": model.get_weights()}


def loop_with_a_focal_loss_by_hand():
    keras.utils.set_random_seed(806)
    x, y = digits(137)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(7, activation="relu"), layers.Dense(10)])
    optimizer, curve = keras.optimizers.Adam(0.01), []
    share = np.bincount(y, minlength=10) / len(y)

    def focal(labels, logits, gamma=2.0):
        chances = tf.nn.softmax(logits)
        hot = tf.one_hot(labels, 10)
        alpha = tf.gather(tf.constant(1 - share, tf.float32), labels)
        told = tf.reduce_sum(hot * chances, axis=1)
        hard = alpha * (1 - told) ** gamma
        return tf.reduce_sum(-hard * tf.math.log(told + 1e-7)) / tf.reduce_sum(
            alpha
        )  # normalised by the batch

    @tf.function
    def step(xb, yb):
        with tf.GradientTape() as tape:
            loss = focal(yb, model(xb, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    order = np.random.RandomState(0)
    for _ in range(2):
        mixed = order.permutation(len(x))
        for start in range(0, len(x), 45):
            rows = mixed[start : start + 45]
            curve.append(float(step(tf.constant(x[rows]), tf.constant(y[rows]))))
    return {"curve": curve, "weights": model.get_weights()}


def loop_counting_what_is_right_by_hand():
    keras.utils.set_random_seed(807)
    x, y = iris(131)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(3)])
    optimizer, history = keras.optimizers.Adam(0.05), {"loss": [], "accuracy": [], "rows": []}
    for _ in range(3):
        total, right, rows, guesses = 0.0, 0, 0, []
        for xb, yb in train:
            with tf.GradientTape() as tape:
                logits = model(xb, training=True)
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(yb, logits))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            total += float(loss) * len(yb)
            right += int(np.sum(np.argmax(logits.numpy(), axis=1) == yb.numpy()))
            rows += len(yb)
            guesses.extend(np.argmax(logits, axis=1))
        history["loss"].append(total / rows)
        history["accuracy"].append(right / rows)
        history["rows"].append(rows)
    return {"history": history, "guesses": np.array(guesses), "weights": model.get_weights()}


def loop_stopping_early_by_hand():
    keras.utils.set_random_seed(808)
    x, y = diabetes(180)
    train = tf.data.Dataset.from_tensor_slices((x[:130], y[:130])).shuffle(130, seed=4).batch(32)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    optimizer = keras.optimizers.Adam(0.05)

    @tf.function
    def step(xb, yb):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(xb, training=True)[:, 0] - yb) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    best, best_weights, waited, curve = np.inf, None, 0, []
    for _ in range(12):
        for xb, yb in train:
            step(xb, yb)
        error = float(np.mean((model(x[130:]).numpy()[:, 0] - y[130:]) ** 2))
        curve.append(error)
        if error < best - 0.02:
            best, best_weights, waited = error, model.get_weights(), 0
        else:
            waited += 1
            if waited == 2:
                break
    model.set_weights(best_weights)
    return {"curve": curve, "epochs": len(curve), "weights": model.get_weights()}


def loop_scheduling_its_rate_by_hand():
    keras.utils.set_random_seed(809)
    x, y = wine(133)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    curve, rates, step, before = [], [], 0, np.inf
    for _ in range(3):
        for start in range(0, len(x), 44):
            if step < 4:  # warms up
                optimizer.learning_rate.assign(0.125 * (step + 1))
            with tf.GradientTape() as tape:
                loss = loss_fn(y[start : start + 44], model(x[start : start + 44], training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            if step >= 4 and float(loss) > before:
                optimizer.learning_rate = float(optimizer.learning_rate) * 0.3
            before, step = float(loss), step + 1
            curve.append(before)
            rates.append(float(optimizer.learning_rate))
    return {"curve": curve, "rates": rates, "weights": model.get_weights()}


def loop_evaluated_by_hand():
    keras.utils.set_random_seed(810)
    x, y = cancer(190)
    train = tf.data.Dataset.from_tensor_slices((x[:120], y[:120])).batch(25)
    check = tf.data.Dataset.from_tensor_slices((x[120:], y[120:])).batch(27)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    optimizer, loss_fn = keras.optimizers.RMSprop(0.01), keras.losses.BinaryCrossentropy()
    loss_mean, auc, recall = keras.metrics.Mean(), keras.metrics.AUC(), keras.metrics.Recall()
    report = []
    for _ in range(2):
        for xb, yb in train:
            with tf.GradientTape() as tape:
                loss = loss_fn(yb[:, None], model(xb, training=True))
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        for metric in (loss_mean, auc, recall):
            metric.reset_state()
        predicted = []
        for xb, yb in check:
            out = model(xb, training=False)
            loss_mean.update_state(keras.losses.binary_crossentropy(yb[:, None], out))
            auc.update_state(yb[:, None], out)
            recall.update_state(yb[:, None], out)
            predicted.append(out.numpy())
        report.append([float(m.result()) for m in (loss_mean, auc, recall)])
    return {"report": report, "predictions": np.concatenate(predicted), "weights": model.get_weights()}


def loop_with_a_scaled_loss():
    keras.utils.set_random_seed(811)
    x, y = diabetes(119)
    x[60] *= 1e30  # one batch overflows
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(30)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    inner = keras.optimizers.SGD(0.05)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=256.0, dynamic_growth_steps=2)
    scales = []
    for _ in range(2):
        for xb, yb in train:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(xb, training=True)[:, 0] - yb) ** 2)
                scaled = optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            scales.append(float(optimizer.dynamic_scale))
    return {"scales": scales, "steps": int(inner.iterations), "weights": model.get_weights()}


def loop_in_mixed_precision():
    keras.utils.set_random_seed(812)
    x, y = wine(96)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        logits = layers.Dense(3, dtype="float32")
        model = keras.Sequential([keras.Input((13,)), layers.Dense(4, activation="relu"), logits])
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**20)

        @tf.function
        def step(xb, yb):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(yb, model(xb)))
                scaled = optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        losses = [float(step(x[i : i + 32], y[i : i + 32])) for _ in range(8) for i in range(0, 96, 32)]
        half = model.layers[0](x[:2]).dtype.name
    finally:
        keras.mixed_precision.set_global_policy(before)
    return {  # half precision rounds to three digits: what is counted must agree
        "first": losses[:1],
        "fell": float(optimizer.dynamic_scale) < 2.0**20,
        "learnt": losses[-1] < 0.8 * losses[0],
        "half": half,
    }


def loop_averaging_weights_by_hand():
    keras.utils.set_random_seed(813)
    x, y = diabetes(125)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    slow = [tf.Variable(w) for w in model.trainable_weights]
    optimizer = keras.optimizers.SGD(0.1)
    for _ in range(2):
        for xb, yb in train:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.abs(model(xb)[:, 0] - yb))
            optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
            for average, weight in zip(slow, model.trainable_weights, strict=True):
                average.assign(0.9 * average + 0.1 * weight)
    fast = model.get_weights()
    model.set_weights([w.numpy() for w in slow])
    return {"weights": fast + model.get_weights(), "predictions": model.predict(x, batch_size=50, verbose=0)}


def loop_accumulating_by_hand():
    keras.utils.set_random_seed(814)
    x, y = digits(150)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(19)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(6, activation="relu"), layers.Dense(10)])
    optimizer = keras.optimizers.Adam(0.01)
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    sums, rows, norms = None, 0, []
    for number, (xb, yb) in enumerate(train, start=1):
        with tf.GradientTape() as tape:
            loss = loss_fn(yb, model(xb, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        sums = gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
        rows += len(xb)
        if number % 3 == 0 or number == len(train):
            mean, norm = tf.clip_by_global_norm([total / rows for total in sums], 0.5)
            optimizer.apply_gradients(zip(mean, model.trainable_variables, strict=True))
            norms.append(float(norm))
            sums, rows = None, 0
    return {"curve": norms, "weights": model.get_weights()}


def loop_learning_to_learn():
    keras.utils.set_random_seed(815)
    x, y = diabetes(180)
    model = keras.Sequential([keras.Input((9,)), layers.Dense(6, activation="tanh"), layers.Dense(1)])
    optimizer, curve = keras.optimizers.Adam(0.01), []
    tasks = [x[:, 1] > 0, x[:, 1] <= 0]

    def error(xb, yb):
        return tf.reduce_mean((model(xb)[:, 0] - yb) ** 2)

    for round_ in range(3):  # MAML of the first order: the gradient after one step on each task
        start = model.get_weights()
        sums = [tf.zeros_like(v) for v in model.trainable_variables]
        total = 0.0
        for mask in tasks:
            mine = np.flatnonzero(mask)[round_ * 24 : (round_ + 1) * 24]
            support, query = mine[:13], mine[13:]
            with tf.GradientTape() as tape:
                inner = error(x[support][:, 1:], y[support])
            for v, g in zip(
                model.trainable_variables, tape.gradient(inner, model.trainable_variables), strict=True
            ):
                v.assign_sub(0.05 * g)
            with tf.GradientTape() as tape:
                outer = error(x[query][:, 1:], y[query])
            found = tape.gradient(outer, model.trainable_variables)
            sums = [a + b for a, b in zip(sums, found, strict=True)]
            total += float(outer)
            model.set_weights(start)
        optimizer.apply_gradients(zip(sums, model.trainable_variables, strict=True))
        curve.append(total)
    return {"curve": curve, "weights": model.get_weights()}


def loop_learning_to_learn_in_second_order():
    keras.utils.set_random_seed(816)
    x, y = diabetes(100)
    dense, scale = layers.Dense(1), keras.Variable(0.1, name="inner_rate")
    dense.build((None, 10))
    optimizer, curve = keras.optimizers.SGD(0.05), []
    variables = [dense.kernel, dense.bias, scale]
    for start in range(0, 100, 50):
        support, query = slice(start, start + 23), slice(start + 23, start + 50)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_mean((dense(x[support])[:, 0] - y[support]) ** 2)
            slope_kernel, slope_bias = inner.gradient(loss, [dense.kernel, dense.bias])
            kernel = dense.kernel - scale * slope_kernel
            bias = dense.bias - scale * slope_bias
            after = tf.reduce_mean(((x[query] @ kernel + bias)[:, 0] - y[query]) ** 2)
        optimizer.apply_gradients(zip(outer.gradient(after, variables), variables, strict=True))
        curve.append(float(after))
    return {"curve": curve, "weights": [v.numpy() for v in variables]}


def loop_with_gradients_of_every_sample():
    keras.utils.set_random_seed(817)
    x, y = iris(90)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    optimizer, norms = keras.optimizers.SGD(0.5), []
    for start in range(0, len(x), 30):
        with tf.GradientTape() as tape:
            logits = model(x[start : start + 30], training=True)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(y[start : start + 30], logits)
        found = tape.jacobian(each, model.trainable_variables)
        flat = tf.concat([tf.reshape(part, (len(each), -1)) for part in found], axis=1)
        norm = tf.norm(flat, axis=1)
        shrink = tf.minimum(1.0, 0.5 / norm)  # as private training clips each sample
        clipped = [tf.einsum("i,i...->...", shrink, part) / len(each) for part in found]
        optimizer.apply_gradients(zip(clipped, model.trainable_variables, strict=True))
        norms.append(norm)
    return {"norms": norms, "weights": model.get_weights()}


def loop_of_a_generator_and_a_discriminator():
    keras.utils.set_random_seed(818)
    tf.random.set_seed(5)
    x, _ = digits(120)
    train = tf.data.Dataset.from_tensor_slices(x).shuffle(120, seed=6).batch(40)
    generator = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(64)]
    )
    discriminator = keras.Sequential(
        [keras.Input((64,)), layers.Dense(6), layers.LeakyReLU(), layers.Dense(1)]
    )
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    g_optimizer, d_optimizer = keras.optimizers.SGD(0.02), keras.optimizers.SGD(0.02)

    def train_step(images, noise):
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = generator(noise, training=True)
            real_out, fake_out = discriminator(images, training=True), discriminator(fake, training=True)
            g_loss = cross_entropy(tf.ones_like(fake_out), fake_out)
            d_loss = cross_entropy(tf.ones_like(real_out), real_out)
            d_loss += cross_entropy(tf.zeros_like(fake_out), fake_out)
        of_g = g_tape.gradient(g_loss, generator.trainable_variables)
        of_d = d_tape.gradient(d_loss, discriminator.trainable_variables)
        g_optimizer.apply_gradients(zip(of_g, generator.trainable_variables, strict=True))
        d_optimizer.apply_gradients(zip(of_d, discriminator.trainable_variables, strict=True))
        return float(g_loss), float(d_loss)

    random = np.random.RandomState(11)
    curve = [train_step(images, random.randn(40, 4).astype("float32")) for _ in range(2) for images in train]
    return {"curve": curve, "weights": generator.get_weights() + discriminator.get_weights()}


def loop_of_two_compiled_models():
    keras.utils.set_random_seed(819)
    x, _ = digits(96)
    generator = keras.Sequential([keras.Input((4,)), layers.Dense(64, activation="sigmoid")])
    critic = keras.Sequential(
        [keras.Input((64,)), layers.Dense(6, activation="tanh"), layers.Dense(1, "sigmoid")]
    )
    critic.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    critic.trainable = False
    both = keras.Sequential([keras.Input((4,)), generator, critic])
    both.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    random, curve = np.random.RandomState(12), []
    for start in range(0, 96, 32):
        latent = random.randn(32, 4).astype("float32")
        fake = generator.predict(latent, verbose=0)
        critic.trainable = True
        real_loss = critic.train_on_batch(x[start : start + 32], np.ones((32, 1)))
        fake_loss = critic.train_on_batch(fake, np.zeros((32, 1)))
        critic.trainable = False
        curve.append([*real_loss, *fake_loss, both.train_on_batch(latent, np.ones((32, 1)))])
    return {"curve": curve, "weights": both.get_weights()}


def loop_over_train_on_batch_with_class_weights():
    keras.utils.set_random_seed(820)
    x, y = wine(140)
    model = keras.Sequential(
        [keras.Input((13,)), layers.Dense(5, activation="relu"), layers.Dense(3, "softmax")]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    order, curve, checks = np.random.RandomState(1), [], []
    for _ in range(2):
        mixed = order.permutation(len(x))
        for rows in np.array_split(mixed, 4):
            curve.append(model.train_on_batch(x[rows], y[rows], class_weight={0: 1.0, 1: 3.0, 2: 0.5}))
        checks.append(model.evaluate(x, y, batch_size=60, verbose=0))
    return {"curve": curve, "checks": checks, "weights": model.get_weights()}


def loop_hardening_its_inputs():
    keras.utils.set_random_seed(821)
    x, y = cancer(111)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    optimizer, loss_fn = keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True)
    curve, hard = [], []
    for start in range(0, len(x), 37):
        xb, yb = tf.constant(x[start : start + 37]), y[start : start + 37, None]
        with tf.GradientTape() as tape:
            tape.watch(xb)
            loss = loss_fn(yb, model(xb))
        harder = xb + 0.1 * tf.sign(tape.gradient(loss, xb))
        with tf.GradientTape() as tape:
            loss = 0.5 * loss_fn(yb, model(xb, training=True)) + 0.5 * loss_fn(
                yb, model(harder, training=True)
            )
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        curve.append(float(loss))
        hard.append(harder)
    return {"curve": curve, "hard": np.concatenate(hard), "weights": model.get_weights()}


def loop_whose_loss_holds_derivatives():
    keras.utils.set_random_seed(822)
    t = np.linspace(0, 2, 61).astype("float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    optimizer, curve = keras.optimizers.Adam(0.01), []

    @tf.function
    def step(t):  # u'' = -u, u(0) = 1: a network that obeys an equation
        with tf.GradientTape() as tape:
            with tf.GradientTape() as second:
                second.watch(t)
                with tf.GradientTape() as first:
                    first.watch(t)
                    u = model(t)
                slope = first.gradient(u, t)
            curvature = second.gradient(slope, t)
            start = model(tf.zeros((1, 1)))
            loss = tf.reduce_mean((curvature + u) ** 2) + (start[0, 0] - 1.0) ** 2
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for _ in range(6):
        curve.append(float(step(tf.constant(t))))
    return {"curve": curve, "weights": model.get_weights()}


def loop_of_scipy_over_flat_weights():
    keras.utils.set_random_seed(823)
    x, y = diabetes(113)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])
    shapes = [w.shape for w in model.get_weights()]
    places = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def load(flat):
        parts = np.split(flat.astype("float32"), places)
        model.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])

    def value_and_slope(flat):
        load(flat)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x)[:, 0] - y) ** 2)
        slopes = tape.gradient(loss, model.trainable_variables)
        return float(loss), np.concatenate([g.numpy().ravel() for g in slopes]).astype("float64")

    flat = np.concatenate([w.ravel() for w in model.get_weights()])
    found = scipy.optimize.minimize(
        value_and_slope, flat, jac=True, method="L-BFGS-B", options={"maxiter": 4}
    )
    load(found.x)
    return {"curve": [found.fun], "calls": found.nfev, "weights": model.get_weights()}


def loop_without_a_model():
    keras.utils.set_random_seed(824)
    x, y = diabetes(126)
    w, b = tf.Variable(tf.zeros((10, 1))), tf.Variable(0.0)
    curve = []
    for _ in range(2):
        for start in range(0, len(x), 42):
            xb, yb = x[start : start + 42], y[start : start + 42, None]
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((xb @ w + b - yb) ** 2)
            dw, db = tape.gradient(loss, [w, b])
            w.assign_sub(0.1 * dw)
            b.assign_sub(0.1 * db)
            curve.append(float(loss))
    return {"curve": curve, "weights": [w.numpy(), b.numpy()]}


def loop_over_layers_that_are_no_model():
    keras.utils.set_random_seed(825)
    x, y = digits(118)

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.norm, self.out = layers.Dense(8), layers.LayerNormalization(), layers.Dense(10)

        def __call__(self, x):
            return self.out(tf.nn.relu(self.norm(self.hidden(x))))

    net = Net()
    optimizer, curve = keras.optimizers.Adam(0.01), []
    net(x[:1])
    variables = net.hidden.trainable_weights + net.norm.trainable_weights + net.out.trainable_weights
    for start in range(0, len(x), 30):
        with tf.GradientTape() as tape:
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(
                y[start : start + 30], net(x[start : start + 30])
            )
            loss = tf.reduce_mean(each) + tf.math.reduce_std(each)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        curve.append(float(loss))
    return {"curve": curve, "weights": [v.numpy() for v in variables]}


def loop_between_two_fits():
    keras.utils.set_random_seed(826)
    x, y = wine(137)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss_fn, metrics=["accuracy"])
    first = model.fit(x, y, batch_size=34, epochs=1, verbose=0)
    for start in range(0, len(x), 50):
        with tf.GradientTape() as tape:
            loss = loss_fn(y[start : start + 50], model(x[start : start + 50], training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    second = model.fit(x, y, batch_size=45, epochs=1, validation_data=(x[:31], y[:31]), verbose=0)
    return {"first": first.history, "second": second.history, "weights": model.get_weights()}


def loop_of_a_policy():
    keras.utils.set_random_seed(827)
    x, y = iris(90)
    policy = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(3)])
    optimizer, random, rewards = keras.optimizers.Adam(0.02), np.random.RandomState(3), []
    for _ in range(2):
        for start in range(0, len(x), 30):
            xb, yb = x[start : start + 30], y[start : start + 30]
            chances = tf.nn.softmax(policy(xb)).numpy()
            actions = np.array([random.choice(3, p=p / p.sum()) for p in chances.astype("float64")])
            reward = (actions == yb).astype("float32")
            advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
            with tf.GradientTape() as tape:
                logs = tf.nn.log_softmax(policy(xb, training=True))
                taken = tf.reduce_sum(logs * tf.one_hot(actions, 3), axis=1)
                loss = -tf.reduce_sum(taken * advantage) / len(xb)
            optimizer.apply(tape.gradient(loss, policy.trainable_variables), policy.trainable_variables)
            rewards.append(float(reward.mean()))
    return {"rewards": rewards, "weights": policy.get_weights()}


def loop_with_noise_in_its_gradients():
    keras.utils.set_random_seed(828)
    x, y = cancer(104)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1)])
    optimizer, seed = keras.optimizers.SGD(0.1), keras.random.SeedGenerator(21)
    loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)
    curve = []
    for start in range(0, len(x), 26):
        with tf.GradientTape() as tape:
            loss = loss_fn(y[start : start + 26, None], model(x[start : start + 26]))
        gradients = [
            g + 0.05 * keras.random.normal(g.shape, seed=seed)
            for g in tape.gradient(loss, model.trainable_variables)
        ]
        optimizer.apply(gradients, model.trainable_variables)
        curve.append(float(loss))
    return {"curve": curve, "weights": model.get_weights()}


def loop_over_an_encoder_and_a_decoder():
    keras.utils.set_random_seed(829)
    x, _ = digits(101)
    encoder = keras.Sequential([keras.Input((64,)), layers.Dense(6, activation="relu")])
    decoder = keras.Sequential([keras.Input((6,)), layers.Dense(64)])
    optimizer, curve, codes = keras.optimizers.Adam(0.01), [], []
    train = tf.data.Dataset.from_tensor_slices(x).batch(29)
    variables = encoder.trainable_variables + decoder.trainable_variables
    for batch in train:
        with tf.GradientTape() as tape:
            code = encoder(batch, training=True)
            spread = code - tf.reduce_mean(code, axis=0)
            covariance = tf.transpose(spread) @ spread / tf.cast(tf.shape(code)[0], tf.float32)
            apart = covariance - tf.linalg.diag(tf.linalg.diag_part(covariance))
            loss = tf.reduce_mean((decoder(code, training=True) - batch) ** 2) + 0.1 * tf.reduce_sum(apart**2)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        curve.append(float(loss))
        codes.append(code.numpy())
    weights = encoder.get_weights() + decoder.get_weights()
    return {"curve": curve, "codes": np.concatenate(codes), "weights": weights}


def loop_keeping_its_best_model():
    keras.utils.set_random_seed(830)
    x, y = diabetes(128)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(32, drop_remainder=True).repeat()
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    optimizer, best, kept, curve = keras.optimizers.SGD(0.1), np.inf, None, []
    for number, (xb, yb) in enumerate(train):
        if number == 9:
            break
        with tf.GradientTape() as tape:
            losses = [
                tf.reduce_mean((model(xb)[:, 0] - yb) ** 2),
                0.1 * tf.reduce_sum(model.layers[-1].kernel ** 2),
            ]
        gradients = tape.gradient(losses, model.trainable_variables)  # of their sum
        optimizer.apply(gradients, model.trainable_variables)
        loss = float(sum(losses))
        curve.append(loss)
        if loss < best:
            best, kept = loss, copy.deepcopy(model.get_weights())
    return {"curve": curve, "weights": kept + model.get_weights()}


def loop_inside_a_graph():
    keras.utils.set_random_seed(831)
    x, y = iris(120)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(31)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    optimizer = keras.optimizers.SGD(0.2)
    optimizer.build(model.trainable_variables)

    @tf.function
    def epoch(data):
        total, rows = 0.0, 0
        for xb, yb in data:
            with tf.GradientTape() as tape:
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(yb, model(xb, training=True))
                loss = ops.mean(each)
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            total += tf.reduce_sum(each)
            rows += tf.shape(xb)[0]
        return total / tf.cast(rows, tf.float32)

    return {"curve": [float(epoch(train)) for _ in range(2)], "weights": model.get_weights()}
