"""Planted violations for no_eval.yaml."""
import ast
# ruleid: no-eval
import builtins
import codecs
# ruleid: no-ctypes
import ctypes
import re
import runpy
import types
# ruleid: no-eval
from builtins import eval as e
# ruleid: no-ctypes
from ctypes import CDLL
# ok: no-ctypes
from array import array

# ruleid: no-eval
eval(input())
# ruleid: no-eval
exec("a = 1")
# ruleid: no-eval
compile("a = 1", "name", "exec")
# ruleid: no-eval
__import__(name)
# ruleid: no-eval
__import__("pick" + "le")
# ruleid: no-eval
run = eval
# ruleid: no-eval
run: object = exec
# ruleid: no-eval
list(map(eval, texts))
# ruleid: no-eval
make = compile
# ruleid: no-eval
__builtins__["ev" + "al"]
# ruleid: no-eval
types.FunctionType(code, {})
# ruleid: no-eval
runpy.run_path("a.py")
# ruleid: no-eval
codecs.decode("cevag(1)", "rot13")
# ok: no-eval
model.eval()
# ok: no-eval
ast.literal_eval("1")
# ok: no-eval
re.compile("a")
# ok: no-eval
torch.compile(model)
# ok: no-eval
config.eval.split
# ok: no-eval
codecs.decode(data, "utf-8")
# ok: no-eval
docker("exec", container)


class Configuration:
    # ok: no-eval
    eval: Section = Field(default_factory=Section)
