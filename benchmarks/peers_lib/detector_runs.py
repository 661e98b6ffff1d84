"""Detectors of Table 2, from the bytes of a JPEG to boxes."""

from peers_lib.keras_runs import limit_threads

# Every candidate passes, so that the suppression has all its work to do: the
# heads are not trained, and would let none pass otherwise.
SCORE = 0.0


class Runs:
    """`detector`: arguments of `keras_csp.Detector`; one quantity, its size."""

    def __init__(self, quantities, detector, threads):
        import keras_csp
        from keras_csp.data.resizing import letterbox

        limit_threads(threads)
        self.letterbox = letterbox
        (asked,) = quantities.values()
        self.size = asked["size"]
        shape = (self.size, self.size, 3)
        self.detector = keras_csp.Detector(input_shape=shape, **detector)
        self.model = self.detector.inference_model(score_threshold=SCORE)
        self.model.compile(jit_compile=False)
        self.jpeg = photograph()

    def run(self, quantity):
        import tensorflow as tf

        image = tf.io.decode_jpeg(self.jpeg, channels=3).numpy()
        pixels, _view = self.letterbox(image, self.size)
        self.model.predict_on_batch(pixels[None])

    def cost(self, quantity):
        from keras_csp import count

        counted = count(self.detector)
        return {"bflops": counted.bflops, "cio": counted.cio}


def photograph():
    """The bytes of a JPEG of 640x427 pixels that comes with scikit-learn."""
    import pathlib

    import sklearn.datasets

    folder = pathlib.Path(sklearn.datasets.__file__).parent
    return (folder / "images" / "china.jpg").read_bytes()
