"""Planted violations for no_unpacking.yaml."""
import shutil
import tarfile
import zipfile

# ruleid: no-unpacking
tarfile.open("a.tar").extractall("here")
with zipfile.ZipFile("a.zip") as archive:
    # ruleid: no-unpacking
    archive.extractall()
    # ok: no-unpacking
    archive.read("a.json")
# ruleid: no-unpacking
shutil.unpack_archive("a.tar.gz", "here")
