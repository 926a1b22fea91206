"""DomainAdapter: an experiment as a scikit-learn classifier and transformer."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from mutualign.data.features.arrays import as_input
from mutualign.data.task import Task
from mutualign.data.types import LabelledImages, UnlabelledImages
from mutualign.estimator import arrays
from mutualign.estimator.adapter_file import Classes, Header, read_adapter, write_adapter
from mutualign.estimator.alerts import AlarmWarning, warn_of_no_target
from mutualign.estimator.choice import choose_recipe
from mutualign.estimator.parameters import check_parameters, seed_of
from mutualign.estimator.progress import EpochLines
from mutualign.evaluation.validators import DEFAULT_VALIDATOR
from mutualign.io.atomic import temporary_folder
from mutualign.nn.classifier import Classifier
from mutualign.runs.experiment import Experiment
from mutualign.runs.history import Result, StageAlarm
from mutualign.training.distributed import make_fabric
from mutualign.training.inference import predict_logits
from mutualign.training.setup import restore_classifier, standard_modes


class DomainAdapter(ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that is trained on a labelled source and adapted to an unlabelled target.

    X is images, [n, height, width] or [n, height, width, channels], integers from 0 to 255 or floats from 0 to 1; or
    the same images flattened, [n, height * width * channels], with `image_shape`; or, without it, feature vectors
    [n, features], which should have about unit scale (put a StandardScaler before it). Numpy arrays and torch tensors
    are accepted; y holds text or integers. Grey images may be mixed with colour ones: their channel is repeated.

    Parameters
    ----------
    recipe : str or None
        A recipe's name, or the path of its .toml file. None: `fast` for images, a shorter `dann` for vectors. Vectors
        get the backbone `mlp` and float32, unless overridden; recipes that augment images are not for them. `photos`
        takes photos, whose features it computes with a pretrained network, and features of any model.
    overrides : sequence of str
        Assignments to fields of the recipe, such as ("stages.0.epochs=2", "precision=float32").
    epoch : {"selected", "last"}
        The epoch of the last stage with the best label-free score, or the last one.
    validation_fraction : float
        Share of each source class that is held out for the label-free score, rounded up; a class of one image keeps it.
    image_shape : (height, width, channels) of flattened images, or None
    accelerator : {"auto", "cpu", "cuda", "mps"}
        auto: cuda if there is such a GPU, else cpu. mps, the GPU of a Mac, is not tested.
    run_folder : path or None
        Where the run is kept, for `mutualign report` and others; it must be new, so leave it out in searches.
    random_state : int, RandomState or None
        Decides everything that is random; None is another seed in each fit. Fits in several threads train one after
        another, since torch's random numbers are those of all threads; use processes.
    verbose : bool, whether to print one line per epoch to standard error

    Attributes
    ----------
    classes_ : sorted labels of the source
    label_free_score_ : float
        Score of the kept epoch on target images without labels; higher is better.
    alarms_ : list of StageAlarm
        What the audit found: name, seen, cause, stage. `fit` warns of each (AlarmWarning).
    result_, recipe_, shape_, weights_
        The run's Result; what was trained, for images of which shape; and the trained weights.

    Examples
    --------
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

    # Searches and pipelines pass sample_domain on to these, once metadata routing is enabled.
    __metadata_request__fit: ClassVar[Any] = {"sample_domain": True}
    __metadata_request__predict: ClassVar[Any] = {"sample_domain": True}
    __metadata_request__score: ClassVar[Any] = {"sample_domain": True}

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

        - `fit(X_source, y_source, X_target)`, as in ADAPT
        - `fit(X, y, sample_domain=domains)`, as in skada: source rows have a domain of 0 or above, target rows one
          below 0. Several sources are taken as one, and so are several targets. Target rows of y are ignored.

        In a Pipeline or a search, `sklearn.set_config(enable_metadata_routing=True)` lets fit(X, y, sample_domain=...)
        pass the domains on; without it, name the step: `pipeline.fit(X, y, domainadapter__sample_domain=domains)`.

        Without a target it warns (NoTargetWarning), and the source is its own target. Raises ValueError for wrong
        arrays or parameters, MutualignError for a wrong recipe or run folder. Source of the conventions: de Mathelin et
        al., "ADAPT", 2021; Gnassounou et al., "SKADA-Bench", 2024.
        """
        with standard_modes():
            return self._fit(X, y, X_target, sample_domain)

    def _fit(self, X: Any, y: Any, X_target: Any, sample_domain: Any) -> DomainAdapter:  # noqa: N803
        self.__dict__.pop("weights_", None)  # a fit that fails leaves no mixture with the one before
        check_parameters(self)
        if X_target is not None and self.image_shape is None:
            arrays.require_same_form(X, X_target)
        name = None if self.recipe is None else str(self.recipe)
        self.recipe_ = choose_recipe(name, self.overrides, self.image_shape is None and arrays.axes_of(X) == 2)
        given = self._images(X, reset=True)
        is_source = arrays.source_rows(sample_domain, len(given))
        target = self._target(given.subset((~is_source).nonzero().flatten()), X_target)
        self.classes_, codes = np.unique(arrays.source_labels(y, is_source), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f'the source has 1 class, "{self.classes_[0]}": a classifier needs two or more')
        source = given.subset(is_source.nonzero().flatten())
        source, other = arrays.alike(source, source if target is None else target)
        labelled, seed = LabelledImages(source, torch.from_numpy(codes)), seed_of(self.random_state)
        held = arrays.held_out(labelled.labels, self.validation_fraction, seed)
        task = arrays.make_task(labelled, other, tuple(map(str, self.classes_)), held)
        self.shape_, self.n_features_in_ = task.shape, arrays.row_length(task.shape, self.image_shape)
        self._train(task, seed)
        for alarm in self.alarms_:
            if target is not None or alarm.name != "identical domains":  # NoTargetWarning has said so
                warnings.warn(f"{alarm.name}: {alarm.seen}; {alarm.cause}", AlarmWarning, stacklevel=3)
        return self

    def predict(self, X: Any, *, sample_domain: Any = None) -> NDArray[Any]:  # noqa: N803
        """Return the likeliest class of each image, [n]; `sample_domain` changes nothing, but skada passes it."""
        chosen = self._outputs(X).argmax(1).numpy()
        return self.classes_[chosen]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return class probabilities, [n, classes], in the order of `classes_`."""
        return self._outputs(X).softmax(1).numpy()

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Return the features that the class head sees, [n, features]."""
        return self._outputs(X, features=True).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None, *, sample_domain: Any = None) -> float:  # noqa: N803
        """Return the accuracy on the rows that have a label: -1, skada's mask of target labels, is none.

        On target images this is an evaluation: select by `label_free_score`. `sample_domain` is accepted as in skada
        and changes nothing. Raises ValueError if no row has a label.
        """
        check_is_fitted(self)
        labels = column_or_1d(arrays.as_numpy(y))
        rows = arrays.labelled_rows(labels, self.classes_)
        right = self.predict(X)
        check_consistent_length(right, labels, sample_weight)
        weights = None if sample_weight is None else np.asarray(arrays.as_numpy(sample_weight))[rows]
        return float(accuracy_score(labels[rows], right[rows], sample_weight=weights))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with weights, parameters, classes and recipe; a regular file is replaced."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        header = Header(
            params=self.get_params(),
            recipe=self.recipe_,
            shape=self.shape_,
            classes=Classes.of(self.classes_),
            label_free_score=self.label_free_score_,
            result=self.result_,
            feature_names=None if names is None else names.tolist(),
        )
        write_adapter(Path(path), header, self.weights_)

    @classmethod
    def load(cls, path: str | Path) -> DomainAdapter:
        """Read what `save` wrote. Raises MutualignError that names the file if it is broken or of a newer version."""
        header, weights = read_adapter(Path(path), cls().get_params())
        adapter = cls(**header.params)
        adapter.recipe_, adapter.shape_, adapter.classes_ = header.recipe, header.shape, header.classes.array()
        adapter.n_features_in_ = arrays.row_length(header.shape, adapter.image_shape)
        if header.feature_names is not None:
            adapter.feature_names_in_ = np.asarray(header.feature_names, dtype=object)
        adapter._keep(header.result, header.label_free_score, weights)
        return adapter

    # Inputs -----------------------------------------------------------------------------------------------------------

    def _images(self, X: Any, reset: bool) -> UnlabelledImages:  # noqa: N803
        """Check images or vectors; with `reset`, later ones must look like these."""
        values = arrays.as_numpy(X)
        if arrays.axes_of(values) > 2:
            numbers = arrays.require_numbers(values)
            images = check_array(numbers, allow_nd=True, estimator=self, input_name="X", ensure_all_finite=False)
            return as_input(arrays.images_to_pixels(images), self.recipe_.pretrained)
        if self.image_shape is None:
            vectors = validate_data(self, values, dtype=np.float32, reset=reset)
            return UnlabelledImages(arrays.vectors_to_pixels(vectors))
        flat = validate_data(self, values, reset=reset)
        if flat.shape[1] != np.prod(self.image_shape):
            raise ValueError(
                f"rows of {flat.shape[1]} values are not images of image_shape={tuple(self.image_shape)}\n"
                "  hint:    give (height, width, channels)"
            )
        return as_input(arrays.images_to_pixels(flat.reshape(-1, *self.image_shape)), self.recipe_.pretrained)

    def _target(self, rows: UnlabelledImages, X_target: Any) -> UnlabelledImages | None:  # noqa: N803
        """Return the target images, from rows of X or from X_target; without any, warn and return None."""
        if X_target is not None and len(rows):
            raise ValueError("give the target as X_target or as rows of X with a sample_domain below 0, not as both")
        if X_target is not None:
            try:
                return self._images(X_target, reset=False)
            except ValueError as error:
                raise ValueError(f"X_target: {error}") from error
        if len(rows):
            return rows
        warn_of_no_target(stacklevel=5)
        return None

    # Training and inference -------------------------------------------------------------------------------------------

    def _train(self, task: Task, seed: int) -> None:
        with ExitStack() as stack:
            # Two folders deep: an experiment searches the folders next to its own for a source-only run.
            path = Path(self.run_folder or stack.enter_context(temporary_folder()) / "arrays" / "run")
            settings = {"accelerator": self.accelerator, **({"observer": EpochLines()} if self.verbose else {})}
            experiment = Experiment.start(self.recipe_, task, seed, path, **settings)
            experiment.run()
            weights, info = experiment.folder.checkpoints.load_weights(len(self.recipe_.stages) - 1, self.epoch)
            self._keep(experiment.folder.require_result(), info.scores[DEFAULT_VALIDATOR], weights)

    def _keep(self, result: Result, score: float, weights: dict[str, Tensor]) -> None:
        self.result_, self.label_free_score_, self.weights_ = result, score, weights
        self.alarms_: list[StageAlarm] = result.alarms

    def _outputs(self, X: Any, features: bool = False) -> Float[Tensor, "n outputs"]:  # noqa: N803
        """Return logits or features, float32."""
        check_is_fitted(self)
        images = self._images(X, reset=False)
        (*size, channels), (expected, *fitted) = images.pixels.shape[1:], self.shape_
        if size != fitted or channels not in (1, expected):
            raise ValueError(f"X has images of shape {(*size, channels)}; fitted on {(*fitted, expected)}")
        with standard_modes():
            fabric = make_fabric(self.recipe_.precision, self.accelerator)
            classifier = self._classifier().to(fabric.device)
            return predict_logits(classifier.features if features else classifier, images, self.shape_.channels, fabric)

    def _classifier(self) -> Classifier:
        return restore_classifier(self.recipe_.backbone, self.shape_, len(self.classes_), self.weights_)

    # What scikit-learn needs ------------------------------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    @property
    def _n_features_out(self) -> int:
        return self._classifier().feature_dim

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # features are float32, whatever X is
        return tags
