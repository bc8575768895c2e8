"""Mappers that tell which image they are at: one that crashes native code takes the process."""

from collections.abc import Callable

from slams_ray.errors import DataError


class TracedMapper:
    """Work on images, one after another.

    Attributes:
        trace: called with the name of each image before it is worked on, where it is given.
        crashed: images that have ended processes; they are refused.
    """

    trace: Callable[[str], None] | None = None
    crashed: frozenset[str] = frozenset()

    @property
    def entrance(self) -> Callable[[str], None] | None:
        """`enter` where somebody wants to know, for work that is faster on several images."""
        return self.enter if self.trace is not None or self.crashed else None

    def enter(self, image: str) -> None:
        """To be called before each image.

        Raises:
            DataError: the image has ended processes.
        """
        if image in self.crashed:
            raise DataError(
                f"{image} ended the processes that worked on it: mend it, shrink it if memory is "
                "short, or remove it from the data set; one that cannot be decoded is left out by "
                "data.on_bad_image skip"
            )
        if self.trace is not None:
            self.trace(image)
