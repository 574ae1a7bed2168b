"""Archives unpacked with suspicion: of downloads into a data root, of recordings into a cache.

The kind of a file is told by its first bytes, not by its name.
"""

import atexit
import functools
import hashlib
import logging
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from slam.errors import SourceError
from slam.io.folders import entries, is_leftover
from slam.reading import open_file, reason
from slam.sources.images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
CACHE_VARIABLE = "XDG_CACHE_HOME"
MAX_NAME_BYTES = 1 << 20  # of a file in a tar, and what else is said of it
TAR_MAGIC = (257, b"ustar")  # offset, bytes
UNPACKED = {  # first bytes of what is unpacked here
    b"PK\x03\x04": "ZIP",
    b"PK\x05\x06": "ZIP",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
TAR_NAME = re.compile(r"\.tar\b|\.t[gbx]z2?$", re.IGNORECASE)
SINGLE = {"gzip": "gunzip -k", "bzip2": "bunzip2 -k", "xz": "unxz -k"}  # what unpacks a file that is no archive
REFUSED = {  # first bytes of what is not, and the command that does it
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x {0} -o{1}"),
    b"Rar!\x1a\x07": ("RAR", "unrar x {0} {1}/"),
    b"\x28\xb5\x2f\xfd": ("zstd", "tar --zstd -xf {0} -C {1}"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc {0} | tar -xf - -C {1}"),
    b"PK\x07\x08": ("split ZIP", "7z x {0} -o{1}"),
}
DAMAGE = (  # what the libraries raise for a damaged archive
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
ENTRIES = Iterator[tuple[str, int, Callable[[], IO[bytes]] | None]]


@dataclass(frozen=True)
class Limits:
    """What an archive may become at most; more is a mistake, or meant to fill the disk."""

    files: int = 1_000_000
    total_bytes: int = 500 * 10**9
    ratio: float = 200.0  # of the unpacked size to that of the archive; images hardly shrink, text by 10
    free_of_ratio_bytes: int = 100 * 10**6  # a small archive may be of black images


LIMITS = Limits()


def archive_kind(path: Path) -> str | None:
    """What kind of archive a file is, by its first bytes; None if it is none, or no file.

    Raises:
        SourceError: if the file cannot be read.
    """
    if not path.is_file():
        return None
    try:
        with open_file(path) as file:
            head = file.read(512)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {reason(error)}") from error
    known = {**UNPACKED, **{magic: name for magic, (name, _) in REFUSED.items()}}
    for magic, name in known.items():
        if head.startswith(magic):
            return name
    offset, magic = TAR_MAGIC
    return "tar" if head[offset:].startswith(magic) or _is_old_tar(head) else None


def unpacked(archive: Path, limits: Limits = LIMITS) -> Path:
    """The folder (or single file) that an archive holds, unpacked into the cache; a second call finds it there.

    Folders that hold nothing but one folder are passed through.

    Raises:
        SourceError: as `extract`, or if the archive is of a kind that is not unpacked (says the command that does it).
    """
    kind = archive_kind(archive)
    for name, command in REFUSED.values():
        if kind == name:
            folder = archive.with_name(archive.name.partition(".")[0] or "unpacked")
            told = command.format(f"'{archive}'", f"'{folder}'")
            raise SourceError(f"{archive} is a {kind} archive, which is not unpacked here; unpack it: {told}")
    status = archive.stat()
    identity = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}"
    name = re.sub(r"[^\w.-]", "_", archive.name.partition(".")[0]) or "archive"
    folder = cache_folder() / f"{name}-{hashlib.sha256(identity.encode(errors='surrogateescape')).hexdigest()[:12]}"
    if folder.is_dir():
        log.info("%s was unpacked before into %s", archive, folder)
    else:
        log.info("unpacking %s into %s", archive, folder)
        try:
            extract(archive, folder, flat=False, limits=limits)
        except SourceError:
            if not folder.is_dir():  # else another program was faster
                raise
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        log.info("%s takes %.1f MB there; delete it when you like", archive.name, size / 1e6)
    return _inmost(folder)


def cache_folder() -> Path:
    """Where archives are unpacked: below $XDG_CACHE_HOME, else ~/.cache; for this process alone where that cannot be
    written."""
    folder = Path(os.environ.get(CACHE_VARIABLE) or os.path.expanduser("~/.cache")) / "v2d-slam" / "archives"
    if not folder.is_absolute():  # a user without a home
        return _own_cache(folder, "it is no absolute path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return _own_cache(folder, reason(error))
    return folder


@functools.cache
def _own_cache(folder: Path, why: str) -> Path:
    """A cache that goes with this process."""
    own = Path(tempfile.mkdtemp(prefix="v2d-archives-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    log.warning(
        "archives are unpacked for this run alone (%s: %s); %s=FOLDER names a place to keep them, which v2d-refine and "
        "v2d-export read again",
        *(folder, why, CACHE_VARIABLE),
    )
    return own


def extract(archive: Path, folder: Path, flat: bool = True, limits: Limits = LIMITS) -> Path:
    """Unpack a tar (compressed or not) or zip file so that `folder` appears whole or not at all.

    Zip files inside it, one level down, are unpacked too (7-Scenes). Only plain files and folders below the target are
    accepted; what systems leave behind (`__MACOSX`, `._a.jpg`) is passed over.

    Args:
        flat: a single folder on top of the archive becomes `folder` itself.

    Raises:
        SourceError: if the archive is damaged, encrypted or unknown, has links, devices or paths that lead out, is
            larger than `limits`, the target exists, or the disk is full.
    """
    if folder.exists():
        raise SourceError(f"cannot unpack {archive}: {folder} exists already")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            content = temporary / "content"
            budget = _Budget(archive, limits)
            _unpack(archive, content, budget)
            children = list(entries(content))
            top = children[0] if len(children) == 1 and children[0].is_dir() else content
            for inner in sorted(top.glob("*.zip")):
                _unpack(inner, top, budget)
                inner.unlink()
            os.replace(top if flat else content, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except DAMAGE as error:
        raise SourceError(f"the archive {archive} is damaged: {error}; download it again") from error
    except OSError as error:
        if error.errno is None:  # of the decompressors of gzip and bzip2, not of the system
            raise SourceError(f"the archive {archive} is damaged: {error}; download it again") from error
        raise SourceError(f"cannot unpack {archive} to {folder}: {reason(error)}") from error
    return folder


class _Budget:
    """What may still be unpacked of an archive and those inside it."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive = archive
        self.limits = limits
        self.files = 0
        self.bytes = 0
        self.packed = archive.stat().st_size

    def take(self, size: int) -> None:
        """One more file of a size; raises SourceError if that is too much."""
        self.files += 1
        self.bytes += size
        limits = self.limits
        if self.files > limits.files:
            self._refuse(f"more than {limits.files} files")
        if self.bytes > limits.total_bytes:
            self._refuse(f"more than {limits.total_bytes / 1e9:g} GB")
        if self.bytes > max(limits.free_of_ratio_bytes, limits.ratio * self.packed):
            self._refuse(f"more than {limits.ratio:g} times its own size")

    def check_room(self, folder: Path, size: int) -> None:
        """Raises SourceError if the disk of a folder is too full for so many bytes more."""
        free = shutil.disk_usage(folder).free
        if size > free:
            raise SourceError(f"unpacking {self.archive} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")

    def _refuse(self, what: str) -> None:
        raise SourceError(
            f"{self.archive} would become {what}; it is not unpacked (if it is right, unpack it yourself)"
        )


def _unpack(archive: Path, folder: Path, budget: _Budget) -> None:
    if archive_kind(archive) == "ZIP":  # not zipfile.is_zipfile: a tar may end with a ZIP
        with zipfile.ZipFile(archive) as file:
            budget.check_room(folder.parent, sum(info.file_size for info in file.infolist()))
            _store(_zip_entries(file, archive), folder, archive, budget)
        return
    try:
        tar = tarfile.open(archive, tarinfo=_Member)  # noqa: SIM115  closed below
    except tarfile.ReadError as error:
        command = SINGLE.get(archive_kind(archive) or "")
        if command is not None and not TAR_NAME.search(archive.name):
            what = f"is no archive but a single compressed file; unpack it: {command} '{archive}'"
        else:
            what = "is neither a tar nor a zip file, or damaged; download it again"
        raise SourceError(f"{archive} {what}") from error
    with tar:
        _store(_tar_entries(tar, archive), folder, archive, budget)
        _check_end(tar)


def _store(content: ENTRIES, folder: Path, archive: Path, budget: _Budget) -> None:
    """Write files below `folder`; those without content are folders. Modes and owners are not taken over."""
    folder.mkdir(exist_ok=True)
    for name, size, opened in content:
        path = _safe(name, archive)
        budget.take(size)
        if any(is_leftover(part) for part in path.parts):
            continue
        target = folder / path
        if opened is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        budget.check_room(folder, size)
        with opened() as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)


def _zip_entries(file: zipfile.ZipFile, archive: Path) -> ENTRIES:
    for info in file.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise SourceError(f"{archive} holds a link or device ({info.filename}); it is not unpacked")
        if info.flag_bits & 1:
            raise SourceError(f"{archive} is encrypted; unpack it yourself, with its password")
        yield info.filename, info.file_size, None if info.is_dir() else functools.partial(file.open, info)


def _tar_entries(tar: tarfile.TarFile, archive: Path) -> ENTRIES:
    for member in tar:
        if not (member.isfile() or member.isdir()):
            raise SourceError(f"{archive} holds a link or device ({member.name}); it is not unpacked")
        yield member.name, member.size, None if member.isdir() else functools.partial(_content, tar, member)


class _Member(tarfile.TarInfo):
    """A file of a tar. Its long name, which stands before it, is read at once, and may be a bomb."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # meant to be overridden
        if not (self.isfile() or self.isdir()) and self.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a name of {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(tarfile_)  # type: ignore[misc]
        return member


def _check_end(tar: tarfile.TarFile) -> None:
    """Read a tar to its end: what was cut off between two files, and the checksum behind compressed data, show there.

    Raises:
        tarfile.ReadError: if there is no end.
        OSError, EOFError, zlib.error, lzma.LZMAError: if a checksum is wrong, or the compressed data is cut off.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its list of files has no end: it is cut off, or damaged")
    while tar.fileobj.read(CHUNK_BYTES):
        pass  # zeros


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    return content


def _safe(name: str, archive: Path) -> PurePosixPath:
    """The path of a file in an archive, if it stays below the target."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or any(":" in part for part in path.parts[:1]):
        raise SourceError(f"{archive} holds a path that leads out ({name}); it is not unpacked")
    return path


def _inmost(folder: Path) -> Path:
    """The first folder, going down, that holds several files or folders; or the only file."""
    path = folder
    while path.is_dir():
        children = list(entries(path))
        if len(children) != 1:
            return path
        path = children[0]
    return path if path.suffix.lower() not in IMAGE_SUFFIXES else path.parent


def _is_old_tar(head: bytes) -> bool:
    """True of the header of a tar without magic, by its checksum."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True
