"""Compiles a grammar in a process of its own, so that one that exhausts time, memory or stack ends only that process.

    python grammar_check.py < GRAMMAR

Reads one of llguidance's grammars (its JSON form) and prints what is wrong with it, or nothing. Run as a file: it
imports nothing of tickwise, and starts in a few dozen milliseconds.
"""

import sys
import threading

CPU_SECONDS = 5
MEMORY_BYTES = 2**31
# Half of what the threads have that compile the grammar afterwards.
STACK_BYTES = 2**22


def main() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the caller's own time limit stays
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import llguidance

    grammar = sys.stdin.buffer.read().decode("utf-8")
    problems: list[str] = []

    def compile_it() -> None:
        matcher = llguidance.LLMatcher(
            llguidance.LLTokenizer("byte"), grammar, log_level=0, limits=llguidance.LLParserLimits(verbose_errors=False)
        )
        if not matcher.is_error():
            matcher.compute_bitmask()
        problems.append(matcher.get_error())

    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=compile_it)
    thread.start()
    thread.join()
    sys.stdout.buffer.write((problems[0] if problems else "it cannot be compiled").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
