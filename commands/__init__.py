"""What a person types: the entry point, one module a command, and options that several share.

A command's help waits for neither Beam, numba nor torch.
"""
