"""Names that a reader can tell datasets apart by."""

from collections.abc import Sequence


def short_names(folders: Sequence[str]) -> list[str]:
    """The folders' last names, with as many names before them as tell all apart.

    >>> short_names(["data/wiki/counts", "data/web/counts"])
    ['wiki/counts', 'web/counts']
    """
    paths = [folder.split("/") for folder in folders]
    for length in range(1, max(map(len, paths), default=0)):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(folders)
