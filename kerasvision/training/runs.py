"""`train`: from a model and data sets to a directory with checkpoints, history and the best model."""

from pathlib import Path

import keras

from kerasvision.data import Augmentation, CachedProposals, Dataset, pipeline
from kerasvision.files import replacing
from kerasvision.models.base import Detector, VisionModel
from kerasvision.models.non_finite import StopOnNonFiniteLoss
from kerasvision.training.callbacks import EpochCounter, RunRecorder
from kerasvision.training.checkpoint import load_checkpoint


def train(
    model: VisionModel,
    train_data,
    val_data=None,
    *,
    epochs: int,
    run_dir,
    batch_size: int | None = None,
    resume: bool = False,
    seed: int = 0,
    augment: Augmentation | bool = True,
    resize=None,
    cache: bool = False,
    max_boxes: int | None = None,
    validation_freq: int = 1,
    verbose: str | int = "auto",
    callbacks=(),
) -> dict[str, list]:
    """Train a model, keeping in `run_dir` all that is needed to look at the run or to go on with it.

    Args:
        model: A Detector or Segmenter. If it is not compiled, its recipe is used.
        train_data: A `kerasvision.data.Dataset`, or what `kerasvision.data.pipeline` returns.
        val_data: The same, for validation after each epoch.
        epochs: Number of epochs of the whole run, those before a resumption included.
        run_dir: Directory for `last.safetensors`, `best.keras`, `final.keras` and `history.json`. The best epoch is
            that of the highest AP or mIoU on `val_data`, or without it that of the lowest loss; a model that learns
            after its epochs, such as R-CNN, is best when it is finished. The boxes that a model's `proposer` finds in
            data sets are worked out first, and kept (`CachedProposals`).
        batch_size: Images a step, if data sets are given; default: the recipe's.
        resume: Go on from `last.safetensors`.
        seed: Of shuffling and augmentation.
        augment: The augmentation of training samples; ``True`` for the default, ``False`` for none.
        resize: The `ResizeRule` to train with; default: the model's.
        cache: Keep decoded samples in memory.
        max_boxes: Most boxes of one image; see `pipeline`.
        validation_freq: Validate after every so many epochs.
        verbose: As in `keras.Model.fit`.
        callbacks: Further Keras callbacks.

    Returns:
        The history: metric name to a list with one value for each epoch, ``None`` for epochs without validation.

    Raises:
        ValueError: Data that does not fit the model, or a `run_dir` that holds a run already, without `resume`.
        CheckpointError: `resume` without a usable checkpoint.
        NonFiniteLossError: A loss became NaN or infinite.
    """
    run_dir = Path(run_dir)
    last = run_dir / "last.safetensors"
    if last.exists() and not resume:
        raise ValueError(f"`run_dir` {run_dir} already holds a run; pass resume=True, or choose another directory")
    options = {
        "task": "detection" if isinstance(model, Detector) else "segmentation",
        "resize": resize or model.resize_rule,
        "batch_size": batch_size or model.recipe.batch_size,
        "max_boxes": max_boxes,
        "seed": seed,
        "cache": cache,
    }
    if model.proposer is not None:
        options["proposals"] = CachedProposals(model.proposer)
        for dataset in (train_data, val_data):
            if isinstance(dataset, Dataset):
                options["proposals"].fill(dataset, progress=verbose != 0)
    if isinstance(train_data, Dataset):
        check_classes(model, train_data)
        chosen = augment if isinstance(augment, Augmentation) else Augmentation() if augment else None
        train_data = pipeline(train_data, training=True, augment=chosen, **options)
    if isinstance(val_data, Dataset):
        check_classes(model, val_data)
        val_data = pipeline(val_data, **options)
    if not model.compiled:
        model.compile()

    done, history = 0, {}
    if resume:
        state = load_checkpoint(last, model)
        done, history = state["epoch"], state["history"]
    run_dir.mkdir(parents=True, exist_ok=True)
    figure = "val_AP" if isinstance(model, Detector) else "val_mIoU"
    # Losses of training and of validation cannot be compared: a run with validation data is judged by those alone.
    monitor = ("loss",) if val_data is None else (figure, "val_loss")
    recorder = RunRecorder(run_dir, history=history, monitor=monitor, extra={"seed": seed, "epochs": epochs})
    names = getattr(train_data, "batch_names", None)
    own = [recorder, StopOnNonFiniteLoss(names, note="the last checkpoint is untouched")]
    if hasattr(train_data, "set_epoch"):
        own.insert(0, EpochCounter(train_data))
    model.fit(
        train_data,
        epochs=epochs,
        initial_epoch=done,
        validation_data=val_data,
        validation_freq=validation_freq,
        callbacks=[*own, *callbacks],
        shuffle=False,  # pipelines shuffle themselves; Keras warns where it cannot
        verbose=verbose,
    )
    model.save(run_dir / "final.keras")
    if model.learns_after_epochs:  # those of the epochs are unfinished
        with replacing(run_dir / "best.keras") as partial:
            model.save(partial)
    return recorder.history


def check_classes(model: VisionModel, dataset: Dataset) -> None:
    """Raise a ValueError if a data set's classes do not fit the model's head; name the model's classes if unnamed."""
    detects = isinstance(model, Detector)
    task = "detection" if detects else "segmentation"
    if task not in dataset.tasks:
        raise ValueError(
            f"`train_data` {dataset.name!r} has annotations for {', '.join(sorted(dataset.tasks)) or 'nothing'}, "
            f"but {model.name} needs {task}"
        )
    classes = dataset.classes if detects else dataset.mask_classes
    if len(classes) != model.num_classes:
        raise ValueError(
            f"`model` {model.name} tells {model.num_classes} classes apart, but {dataset.name!r} has {len(classes)} "
            f"({', '.join(classes[:5])} ...); build it with num_classes={len(classes)}"
        )
    if model.class_names is None:
        model.class_names = tuple(classes)
    elif tuple(model.class_names) != tuple(classes):
        raise ValueError(
            f"`model` {model.name} was made for the classes {', '.join(model.class_names[:5])} ..., but "
            f"{dataset.name!r} has {', '.join(classes[:5])} ...; build it with class_names of the data set"
        )


def load_model(path) -> keras.Model:
    """Load a model that `train` or `model.save` wrote; executes no code from the file.

    Raises:
        ValueError: No such file, or one that Keras cannot read.
    """
    import kerasvision.models  # noqa: F401 (registers the classes)

    path = Path(path)
    if not path.exists():
        raise ValueError(f"`path` {path} does not exist")
    try:
        return keras.saving.load_model(path)
    except (ValueError, TypeError, OSError, KeyError) as error:
        raise ValueError(f"`path` {path} cannot be loaded as a Keras model: {str(error).splitlines()[0]}") from error
