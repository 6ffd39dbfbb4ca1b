"""Telling a machine without memory from a fault of the program."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether ``problem`` is Python's, torch's or an accelerator's way to say that an allocation failed."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    text = str(problem)
    signs = ("can't allocate memory", "not enough memory", "backend out of memory", "out of memory. Tried to allocate")
    return isinstance(problem, RuntimeError) and any(sign in text for sign in signs)
