# What nanobind's stubgen cannot know: the type of the one function that is not nanobind's.
einstride._core.einsum:
    \from typing import Any
    \import numpy.typing
    def einsum(
        subscripts: object = ...,
        /,
        *operands: object,
        out: numpy.typing.NDArray[Any] | None = None,
        dtype: numpy.typing.DTypeLike | None = None,
        order: object = "K",
        casting: object = "safe",
        optimize: object = "auto",
        memory: int | None = None,
    ) -> Any:
        """
        The sum of products of the operands' elements that the subscripts describe, as numpy.einsum computes it.
        """
