"""The tasks of ``tickwise run TASK``: who answers each, without importing any.

To add one: a line here, and a module in ``cli/`` with the named ``Arguments`` class (``cli/task_flags.py`` has what
tasks share) and ``run(arguments)``.
"""

TASKS: dict[str, tuple[str, str]] = {
    "entities": ("run_entities:Arguments", "find named entities; train on tagged files of your own"),
    "keywords": ("run_keywords:Arguments", "the words and phrases that matter in a text"),
}
"""Task → ("module:class" in ``tickwise.cli``, what it does in a line)."""
