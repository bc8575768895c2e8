"""Text files that list the images of a split, one id per line."""

from collections import Counter

from slams_ray import storage
from slams_ray.data.image import IMAGE_SUFFIXES
from slams_ray.data.names import check_file_name, check_relative_path
from slams_ray.errors import DataError


def read_id_list(path: str) -> list[str]:
    """Reads image ids in file order.

    A name may contain spaces. Two forms of published lists are accepted: everything after a word
    with an image suffix is dropped, and so is a flag (-1, 0 or 1) after a name of one word.

    Raises:
        DataError: the file is missing or empty, names an id twice, or an id cannot be a file name.
    """
    names = [_name(line.strip()) for line in read_text(path).splitlines() if line.strip()]
    for name in names:
        # Paths in VOC lists start with a slash, but are relative.
        check_relative_path(name.removeprefix("/"), path)
    ids = [_stem(name) for name in names]
    if not ids:
        raise DataError(f"list {path} is empty: it must name one image id per line")
    if len(set(ids)) < len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise DataError(f"list {path} names {twice!r} twice: name each image once")
    for image_id in ids:
        check_file_name(image_id, path)
    return ids


def read_text(path: str, check: str = "data.root, the split names and list paths") -> str:
    """Reads a UTF-8 text file without its byte order mark.

    Args:
        check: what may be wrong if the file is missing, for the message.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    if not storage.exists(path):
        raise DataError(f"{path} is missing: check {check}")
    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error


def _name(line: str) -> str:
    words = line.split()
    flagged = len(words) == 2 and words[1] in ("-1", "0", "1")
    return words[0] if flagged or words[0].lower().endswith(IMAGE_SUFFIXES) else line


def _stem(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if name.lower().endswith(IMAGE_SUFFIXES) else name
