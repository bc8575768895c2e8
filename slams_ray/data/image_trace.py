"""Base class that reports the current image, to identify an image that crashes a decoder."""

from collections.abc import Callable

from slams_ray.errors import DataError


class TracedMapper:
    """Base class of work that processes images one after another.

    Attributes:
        trace: called with the name of each image before its processing; None reports nothing.
        crashed: images that crashed a process; they are refused.
    """

    trace: Callable[[str], None] | None = None
    crashed: frozenset[str] = frozenset()

    @property
    def entrance(self) -> Callable[[str], None] | None:
        """Returns `enter` if images must be reported or refused, else None.

        Work that is faster on several images at a time uses it to choose its batch size.
        """
        return self.enter if self.trace is not None or self.crashed else None

    def enter(self, image: str) -> None:
        """Reports the image that is processed next.

        Raises:
            DataError: the image crashed a process before.
        """
        if image in self.crashed:
            raise DataError(
                f"{image} crashed the processes that read it: repair it, shrink it if memory is "
                "short, or remove it from the data set. data.on_bad_image skip leaves out an image "
                "that crashes its decoder"
            )
        if self.trace is not None:
            self.trace(image)
