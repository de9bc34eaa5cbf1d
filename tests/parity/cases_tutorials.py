# ruff: noqa: D103
"""Models as tutorials write them: their steps and losses look at the whole batch."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_images, digit_tokens, digits, iris


class TwoTowers(keras.Model):
    """Each query's own candidate is the right one among all candidates of the batch."""

    def __init__(self):
        super().__init__()
        self.queries = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(4)])
        self.candidates = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(4)])
        self.loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def call(self, inputs):
        return self.queries(inputs["query"]), self.candidates(inputs["candidate"])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        queries, candidates = y_pred
        scores = ops.matmul(queries, ops.transpose(candidates))
        return self.loss_fn(ops.arange(ops.shape(scores)[0]), scores)


def retrieval_with_in_batch_negatives():
    keras.utils.set_random_seed(601)
    x, _ = digits(173)
    model = TwoTowers()
    model.compile(keras.optimizers.Adagrad(0.05))
    halves = {"query": x[:, :32], "candidate": x[:, 32:]}
    h = model.fit(halves, batch_size=43, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Contrastive(keras.Model):
    """SimCLR: two views of every picture, each the other's only friend in the batch; a probe beside it."""

    def __init__(self, views):
        super().__init__()
        self.views, self.temperature = views, 0.5
        self.encoder = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(8),
            ]
        )
        self.head = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(6)])
        self.probe = keras.Sequential([keras.Input((8,)), layers.Dense(10)])

    def compile(self, contrastive_optimizer, probe_optimizer):
        super().compile()
        self.contrastive_optimizer, self.probe_optimizer = contrastive_optimizer, probe_optimizer
        self.probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.contrastive_tracker = keras.metrics.Mean(name="c_loss")
        self.contrastive_accuracy = keras.metrics.SparseCategoricalAccuracy(name="c_acc")
        self.probe_tracker = keras.metrics.Mean(name="p_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")

    @property
    def metrics(self):
        return [self.contrastive_tracker, self.contrastive_accuracy, self.probe_tracker, self.probe_accuracy]

    def contrastive_loss(self, one, two):
        one, two = ops.normalize(one, axis=1), ops.normalize(two, axis=1)
        likeness = ops.matmul(one, ops.transpose(two)) / self.temperature
        friends = ops.arange(ops.shape(one)[0])
        self.contrastive_accuracy.update_state(friends, likeness)
        self.contrastive_accuracy.update_state(friends, ops.transpose(likeness))
        there = keras.losses.sparse_categorical_crossentropy(friends, likeness, from_logits=True)
        back = keras.losses.sparse_categorical_crossentropy(
            friends, ops.transpose(likeness), from_logits=True
        )
        return ops.mean(there + back) / 2

    def train_step(self, data):
        pictures, labels = data
        one, two = (view(pictures, training=True) for view in self.views)
        with tf.GradientTape() as tape:
            a = self.head(self.encoder(one, training=True), training=True)
            b = self.head(self.encoder(two, training=True), training=True)
            loss = self.contrastive_loss(a, b)
        variables = self.encoder.trainable_weights + self.head.trainable_weights
        self.contrastive_optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )
        self.contrastive_tracker.update_state(loss)
        with tf.GradientTape() as tape:
            logits = self.probe(self.encoder(pictures, training=False), training=True)
            loss = self.probe_loss(labels, logits)
        variables = self.probe.trainable_weights
        self.probe_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.probe_tracker.update_state(loss)
        self.probe_accuracy.update_state(labels, logits)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data):
        pictures, labels = data
        logits = self.probe(self.encoder(pictures, training=False), training=False)
        self.probe_tracker.update_state(self.probe_loss(labels, logits))
        self.probe_accuracy.update_state(labels, logits)
        return {m.name: m.result() for m in self.metrics[2:]}


def simclr_with_a_probe():
    keras.utils.set_random_seed(602)
    x, y = digit_images(151)
    views = [layers.Lambda(lambda x: ops.flip(x, axis=2)), layers.Lambda(lambda x: 0.8 * x + 0.1)]
    model = Contrastive(views)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), keras.optimizers.Adam(0.01))
    h = model.fit(x, y, batch_size=37, epochs=2, validation_data=(x[:50], y[:50]), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def simclr_with_random_views():
    keras.utils.set_random_seed(603)
    x, y = digit_images(122)
    views = [
        keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1.0), layers.RandomFlip("horizontal")]),
        keras.Sequential([keras.Input((8, 8, 1)), layers.RandomTranslation(0.2, 0.2, seed=5)]),
    ]
    model = Contrastive(views)
    model.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.1))
    h = model.fit(x, y, batch_size=41, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class SupervisedContrastiveLoss(keras.losses.Loss):
    """Rows of one class are friends; as tutorials do, it overrides ``__call__``."""

    def __init__(self, temperature=0.5, name=None):
        super().__init__(name=name)
        self.temperature = temperature

    def __call__(self, labels, features, sample_weight=None):
        features = ops.normalize(features, axis=1)
        logits = ops.matmul(features, ops.transpose(features)) / self.temperature
        labels = ops.reshape(labels, (-1, 1))
        same = ops.cast(ops.equal(labels, ops.transpose(labels)), "float32")
        targets = same / ops.sum(same, axis=1, keepdims=True)
        return ops.mean(keras.losses.categorical_crossentropy(targets, logits, from_logits=True))


def supervised_contrastive_then_a_classifier():
    keras.utils.set_random_seed(604)
    x, y = digits(164)
    encoder = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="relu"), layers.Dense(6)])
    encoder.compile(keras.optimizers.Adam(0.005), SupervisedContrastiveLoss(0.5))
    first = encoder.fit(x, y, batch_size=38, epochs=2, verbose=0)
    encoder.trainable = False
    classifier = keras.Sequential([keras.Input((64,)), encoder, layers.Dense(10, activation="softmax")])
    classifier.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    second = classifier.fit(x, y, batch_size=55, epochs=1, verbose=0)
    return {"first": first.history, "second": second.history, "weights": classifier.get_weights()}


class Triplets(keras.Model):
    """A siamese network with one loss per sample, which the tape takes as it is."""

    def __init__(self, embedding, margin=0.5):
        super().__init__()
        self.embedding, self.margin = embedding, margin
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def call(self, inputs):
        anchor, positive, negative = (self.embedding(part) for part in inputs)
        near = ops.sum(ops.square(anchor - positive), axis=-1)
        return near, ops.sum(ops.square(anchor - negative), axis=-1)

    def _compute_loss(self, data):
        near, far = self(data)
        return ops.maximum(near - far + self.margin, 0.0)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self._compute_loss(data)
        gradients = tape.gradient(loss, self.embedding.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.embedding.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def test_step(self, data):
        self.loss_tracker.update_state(self._compute_loss(data))
        return {"loss": self.loss_tracker.result()}


def siamese_triplets_with_one_loss_per_sample():
    keras.utils.set_random_seed(605)
    x, y = digits(400)
    order = np.argsort(y, kind="stable")
    anchors, positives = x[order][0:300:2], x[order][1:301:2]
    triplets = tf.data.Dataset.from_tensor_slices((anchors, positives, x[order][::-1][:150]))
    triplets = triplets.shuffle(150, seed=3).batch(32)
    model = Triplets(
        keras.Sequential([keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(4)])
    )
    model.compile(keras.optimizers.SGD(0.0005))
    h = model.fit(triplets, epochs=2, validation_data=triplets.take(2), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def siamese_pairs_with_a_margin():
    keras.utils.set_random_seed(606)
    x, y = digit_images(202)

    def contrastive(margin=1):
        def loss(y_true, y_pred):
            square = ops.square(y_pred)
            beyond = ops.square(ops.maximum(margin - y_pred, 0))
            return ops.mean((1 - y_true) * square + y_true * beyond)

        return loss

    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(3, 3, activation="tanh")(layers.BatchNormalization()(inputs))
    hidden = layers.BatchNormalization()(layers.Flatten()(layers.AveragePooling2D(2)(hidden)))
    embedding = keras.Model(inputs, layers.Dense(6, activation="tanh")(hidden))
    left, right = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    apart = layers.Lambda(lambda v: ops.sqrt(ops.sum(ops.square(v[0] - v[1]), axis=1, keepdims=True) + 1e-6))
    joined = layers.BatchNormalization()(apart([embedding(left), embedding(right)]))
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(joined))
    model.compile(keras.optimizers.RMSprop(0.002), contrastive(margin=1), metrics=["accuracy"])
    other = (y[:101] != y[101:]).astype("float32")[:, None]
    h = model.fit([x[:101], x[101:]], other, batch_size=25, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class ClassPairs(keras.utils.PyDataset):
    """Batches of two pictures of every class: ``(2, classes, pixels)``."""

    def __init__(self, x, y, batches):
        super().__init__()
        self.of, self.x, self.batches = [np.flatnonzero(y == digit) for digit in range(10)], x, batches

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        return np.stack([self.x[[rows[2 * index + side] for rows in self.of]] for side in range(2)])


class SimilarClasses(keras.Model):
    """Metric learning: anchors and positives come stacked, one of each class."""

    def train_step(self, data):
        if isinstance(data, tuple):
            data = data[0]
        anchors, positives = data[0], data[1]
        with tf.GradientTape() as tape:
            one, two = self(anchors, training=True), self(positives, training=True)
            similarities = ops.einsum("ae,pe->ap", one, two) / 0.5
            loss = self.compute_loss(y=ops.arange(10), y_pred=similarities)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(ops.arange(10), similarities)
        return {m.name: m.result() for m in self.metrics}


def metric_learning_with_stacked_classes():
    keras.utils.set_random_seed(607)
    x, y = digits(300)
    inputs = keras.Input((64,))
    model = SimilarClasses(inputs, layers.UnitNormalization()(layers.Dense(5)(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["sparse_categorical_accuracy"])
    h = model.fit(ClassPairs(x, y, 5), epochs=2, shuffle=False, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Diffusion(keras.Model):
    """DDIM: noise of every strength is added, a network tells it; its average is kept beside it."""

    def __init__(self):
        super().__init__()
        self.normalizer = layers.Normalization()
        self.seed_generator = keras.random.SeedGenerator(17)
        self.network = self.denoiser()
        self.ema_network = keras.models.clone_model(self.network)

    @staticmethod
    def denoiser():
        noisy, strength = keras.Input((8, 8, 1)), keras.Input((1, 1, 1))
        joined = layers.Concatenate()([noisy, layers.UpSampling2D(8, interpolation="nearest")(strength)])
        hidden = layers.Conv2D(4, 3, padding="same", activation="swish")(joined)
        hidden = layers.BatchNormalization(center=False, scale=False)(hidden)
        return keras.Model([noisy, strength], layers.Conv2D(1, 3, padding="same")(hidden))

    def compile(self, **kwargs):
        super().compile(**kwargs)
        self.noise_tracker = keras.metrics.Mean(name="n_loss")
        self.image_tracker = keras.metrics.Mean(name="i_loss")

    @property
    def metrics(self):
        return [self.noise_tracker, self.image_tracker]

    def add_noise(self, images):
        n = ops.shape(images)[0]
        noises = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        times = keras.random.uniform((n, 1, 1, 1), 0.0, 1.0, seed=self.seed_generator)
        angles = 0.3 + 1.2 * times
        return noises, ops.cos(angles), ops.sin(angles)

    def denoise(self, noisy, signal_rates, noise_rates, training):
        network = self.network if training else self.ema_network
        noises = network([noisy, noise_rates**2], training=training)
        return noises, (noisy - noise_rates * noises) / signal_rates

    def train_step(self, images):
        images = self.normalizer(images, training=True)
        noises, signal_rates, noise_rates = self.add_noise(images)
        noisy = signal_rates * images + noise_rates * noises
        with tf.GradientTape() as tape:
            told, restored = self.denoise(noisy, signal_rates, noise_rates, training=True)
            noise_loss = self.loss(noises, told)  # a function: one number per pixel
            image_loss = self.loss(images, restored)
        gradients = tape.gradient(noise_loss, self.network.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
        self.noise_tracker.update_state(noise_loss)
        self.image_tracker.update_state(image_loss)
        for weight, ema_weight in zip(self.network.weights, self.ema_network.weights, strict=True):
            ema_weight.assign(0.9 * ema_weight + 0.1 * weight)
        return {m.name: m.result() for m in self.metrics}


def denoising_diffusion():
    keras.utils.set_random_seed(608)
    x, _ = digit_images(75)
    model = Diffusion()
    model.normalizer.adapt(x)
    model.compile(optimizer=keras.optimizers.SGD(1e-6), loss=keras.losses.mean_absolute_error)
    h = model.fit(tf.data.Dataset.from_tensor_slices(x).batch(25), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class MaskedLanguageModel(keras.Model):
    """As BERT is pretrained in the guide: the loss is the *sum* over all hidden places."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_fn = keras.losses.SparseCategoricalCrossentropy(reduction=None)
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = self.loss_fn(y, y_pred, sample_weight)
        self.loss_tracker.update_state(loss, sample_weight=sample_weight)
        return ops.sum(loss)

    def compute_metrics(self, x, y, y_pred, sample_weight):
        return {"loss": self.loss_tracker.result()}

    @property
    def metrics(self):
        return [self.loss_tracker]


def masked_language_model():
    keras.utils.set_random_seed(609)
    tokens, _ = digit_tokens(131)
    random = np.random.RandomState(9)
    hidden = (random.rand(*tokens.shape) < 0.15) & (tokens > 0)
    shown = np.where(hidden, 17, tokens)
    inputs = keras.Input((16,), dtype="int64")
    embedded = layers.Embedding(18, 6)(inputs) + layers.Embedding(16, 6)(ops.arange(16))
    seen = layers.LayerNormalization()(embedded + layers.MultiHeadAttention(2, 3)(embedded, embedded))
    model = MaskedLanguageModel(inputs, layers.Dense(17, activation="softmax")(seen))
    model.compile(keras.optimizers.Adam(0.005))
    data = tf.data.Dataset.from_tensor_slices((shown, tokens, hidden.astype("float32")))
    h = model.fit(data.shuffle(131, seed=1).batch(33), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Captioning(keras.Model):
    """Pictures and several captions of each; what counts are places that hold a word."""

    def __init__(self, captions=2):
        super().__init__()
        self.encoder = layers.Dense(6, activation="relu")
        self.words, self.decoder = layers.Embedding(17, 6), layers.Dense(17)
        self.captions = captions
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.acc_tracker = keras.metrics.Mean(name="accuracy")

    @property
    def metrics(self):
        return [self.loss_tracker, self.acc_tracker]

    def call(self, inputs, training=False):
        code, caption = inputs
        return self.decoder(self.words(caption) + code[:, None, :])

    @staticmethod
    def calculate_loss(y_true, y_pred, mask):
        loss = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        mask = tf.cast(mask, loss.dtype)
        return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)

    @staticmethod
    def calculate_accuracy(y_true, y_pred, mask):
        right = tf.math.logical_and(mask, tf.equal(tf.cast(y_true, tf.int64), tf.argmax(y_pred, axis=2)))
        return tf.reduce_sum(tf.cast(right, tf.float32)) / tf.reduce_sum(tf.cast(mask, tf.float32))

    def _caption(self, code, sequence, training):
        shown, wanted = sequence[:, :-1], sequence[:, 1:]
        mask = tf.math.not_equal(wanted, 0)
        predicted = self((code, shown), training=training)
        return self.calculate_loss(wanted, predicted, mask), self.calculate_accuracy(wanted, predicted, mask)

    def train_step(self, data):
        pictures, sequences = data
        batch_loss = batch_acc = 0.0
        for i in range(self.captions):
            with tf.GradientTape() as tape:
                loss, acc = self._caption(self.encoder(pictures), sequences[:, i, :], training=True)
            batch_loss += loss
            batch_acc += acc
            variables = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.loss_tracker.update_state(batch_loss)
        self.acc_tracker.update_state(batch_acc / float(self.captions))
        return {"loss": self.loss_tracker.result(), "acc": self.acc_tracker.result()}

    def test_step(self, data):
        pictures, sequences = data
        code = self.encoder(pictures)
        for i in range(self.captions):
            loss, acc = self._caption(code, sequences[:, i, :], training=False)
            self.loss_tracker.update_state(loss)
            self.acc_tracker.update_state(acc)
        return {"loss": self.loss_tracker.result(), "acc": self.acc_tracker.result()}


def captioning_with_masked_means():
    keras.utils.set_random_seed(610)
    x, _ = digits(97)
    tokens, _ = digit_tokens(97)
    captions = np.stack([tokens[:, :7], tokens[:, 1:8]], 1)
    model = Captioning()
    model.compile(keras.optimizers.SGD(0.1))
    h = model.fit(x, captions, batch_size=24, epochs=2, validation_data=(x[:31], captions[:31]), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Sampling(layers.Layer):
    """Draws a code from its mean and variance."""

    def __init__(self, weight=0.0, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_var = inputs
        if self.weight:
            divergence = -0.5 * ops.sum(1 + log_var - ops.square(mean) - ops.exp(log_var), axis=1)
            self.add_loss(self.weight * ops.mean(divergence))
        n, width = ops.shape(mean)[0], ops.shape(mean)[1]
        noise = keras.random.normal(shape=(n, width), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_var) * noise


class VariationalAutoencoder(keras.Model):
    """With a step of its own, as in the guide."""

    def __init__(self):
        super().__init__()
        inputs = keras.Input((64,))
        hidden = layers.Dense(10, activation="relu")(inputs)
        mean, log_var = layers.Dense(2, name="z_mean")(hidden), layers.Dense(2, name="z_log_var")(hidden)
        self.encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])])
        self.decoder = keras.Sequential([keras.Input((2,)), layers.Dense(64, activation="sigmoid")])
        self.total_tracker = keras.metrics.Mean(name="total_loss")
        self.kl_tracker = keras.metrics.Mean(name="kl_loss")

    @property
    def metrics(self):
        return [self.total_tracker, self.kl_tracker]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_var, z = self.encoder(data)
            rebuilt = self.decoder(z)
            each = keras.losses.binary_crossentropy(data[..., None], rebuilt[..., None])
            rebuilding = ops.mean(ops.sum(each, axis=1))
            kl = -0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var))
            kl = ops.mean(ops.sum(kl, axis=1))
            total = rebuilding + kl
        gradients = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.total_tracker.update_state(total)
        self.kl_tracker.update_state(kl)
        return {"loss": self.total_tracker.result(), "kl_loss": self.kl_tracker.result()}


def variational_autoencoder_with_a_step():
    keras.utils.set_random_seed(611)
    x, _ = digits(142)
    model = VariationalAutoencoder()
    model.compile(keras.optimizers.SGD(0.002))
    h = model.fit(x, batch_size=35, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def variational_autoencoder_with_add_loss():
    keras.utils.set_random_seed(612)
    x, _ = digits(118)
    inputs = keras.Input((64,))
    hidden = layers.Dense(10, activation="relu")(inputs)
    z = Sampling(weight=0.05)([layers.Dense(3)(hidden), layers.Dense(3)(hidden)])
    model = keras.Model(inputs, layers.Dense(64, activation="sigmoid")(z))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy")
    h = model.fit(x, x, batch_size=29, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class AdversarialPair(keras.Model):
    """A GAN whose latent points and noisy labels are drawn in the step."""

    def __init__(self, discriminator, generator, latent):
        super().__init__()
        self.discriminator, self.generator, self.latent = discriminator, generator, latent
        self.seed_generator = keras.random.SeedGenerator(1337)

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn
        self.d_tracker, self.g_tracker = keras.metrics.Mean(name="d_loss"), keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_tracker, self.g_tracker]

    def train_step(self, real):
        n = ops.shape(real)[0]
        fake = self.generator(keras.random.normal((n, self.latent), seed=self.seed_generator))
        labels = ops.concatenate([ops.ones((n, 1)), ops.zeros((n, 1))], axis=0)
        labels += 0.05 * keras.random.uniform(ops.shape(labels), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(ops.concatenate([fake, real], axis=0)))
        variables = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, variables), variables, strict=True))
        latent = keras.random.normal((n, self.latent), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            g_loss = self.loss_fn(ops.zeros((n, 1)), self.discriminator(self.generator(latent)))
        variables = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, variables), variables, strict=True))
        self.d_tracker.update_state(d_loss)
        self.g_tracker.update_state(g_loss)
        return {"d_loss": self.d_tracker.result(), "g_loss": self.g_tracker.result()}


def generative_adversarial_pair():
    keras.utils.set_random_seed(613)
    x, _ = digits(136)
    generator = keras.Sequential([keras.Input((5,)), layers.Dense(9, activation="relu"), layers.Dense(64)])
    discriminator = keras.Sequential(
        [keras.Input((64,)), layers.Dense(7, activation="tanh"), layers.Dense(1)]
    )
    model = AdversarialPair(discriminator, generator, latent=5)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05), loss)
    h = model.fit(tf.data.Dataset.from_tensor_slices(x).batch(34), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Wasserstein(keras.Model):
    """WGAN-GP: the penalty is a gradient that the outer tape differentiates once more."""

    def __init__(self, discriminator, generator, latent, extra_steps=2):
        super().__init__()
        self.discriminator, self.generator, self.latent = discriminator, generator, latent
        self.extra_steps, self.seed_generator = extra_steps, keras.random.SeedGenerator(4)

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer

    def gradient_penalty(self, n, real, fake):
        alpha = keras.random.uniform((n, 1), seed=self.seed_generator)
        between = real + alpha * (fake - real)
        with tf.GradientTape() as gp_tape:
            gp_tape.watch(between)
            scores = self.discriminator(between, training=True)
        slopes = gp_tape.gradient(scores, [between])[0]
        norm = tf.sqrt(tf.reduce_sum(tf.square(slopes), axis=1))
        return tf.reduce_mean((norm - 1.0) ** 2)

    def train_step(self, real):
        n = tf.shape(real)[0]
        for _ in range(self.extra_steps):
            latent = keras.random.normal((n, self.latent), seed=self.seed_generator)
            with tf.GradientTape() as tape:
                fake = self.generator(latent, training=True)
                fakes, reals = (
                    self.discriminator(fake, training=True),
                    self.discriminator(real, training=True),
                )
                penalty = self.gradient_penalty(n, real, fake)
                d_loss = tf.reduce_mean(fakes) - tf.reduce_mean(reals) + 10.0 * penalty
            variables = self.discriminator.trainable_variables
            self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, variables), variables, strict=True))
        latent = keras.random.normal((n, self.latent), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            made = self.generator(latent, training=True)
            g_loss = -tf.reduce_mean(self.discriminator(made, training=True))
        variables = self.generator.trainable_variables
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, variables), variables, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss, "penalty": penalty}


def wasserstein_with_gradient_penalty():
    keras.utils.set_random_seed(614)
    x, _ = digits(107)
    generator = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(64)])
    discriminator = keras.Sequential(
        [keras.Input((64,)), layers.Dense(6, activation="tanh"), layers.Dense(1)]
    )
    model = Wasserstein(discriminator, generator, latent=4)
    model.compile(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01))
    h = model.fit(x, batch_size=36, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Switch(layers.Layer):
    """A switch transformer's router: an auxiliary loss that is a product of two means over the batch."""

    def __init__(self, experts, width, capacity=None):
        super().__init__()
        self.experts, self.capacity = experts, capacity
        self.route = layers.Dense(experts)
        self.layers_ = [layers.Dense(width, activation="relu") for _ in range(experts)]

    def call(self, x):
        chances = ops.softmax(self.route(x), axis=-1)
        chosen = ops.one_hot(ops.argmax(chances, axis=-1), self.experts)
        density, proxy = ops.mean(chosen, axis=0), ops.mean(chances, axis=0)
        self.add_loss(0.1 * ops.mean(proxy * density) * self.experts**2)
        if self.capacity is not None:  # who comes late to a full expert is not served
            place = ops.cumsum(chosen, axis=0) * chosen
            chosen = chosen * ops.cast(place <= self.capacity, "float32")
        gates = chosen * ops.max(chances, axis=-1, keepdims=True)
        answers = ops.stack([expert(x) for expert in self.layers_], axis=1)
        return ops.sum(answers * gates[..., None], axis=1)


def _switched(capacity, seed):
    keras.utils.set_random_seed(seed)
    x, y = digits(141)
    inputs = keras.Input((64,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    hidden = layers.Add()([hidden, Switch(3, 8, capacity)(hidden)])
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(hidden))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def switch_with_a_product_of_means():
    return _switched(capacity=None, seed=615)


def switch_with_experts_that_are_full():
    return _switched(capacity=8, seed=616)


class NearestNeighbours(keras.Model):
    """NNCLR: friends come from a queue that the step itself fills."""

    def __init__(self, queue=40, width=5):
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(width)]
        )
        first = np.random.RandomState(2).randn(queue, width).astype("float32")
        self.queue = self.add_weight(
            name="queue",
            shape=(queue, width),
            trainable=False,
            initializer=lambda *a, **k: ops.normalize(first),
        )
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="c_acc")
        self.tracker = keras.metrics.Mean(name="c_loss")

    @property
    def metrics(self):
        return [self.accuracy, self.tracker]

    def nearest(self, rows):
        likeness = ops.matmul(rows, ops.transpose(self.queue))
        found = ops.take(self.queue, ops.argmax(likeness, axis=1), axis=0)
        return rows + ops.stop_gradient(found - rows)

    def contrastive_loss(self, one, two):
        one, two = ops.normalize(one, axis=1), ops.normalize(two, axis=1)
        logits = ops.concatenate(
            [
                ops.matmul(self.nearest(one), ops.transpose(two)),
                ops.matmul(self.nearest(two), ops.transpose(one)),
            ]
        )
        n = ops.shape(one)[0]
        labels = ops.tile(ops.arange(n), 2)
        self.accuracy.update_state(labels, logits)
        loss = keras.losses.sparse_categorical_crossentropy(labels, logits / 0.5, from_logits=True)
        self.queue.assign(ops.concatenate([one, self.queue[:-n]], axis=0))
        return loss

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.contrastive_loss(
                self.encoder(data, training=True), self.encoder(data**2, training=True)
            )
        variables = self.encoder.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.tracker.update_state(loss)
        return {m.name: m.result() for m in self.metrics}


def nearest_neighbours_from_a_queue():
    keras.utils.set_random_seed(617)
    x, _ = digits(93)
    model = NearestNeighbours()
    model.compile(keras.optimizers.SGD(0.002))
    h = model.fit(x, batch_size=23, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "queue": model.queue.numpy()}


class MomentumContrast(keras.Model):
    """MoCo: keys come from a slower copy of the encoder, negatives from the keys of earlier batches."""

    def __init__(self, momentum=0.9, queue=32):
        super().__init__()
        self.encoder, self.slow = self.new_encoder(), self.new_encoder()
        self.slow.trainable = False
        self.slow.set_weights(self.encoder.get_weights())
        self.momentum = momentum
        keys = np.random.RandomState(3).randn(queue, 4).astype("float32")
        self.keys = tf.Variable(keys / np.linalg.norm(keys, axis=1, keepdims=True), trainable=False)

    @staticmethod
    def new_encoder():
        return keras.Sequential([keras.Input((64,)), layers.Dense(6, activation="relu"), layers.Dense(4)])

    def train_step(self, x):
        keys = tf.math.l2_normalize(self.slow(x * 0.9, training=False), axis=1)
        with tf.GradientTape() as tape:
            queries = tf.math.l2_normalize(self.encoder(x, training=True), axis=1)
            positive = tf.reduce_sum(queries * keys, axis=1, keepdims=True)
            logits = tf.concat([positive, queries @ tf.transpose(self.keys)], axis=1) / 0.5
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(tf.zeros(tf.shape(x)[0], tf.int32), logits)
            )
        variables = self.encoder.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        for fast, slow in zip(self.encoder.weights, self.slow.weights, strict=True):
            slow.assign(self.momentum * slow + (1 - self.momentum) * fast)
        self.keys.assign(tf.concat([self.keys[tf.shape(keys)[0] :], keys], axis=0))
        return {"loss": loss, "likeness": tf.reduce_mean(positive)}


def momentum_contrast():
    keras.utils.set_random_seed(618)
    x, _ = digits(87)
    model = MomentumContrast()
    model.compile(keras.optimizers.SGD(0.1))
    h = model.fit(x, batch_size=29, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "keys": model.keys.numpy()}


class BarlowTwins(keras.losses.Loss):
    """Correlations between features over the rows of the batch."""

    def call(self, one, two):
        n = ops.cast(ops.shape(one)[0], "float32")
        one = (one - ops.mean(one, axis=0)) / (ops.std(one, axis=0) + 0.1)
        two = (two - ops.mean(two, axis=0)) / (ops.std(two, axis=0) + 0.1)
        across = ops.matmul(ops.transpose(one), two) / n
        off = ops.square(across - ops.eye(ops.shape(across)[0]))
        return ops.sum(ops.where(ops.eye(ops.shape(across)[0]) > 0, off, 0.1 * off))


class Twins(keras.Model):
    """Two views through one encoder, one number for the batch."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.tracker = encoder, keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.tracker]

    def train_step(self, data):
        one, two = data
        with tf.GradientTape() as tape:
            loss = self.loss(self.encoder(one, training=True), self.encoder(two, training=True))
        variables = self.encoder.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def barlow_twins():
    keras.utils.set_random_seed(619)
    x, _ = digits(115)
    views = tf.data.Dataset.zip(
        (tf.data.Dataset.from_tensor_slices(x), tf.data.Dataset.from_tensor_slices(np.sqrt(x)))
    )
    encoder = keras.Sequential(
        [keras.Input((64,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(5)]
    )
    model = Twins(encoder)
    model.compile(keras.optimizers.SGD(0.01), BarlowTwins())
    h = model.fit(views.batch(38), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Distiller(keras.Model):
    """Knowledge distillation with a step of its own and sample weights."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def compile(self, optimizer, metrics, student_loss_fn, distillation_loss_fn, alpha=0.3, temperature=3):
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss_fn, self.distillation_loss_fn = student_loss_fn, distillation_loss_fn
        self.alpha, self.temperature = alpha, temperature

    def call(self, x):
        return self.student(x)

    def train_step(self, data):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        taught = self.teacher(x, training=False)
        with tf.GradientTape() as tape:
            told = self.student(x, training=True)
            student_loss = self.student_loss_fn(y, told, sample_weight=weights)
            distillation_loss = self.distillation_loss_fn(
                ops.softmax(taught / self.temperature, axis=1), ops.softmax(told / self.temperature, axis=1)
            )
            loss = self.alpha * student_loss + (1 - self.alpha) * distillation_loss * self.temperature**2
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        results = self.compute_metrics(x, y, told, weights)
        results.update({"student_loss": student_loss, "distillation_loss": distillation_loss})
        return results


def distiller_with_a_step_and_weights():
    keras.utils.set_random_seed(620)
    x, y = digits(145)
    teacher = keras.Sequential([keras.Input((64,)), layers.Dense(12, activation="relu"), layers.Dense(10)])
    student = keras.Sequential([keras.Input((64,)), layers.Dense(10)])
    model = Distiller(student, teacher)
    model.compile(
        optimizer=keras.optimizers.Adam(0.005),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
        student_loss_fn=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        distillation_loss_fn=keras.losses.KLDivergence(),
    )
    weights = np.where(y < 3, 2.0, 0.5).astype("float32")
    h = model.fit(x, y, sample_weight=weights, batch_size=36, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Prototypes(keras.Model):
    """Few-shot learning: a class is the mean of its rows in the first half of the batch."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            code = self(x, training=True)
            half = tf.shape(x)[0] // 2
            prototypes = tf.math.unsorted_segment_mean(code[:half], y[:half], 3)
            apart = tf.reduce_sum((code[half:, None] - prototypes[None]) ** 2, axis=-1)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y[half:], -apart))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        right = tf.equal(tf.argmin(apart, axis=1, output_type=tf.int32), y[half:])
        return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}


def prototypes_of_classes_in_the_batch():
    keras.utils.set_random_seed(621)
    x, y = iris(141)
    inputs = keras.Input((4,))
    model = Prototypes(inputs, layers.Dense(3)(layers.Dense(5, activation="relu")(inputs)))
    model.compile(keras.optimizers.SGD(0.05))
    h = model.fit(x, y, batch_size=37, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class MixedUp(keras.Model):
    """Mixup: every row is blended with another one of its batch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed_generator = keras.random.SeedGenerator(8)

    def train_step(self, data):
        x, y = data
        blend = keras.random.beta((ops.shape(x)[0], 1), 0.4, 0.4, seed=self.seed_generator)
        x = blend * x + (1 - blend) * ops.flip(x, axis=0)
        y = blend * y + (1 - blend) * ops.flip(y, axis=0)
        return super().train_step((x, y))


def mixup_in_the_step():
    keras.utils.set_random_seed(622)
    x, y = digits(133)
    inputs = keras.Input((64,))
    model = MixedUp(
        inputs, layers.Dense(10, activation="softmax")(layers.Dense(9, activation="relu")(inputs))
    )
    model.compile(keras.optimizers.SGD(0.2), "categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(x, keras.utils.to_categorical(y, 10), batch_size=33, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Hardened(keras.Model):
    """Adversarial training: the gradient of the inputs makes harder inputs."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        harder = x + 0.1 * tf.sign(tape.gradient(loss, x))
        with tf.GradientTape() as tape:
            y_pred = self(harder, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return self.compute_metrics(x, y, y_pred, None) | {"loss": loss}


def adversarial_examples_in_the_step():
    keras.utils.set_random_seed(623)
    x, y = cancer(159)
    inputs = keras.Input((30,))
    model = Hardened(
        inputs, layers.Dense(1, activation="sigmoid")(layers.Dense(4, activation="tanh")(inputs))
    )
    model.compile(keras.optimizers.SGD(0.2), "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y[:, None], batch_size=40, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class VectorQuantizer(layers.Layer):
    """Codes from a table, straight through, with a commitment loss."""

    def __init__(self, codes, width):
        super().__init__()
        self.table = self.add_weight(shape=(width, codes), initializer="random_uniform", name="codes")

    def call(self, x):
        apart = (
            ops.sum(x**2, axis=1, keepdims=True)
            + ops.sum(self.table**2, axis=0)
            - 2 * ops.matmul(x, self.table)
        )
        code = ops.matmul(
            ops.one_hot(ops.argmin(apart, axis=1), self.table.shape[1]), ops.transpose(self.table)
        )
        commitment = ops.mean((ops.stop_gradient(code) - x) ** 2)
        self.add_loss(0.25 * commitment + ops.mean((code - ops.stop_gradient(x)) ** 2))
        return x + ops.stop_gradient(code - x)


class QuantizedAutoencoder(keras.Model):
    """Adds the model's own losses up by hand and divides by a variance."""

    def __init__(self, variance):
        super().__init__()
        self.variance = variance
        inputs = keras.Input((64,))
        code = VectorQuantizer(6, 4)(layers.Dense(4)(inputs))
        self.net = keras.Model(inputs, layers.Dense(64)(code))
        self.tracker = keras.metrics.Mean(name="loss")
        self.vq_tracker = keras.metrics.Mean(name="vq_loss")

    @property
    def metrics(self):
        return [self.tracker, self.vq_tracker]

    def train_step(self, x):
        with tf.GradientTape() as tape:
            rebuilt = self.net(x)
            loss = tf.reduce_mean((x - rebuilt) ** 2) / self.variance + sum(self.net.losses)
        variables = self.net.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.tracker.update_state(loss)
        self.vq_tracker.update_state(sum(self.net.losses))
        return {m.name: m.result() for m in self.metrics}


def quantized_autoencoder_adding_its_losses():
    keras.utils.set_random_seed(624)
    x, _ = digits(127)
    model = QuantizedAutoencoder(np.var(x))
    model.compile(keras.optimizers.SGD(0.05))
    h = model.fit(x, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class FewLabels(keras.Model):
    """Many rows without a label and few with one in each batch; the former follow their own surest guess."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential(
            [keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(10)]
        )
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def train_step(self, data):
        unlabelled, (labelled, labels) = data
        rows = ops.concatenate([unlabelled, labelled], axis=0)
        with tf.GradientTape() as tape:
            logits = self.encoder(rows, training=True)
            n = ops.shape(unlabelled)[0]
            free, bound = logits[:n], logits[n:]
            guesses = ops.softmax(ops.stop_gradient(free))
            sure = ops.cast(ops.max(guesses, axis=1) > 0.12, "float32")
            follow = keras.losses.sparse_categorical_crossentropy(
                ops.argmax(guesses, 1), free, from_logits=True
            )
            told = keras.losses.sparse_categorical_crossentropy(labels, bound, from_logits=True)
            loss = ops.mean(told) + 0.5 * ops.mean(follow * sure)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.accuracy.update_state(labels, bound)
        return {"loss": loss, "accuracy": self.accuracy.result(), "sure": ops.mean(sure)}


def few_labelled_rows_beside_many():
    keras.utils.set_random_seed(625)
    x, y = digits(140)
    many = tf.data.Dataset.from_tensor_slices(x[:120]).batch(24)
    few = tf.data.Dataset.from_tensor_slices((x[120:], y[120:])).batch(4)
    model = FewLabels()
    model.compile(keras.optimizers.SGD(0.1))
    h = model.fit(tf.data.Dataset.zip((many, few)), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Ranked(keras.Model):
    """Every pair of rows in the batch: the one with the larger target shall score higher."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        scores = y_pred[:, 0]
        wanted = ops.cast(y[:, None] > y[None, :], "float32")
        missed = ops.softplus(-(scores[:, None] - scores[None, :]))
        return ops.sum(wanted * missed) / ops.maximum(ops.sum(wanted), 1.0)


def ranking_of_all_pairs():
    keras.utils.set_random_seed(626)
    x, y = diabetes(147)
    inputs = keras.Input((10,))
    scores = layers.Dense(1, use_bias=False)  # differences of scores say nothing of a bias
    model = Ranked(inputs, scores(layers.Dense(5, activation="relu")(inputs)))
    model.compile(keras.optimizers.Adam(0.01))
    h = model.fit(x, y, batch_size=30, epochs=2, validation_data=(x[:40], y[:40]), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}
