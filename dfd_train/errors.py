"""The error tree of `dfd_train`: one base, each leaf also the built-in error that a caller would expect."""


class DfdTrainError(Exception):
    """Base of every error that `dfd_train` raises on purpose; the message is one line and says what to do."""


class ConfigError(DfdTrainError, ValueError):
    """A configuration value that cannot be used."""


class CheckpointError(DfdTrainError, ValueError):
    """A checkpoint that is damaged, foreign, or of another model."""


class CheckpointMissingError(CheckpointError, FileNotFoundError):
    """A checkpoint that is not there."""


class NonFiniteError(DfdTrainError, ArithmeticError):
    """A loss, gradient or prediction that is NaN or infinite."""


class EvaluationError(DfdTrainError, ValueError):
    """An image that cannot be scored, for example one without any valid depth."""


class PictureError(DfdTrainError, ValueError):
    """A picture file that cannot be read, written or used; the message names it."""


class ExportError(DfdTrainError, RuntimeError):
    """An export that cannot be made or written."""


class DistributedError(DfdTrainError, RuntimeError):
    """Another process of the run failed, ended or does not answer."""


def memory_shortage(error: BaseException) -> str | None:
    """What to say of an error, where it is about a shortage of memory.

    Parameters
    ----------
    error
        Any, as Python or torch raise it.

    Returns
    -------
    str | None
        A line on the machine's memory or a GPU's; None for an error about something else.
    """
    reason = str(error).partition("\n")[0].partition(". GPU ")[0]
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if known or "not enough memory" in reason or "can't allocate memory" in reason:
        return f"memory is short: {reason or 'no more could be had'}"
    return None
