"""Rows of JSON that are printed as they come."""

import json
from typing import Any


class JsonRows:
    """One row as an object, several as a list of ``samples``, each printed as soon as it is there; the end of the list
    at the end of the ``with``."""

    def __init__(self) -> None:
        self.n, self._first = 0, ""

    def __enter__(self) -> "JsonRows":
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def add(self, row: dict[str, Any]) -> None:
        """Print ``row``; the first one when the next one or the end is there."""
        text = json.dumps(row, ensure_ascii=False)
        if self.n == 0:
            self._first = text
        elif self.n == 1:
            print(f'{{"samples": [\n{self._first},\n{text}', end="", flush=True)
        else:
            print(f",\n{text}", end="", flush=True)
        self.n += 1

    def close(self) -> None:
        """The end of the rows."""
        if self.n:
            print(self._first if self.n == 1 else "\n]}")
