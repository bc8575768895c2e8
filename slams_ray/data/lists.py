"""Text files that name the images of a split, one id a line."""

from slams_ray import storage
from slams_ray.data.names import check_file_name, check_relative_path
from slams_ray.errors import DataError


def read_id_list(path: str) -> list[str]:
    """Ids in file order, the first word of each line: VOC's pairs of paths work as well.

    Raises:
        DataError: the file is missing, empty, names an id twice, or one that is no file name.
    """
    words = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    for word in words:
        # VOC's paths start with a slash and are relative all the same.
        check_relative_path(word.removeprefix("/"), path)
    ids = [_stem(word) for word in words]
    if not ids:
        raise DataError(f"list {path} is empty: it must name one image id a line")
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"list {path} names {twice!r} twice: name each image once")
    for image_id in ids:
        check_file_name(image_id, path)
    return ids


def read_text(path: str) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        DataError: the file is missing or is no such text.
    """
    if not storage.exists(path):
        raise DataError(f"{path} is missing: check data.root, the split names and list paths")
    try:
        return storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}): save it as UTF-8") from error


def _stem(word: str) -> str:
    name = word.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if name.lower().endswith((".jpg", ".jpeg", ".png")) else name
