"""Form in which a training job passes through Ray Train's controller."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PickledJob:
    """A pickled job, so that the controller neither imports torch nor prints the job.

    Unpickling this class imports its module, which therefore imports nothing large.
    """

    pickled: bytes = field(repr=False)
