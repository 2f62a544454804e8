"""A disk that takes no more than so many bytes a file, for a block of a test."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(most: int):
    """No file of this process grows beyond `most` bytes; the system then answers EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
