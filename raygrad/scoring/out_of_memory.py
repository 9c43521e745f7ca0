"""Tells errors that a smaller batch mends from all others."""

import torch

_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "failed to allocate",
    # A library's own workspace did not fit.
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
    "cublaslt_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_insufficient_resources",
    "cufft_alloc_failed",
    # What convolutions say where no algorithm's workspace fits.
    "unable to find a valid cudnn algorithm",
    "was unable to find an engine to execute this computation",
)
"""Parts of messages, in lower case. Torch raises `torch.OutOfMemoryError` for its own memory alone;
the libraries that it calls fail with their own words in a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory did not suffice, on a GPU or on a CPU.

    A library that cannot begin for another reason may say the same: who makes a batch smaller must
    raise the error where it cannot be smaller.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)
