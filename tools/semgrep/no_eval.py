"""Planted violations for no_eval.yaml."""
import ast
import re

# ruleid: no-eval
eval(input())
# ruleid: no-eval
exec("a = 1")
# ruleid: no-eval
compile("a = 1", "name", "exec")
# ruleid: no-eval
__import__(name)
# ok: no-eval
model.eval()
# ok: no-eval
ast.literal_eval("1")
# ok: no-eval
re.compile("a")
