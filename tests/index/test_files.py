from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from ragagent.errors import Damaged, Invalid, StorageFull, Unavailable
from ragagent.index import files


def test_a_mapped_array_is_read_only_and_ends_at_its_count(tmp_path: Path) -> None:
    path = tmp_path / "rows.i64"
    files.write_at(path, 0, np.arange(10, dtype=np.int64))
    view = files.mapped(path, np.int64, 3, 2)
    assert view.tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


def test_a_short_file_is_damaged_and_never_mapped(tmp_path: Path) -> None:
    path = tmp_path / "rows.i64"
    path.write_bytes(b"x" * 47)
    with pytest.raises(Damaged, match="47 bytes; its manifest counts 48"):
        files.mapped(path, np.int64, 3, 2)


def test_nothing_maps_to_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "rows.i64").touch()
    assert files.mapped(tmp_path / "rows.i64", np.int64, 0, 2).shape == (0, 2)


@pytest.mark.parametrize("store_id", ["", ".", "..", "a/b", "../vs_1", "vs_1\n", "v" * 129, "店"])
def test_a_store_id_that_is_no_plain_name_is_refused(tmp_path: Path, store_id: str) -> None:
    with pytest.raises(Invalid, match="Store id"):
        files.store_path(tmp_path, store_id)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), StorageFull),
        (ValueError(f"An IO error occurred: '{os.strerror(errno.ENOSPC)} (os error 28)'"), StorageFull),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), Unavailable),
        (RuntimeError("could not open x: Too many open files"), Unavailable),
        (RuntimeError("Index type 0x78 not recognized"), Damaged),
        (FileNotFoundError(errno.ENOENT, "no such file", "/x/rows.i64"), Damaged),
    ],
)
def test_only_the_data_s_own_fault_is_called_damage(error: Exception, kind: type[Exception]) -> None:
    """Damage has the index thrown away: a full disk or a lack of descriptors must not look like it."""
    with pytest.raises(kind), files.reading("The index"):
        raise error


def test_what_writing_raises_is_translated() -> None:
    with pytest.raises(StorageFull), files.writing("The index"):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    with pytest.raises(Unavailable), files.writing("The index"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
