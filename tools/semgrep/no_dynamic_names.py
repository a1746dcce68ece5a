"""Planted violations for no_dynamic_names.yaml."""
import importlib
import importlib.util
import operator
import os
import pkgutil
import pydoc
import subprocess
import sys
from importlib import import_module
from importlib import import_module as load

# ruleid: no-dynamic-import
importlib.import_module(name)
# ruleid: no-dynamic-import
importlib.import_module("pick" + "le")
# ruleid: no-dynamic-import
import_module(f"stdnum.{name}")
# ruleid: no-dynamic-import
load("".join(["pick", "le"]))
# ruleid: no-dynamic-import
importlib.__import__("pick" + "le")
# ruleid: no-dynamic-import
find = importlib.import_module
# ruleid: no-dynamic-import
importlib.util.spec_from_file_location("a", "a.py")
# ruleid: no-dynamic-import
pkgutil.resolve_name(name)
# ruleid: no-dynamic-import
pydoc.locate(name)
# ruleid: no-dynamic-import
entry_point.load()
# ok: no-dynamic-import
importlib.import_module("mlflow")
# ok: no-dynamic-import
importlib.metadata.version(name)
# ok: no-dynamic-import
json.load(handle)

# ruleid: no-dynamic-attribute
getattr(module, "ev" + "al")
# ruleid: no-dynamic-attribute
getattr(module, "lave"[::-1])
# ruleid: no-dynamic-attribute
getattr(module, "".join(["ev", "al"]))
# ruleid: no-dynamic-attribute
getattr(module, f"ev{rest}")
# ruleid: no-dynamic-attribute
getattr(module, "%sal" % "ev")
# ruleid: no-dynamic-attribute
getattr(os, name)("ls")
# ruleid: no-dynamic-attribute
getattr(subprocess, "getoutput")("ls")
# ruleid: no-dynamic-attribute
getattr(importlib.import_module("os"), name)
# ruleid: no-dynamic-attribute
vars(os)[name]("ls")
# ruleid: no-dynamic-attribute
os.__dict__[name]("ls")
# ruleid: no-dynamic-attribute
globals()[name]("ls")
# ruleid: no-dynamic-attribute
operator.attrgetter(name)(module)
# ruleid: no-dynamic-attribute
operator.methodcaller("sys" + "tem", "ls")(os)
# ruleid: no-dynamic-attribute
sys.modules[name].system("ls")
# ruleid: no-dynamic-attribute
object.__subclasses__()
# ruleid: no-dynamic-attribute
().__class__.__bases__
# ok: no-dynamic-attribute
getattr(config, name)
# ok: no-dynamic-attribute
getattr(error, "filename", None)
# ok: no-dynamic-attribute
getattr(os, "sched_getaffinity", None)
# ok: no-dynamic-attribute
operator.attrgetter("name")
# ok: no-dynamic-attribute
vars(account).items()
# ok: no-dynamic-attribute
loaded = sys.modules
