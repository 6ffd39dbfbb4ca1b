"""Named public data sets and where to find them."""

import dataclasses
import json
from pathlib import Path

from tickwise.cli.common_flags import CommonArguments


@dataclasses.dataclass(frozen=True)
class Arguments(CommonArguments):
    """See the module's text."""

    data_dir: Path | None = None
    """The folder that has a folder for each data set; by default $TICKWISE_DATA, else in the cache."""


def run(arguments: Arguments) -> int:
    from tickwise.data.catalogue import DATA_SETS, data_directory

    result = []
    for entry in DATA_SETS.values():
        where = "local" if entry.is_local(arguments.data_dir) else "hub" if entry.hub else "missing"
        result.append({
            "name": entry.name, "task": entry.task, "language": entry.language, "licence": entry.licence,
            "description": entry.description, "available": where, "splits": list(entry.files),
            "folder": str(data_directory(arguments.data_dir) / entry.folder),
            "files": {split: list(names) for split, names in entry.files.items()},
            "hub": entry.hub.path if entry.hub else None,
        })
    if arguments.json:
        print(json.dumps({"data_dir": str(data_directory(arguments.data_dir)), "data_sets": result}))
        return 0
    for row in result:
        print(f"{row['name']:<17} {row['available']:<8} {row['language']:<9} {row['task']}: {row['description']} "
              f"[{row['licence']}]")
    print(f"\nlocal: in {data_directory(arguments.data_dir)} (--data-dir or $TICKWISE_DATA changes it); hub: is "
          "downloaded when used; missing: put its files there\n"
          "use one by its name: tickwise data prepare NAME --out DIR")
    return 0
