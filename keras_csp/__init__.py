"""Cross Stage Partial Networks for Keras 3, in the form of keras.applications.

CSPNet: arXiv 1911.11929. `CSPStage` is its eq. 4, `list_models()` names its
networks.
"""

from keras_csp import _onednn

_onednn.enable()  # before anything imports TensorFlow

from keras_csp import (  # noqa: E402
    darknet,
    detection,
    layers,
    models,
    training,
    weights,
)
from keras_csp._version import __version__  # noqa: E402
from keras_csp.analysis.cost import Count, count  # noqa: E402
from keras_csp.analysis.published import Published, published  # noqa: E402
from keras_csp.analysis.ten_crop import evaluate_ten_crop  # noqa: E402
from keras_csp.detection import Detector  # noqa: E402
from keras_csp.layers import (  # noqa: E402
    ImageSpec,
    image_spec,
    with_image_spec,
)
from keras_csp.models import *  # noqa: E402, F403
from keras_csp.models.features import feature_extractor  # noqa: E402
from keras_csp.preprocessing import (  # noqa: E402
    decode_predictions,
    preprocess_input,
)
from keras_csp.training import recipes  # noqa: E402
from keras_csp.weights import list_weights  # noqa: E402

__all__ = [
    "Count",
    "Detector",
    "ImageSpec",
    "Published",
    "__version__",
    "count",
    "darknet",
    "decode_predictions",
    "detection",
    "evaluate_ten_crop",
    "feature_extractor",
    "image_spec",
    "layers",
    "list_weights",
    "models",
    "preprocess_input",
    "published",
    "recipes",
    "training",
    "weights",
    "with_image_spec",
]
__all__ += models.__all__
