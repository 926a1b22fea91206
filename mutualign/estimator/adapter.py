"""DomainAdapter: an experiment as a scikit-learn classifier and transformer."""

from __future__ import annotations

import logging
import tempfile
import warnings
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.estimator.adapter_file import Saved, read_adapter, write_adapter
from mutualign.estimator.arrays import (
    alike,
    as_numpy,
    axes_of,
    held_out,
    images_to_pixels,
    make_task,
    refuse_no_numbers,
    source_labels,
    source_rows,
    vectors_to_pixels,
)
from mutualign.estimator.choice import choose_recipe
from mutualign.estimator.progress import EpochLines
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.nn.classifier import Classifier
from mutualign.runs.experiment import Experiment, Observer
from mutualign.training.distributed import make_fabric
from mutualign.training.inference import predict_logits
from mutualign.training.setup import build_classifier

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else each prediction tells of mixed precision


class NoTargetWarning(UserWarning):
    """No target was given: there is nothing to adapt to."""


class AlarmWarning(UserWarning):
    """The audit of a fit has raised an alarm: what to know before the classifier is trusted."""


class DomainAdapter(ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that is trained on a labelled source and adapted to an unlabelled target.

    X is images, [n, height, width] or [n, height, width, channels], integers from 0 to 255 or floats from 0 to 1; or
    the same images flattened, [n, height * width * channels], with `image_shape`; or, without it, feature vectors
    [n, features], which should have about unit scale (put a StandardScaler before it). Numpy arrays and torch tensors
    serve alike; y holds strings or integers. Grey images serve beside colour ones: they are repeated.

    Parameters
    ----------
    recipe : name of a recipe, or the path of a recipe's .toml file. None: `fast` for images; for vectors `dann`, but
        shorter, at a higher learning rate, and with a reversal that ramps up. Vectors always get the backbone `mlp` and
        float32, unless overridden; recipes with `mutual_align`, such as `fast` and `best`, are not for them, as they
        turn and recolour images.
    overrides : assignments to fields of the recipe, such as ("stages.0.epochs=2", "precision=float32").
    epoch : "selected", the epoch of the last stage with the best label-free score, or "last".
    validation_fraction : of each source class (rounded up; of a class of one image none) that is not trained on but
        held out for the label-free score.
    image_shape : (height, width, channels) of flattened images.
    accelerator : "auto", "cpu", "cuda" or "mps".
    run_folder : where the run is kept, for `mutualign report` and the like; it must not be there yet. None: nowhere.
    random_state : decides everything that is random; a RandomState, or None for another seed in each fit.
    verbose : whether each epoch gives a line on standard error.

    Attributes
    ----------
    classes_ : [classes], sorted labels of the source.
    label_free_score_ : of the epoch that is kept, on target images without labels; higher is better.
    alarms_ : what the audit found, each a dict of stage, name, seen, cause; `fit` warns of each (AlarmWarning).
    result_ : the run's result, as in its result.json.
    recipe_, shape_, weights_ : what was trained, for which images, and what came of it.
    n_features_in_ : features, or height * width * channels.

    Example
    -------
    >>> import numpy as np
    >>> from mutualign import DomainAdapter
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["left", "right"], 50)
    >>> X = rng.normal(size=(100, 4)) + np.where(y == "left", -3, 3)[:, None]
    >>> X_target = X + rng.normal(size=4)  # the same classes, elsewhere
    >>> adapter = DomainAdapter(overrides=["stages.0.epochs=2"]).fit(X, y, X_target)
    >>> adapter.predict(X_target).shape, adapter.transform(X_target).shape[0]
    ((100,), 100)
    """

    # Any: scikit-learn has parameters checked in `fit`, not here.
    def __init__(
        self,
        recipe: Any = None,
        *,
        overrides: Any = (),
        epoch: Any = "selected",
        validation_fraction: Any = 0.1,
        image_shape: Any = None,
        accelerator: Any = "auto",
        run_folder: Any = None,
        random_state: Any = 0,
        verbose: Any = False,
    ) -> None:
        self.recipe = recipe
        self.overrides = overrides
        self.epoch = epoch
        self.validation_fraction = validation_fraction
        self.image_shape = image_shape
        self.accelerator = accelerator
        self.run_folder = run_folder
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, X_target: Any = None, *, sample_domain: Any = None) -> DomainAdapter:  # noqa: N803
        """Train on a source and adapt to a target, given in either of two ways.

        fit(X_source, y_source, X_target)     as in ADAPT
        fit(X, y, sample_domain=domains)      as in skada: source rows have a domain of 0 or above, target rows one
                                              below 0. Several sources are taken as one, and so are several targets.
                                              Target rows of y are ignored, whatever they hold; skada masks them by -1.

        Without any target it warns (NoTargetWarning), and the source is its own target. Raises ValueError for arrays
        that it cannot take, MutualignError for a recipe or a run folder that it cannot. Source of the conventions: de
        Mathelin et al., "ADAPT", 2021; Gnassounou et al., "SKADA-Bench", 2024.
        """
        if self.epoch not in ("selected", "last"):
            raise ValueError(f'epoch is "selected" or "last", got {self.epoch!r}')
        if isinstance(self.overrides, str):
            raise ValueError(f"overrides is a tuple or list of assignments; do you mean ({self.overrides!r},)?")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is between 0 and 1, got {self.validation_fraction!r}")
        if X_target is not None and self.image_shape is None and (axes_of(X) == 2) != (axes_of(X_target) == 2):
            raise ValueError(
                f"X has {axes_of(X)} axes and X_target {axes_of(X_target)}: one is images, the other feature vectors\n"
                "  do       give both alike; of images flattened into rows, say the image_shape"
            )
        given = self._images(X, reset=True)
        is_source = source_rows(sample_domain, len(given))
        target = self._target(given.subset((~is_source).nonzero().flatten()), X_target)
        labels = source_labels(y, is_source)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f'the source has 1 class, "{self.classes_[0]}": a classifier needs two or more')
        source = given.subset(is_source.nonzero().flatten())
        source, other = alike(source, source if target is None else target)
        labelled, seed = LabelledImages(source, torch.from_numpy(codes)), self._seed()
        held = held_out(labelled.labels, self.validation_fraction, seed)
        task = make_task(labelled, other, tuple(map(str, self.classes_)), held)
        vectors = self.image_shape is None and axes_of(X) == 2
        self.recipe_, self.shape_ = choose_recipe(self.recipe, self.overrides, vectors), task.shape
        self.n_features_in_ = int(np.prod(self.shape_))
        self._train(task, seed)
        for alarm in self.alarms_:
            if target is not None or alarm["name"] != "identical domains":  # NoTargetWarning has said so
                warnings.warn(f"{alarm['name']}: {alarm['seen']}; {alarm['cause']}", AlarmWarning, stacklevel=2)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The likeliest class of each image, [n]."""
        chosen = self._outputs(X).argmax(1).numpy()
        return self.classes_[chosen]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Class probabilities, [n, classes], in the order of `classes_`."""
        return self._outputs(X).softmax(1).numpy()

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Features, as the class head sees them, [n, features]."""
        return self._outputs(X, features=True).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Accuracy on labelled images. Of target images this is an evaluation: select by `label_free_score`."""
        return float(super().score(X, as_numpy(y), sample_weight))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: weights, parameters, classes, recipe; a file that is there is replaced."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        saved = Saved(
            self.get_params(), self.recipe_, self.shape_, self.classes_, names, self.label_free_score_, self.result_
        )
        write_adapter(Path(path), saved, self.weights_)

    @classmethod
    def load(cls, path: str | Path) -> DomainAdapter:
        """What `save` wrote. Raises MutualignError, naming the file, if it is broken or of a newer version."""
        saved, weights = read_adapter(Path(path), frozenset(cls().get_params()))
        adapter = cls(**saved.params)
        adapter.recipe_, adapter.shape_, adapter.classes_ = saved.recipe, saved.shape, saved.classes
        adapter.n_features_in_ = int(np.prod(saved.shape))
        if saved.feature_names is not None:
            adapter.feature_names_in_ = saved.feature_names
        adapter.label_free_score_, adapter.result_ = saved.label_free_score, saved.result
        adapter.alarms_, adapter.weights_ = saved.result["alarms"], weights
        return adapter

    # Inputs -----------------------------------------------------------------------------------------------------------

    def _images(self, X: Any, reset: bool) -> UnlabelledImages:  # noqa: N803
        """Images or vectors, checked; `reset` where they say what the ones to come must look like."""
        values = as_numpy(X)
        if axes_of(values) > 2:
            images = check_array(
                refuse_no_numbers(values), allow_nd=True, estimator=self, input_name="X", ensure_all_finite=False
            )
            return UnlabelledImages(images_to_pixels(images))
        if self.image_shape is None:
            return UnlabelledImages(vectors_to_pixels(validate_data(self, values, dtype=np.float32, reset=reset)))
        flat = validate_data(self, values, reset=reset)
        if len(self.image_shape) != 3 or flat.shape[1] != np.prod(self.image_shape):
            raise ValueError(
                f"rows of {flat.shape[1]} values are no images of image_shape={tuple(self.image_shape)}\n"
                "  do       give (height, width, channels)"
            )
        return UnlabelledImages(images_to_pixels(flat.reshape(-1, *self.image_shape)))

    def _target(self, rows: UnlabelledImages, X_target: Any) -> UnlabelledImages | None:  # noqa: N803
        """The target images, from rows of X or from X_target; None, after a warning, if there are none."""
        if X_target is not None and len(rows):
            raise ValueError("give the target as X_target or as rows of X with a sample_domain below 0, not as both")
        if X_target is not None:
            try:
                return self._images(X_target, reset=False)
            except ValueError as error:
                raise ValueError(f"X_target: {error}") from error
        if len(rows):
            return rows
        warnings.warn(
            "no target: the source is taken as its own, so nothing is adapted\n"
            "  do       fit(X_source, y_source, X_target), or fit(X, y, sample_domain=...) with target rows below 0",
            NoTargetWarning,
            stacklevel=3,
        )
        return None

    # Training and inference -------------------------------------------------------------------------------------------

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _train(self, task: Task, seed: int) -> None:
        with ExitStack() as stack:
            # Two folders deep: an experiment looks beside its own for a run to compare itself with.
            path = Path(self.run_folder or f"{stack.enter_context(tempfile.TemporaryDirectory())}/arrays/run")
            display = EpochLines() if self.verbose else Observer()
            experiment = Experiment.start(self.recipe_, task, seed, path, accelerator=self.accelerator, display=display)
            self.result_ = experiment.run()
            name = f"stage-{len(self.recipe_.stages) - 1}-{self.epoch}"
            self.weights_, info = experiment.folder.load_tensors(name)
        self.label_free_score_: float = info["scores"][DEFAULT_VALIDATOR]
        self.alarms_ = self.result_["alarms"]

    def _outputs(self, X: Any, features: bool = False) -> Float[Tensor, "n outputs"]:  # noqa: N803
        """Logits or features, float32."""
        check_is_fitted(self)
        images = self._images(X, reset=False)
        (*size, channels), (expected, *fitted) = images.pixels.shape[1:], self.shape_
        if size != fitted or channels not in (1, expected):
            raise ValueError(f"X has images of shape {(*size, channels)}; fitted on {(*fitted, expected)}")
        fabric = make_fabric(self.recipe_.precision, self.accelerator)
        classifier = self._classifier().to(fabric.device)
        network = classifier.features if features else classifier
        return predict_logits(network, images, self.shape_.channels, fabric)

    def _classifier(self) -> Classifier:
        with torch.random.fork_rng():
            classifier = build_classifier(self.recipe_, self.shape_, len(self.classes_))
        classifier.load_state_dict(self.weights_)
        return classifier

    # What scikit-learn asks -------------------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return self._classifier().feature_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # features are float32, whatever X is
        return tags
