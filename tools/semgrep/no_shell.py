"""Planted violations for no_shell.yaml."""
import functools
import os
# ruleid: no-shell
import pty
import subprocess
# ruleid: no-shell
from os import system as s
from subprocess import run

# ruleid: no-shell
import posix

# ruleid: no-shell
subprocess.run("ls " + name, shell=True)
# ruleid: no-shell
run(name, check=True, shell=wanted)
# ruleid: no-shell
functools.partial(run, shell=True)
# ruleid: no-shell
start = subprocess.Popen
# ruleid: no-shell
start(name, shell=True)
# ruleid: no-shell
options = {"check": True, "shell": True}
# ruleid: no-shell
subprocess.run(name, **options)
# ruleid: no-shell
subprocess.run(["/bin/sh", "-c", name])
# ruleid: no-shell
subprocess.Popen(["bash", "-euc", name])
# ruleid: no-shell
subprocess.getoutput("ls")
# ruleid: no-shell
os.system("ls")
# ruleid: no-shell
s("ls")
# ruleid: no-shell
call = os.system
# ruleid: no-shell
os.popen("ls")
# ruleid: no-shell
pty.spawn("ls")
# ok: no-shell
subprocess.run(["ls", name], check=True)
# ok: no-shell
subprocess.run(["ls"], shell=False)
# ok: no-shell
subprocess.run([python, "-c", program], check=True)
# ok: no-shell
command(*arguments, **options)
# ok: no-shell
os.execvp("ls", ["ls", name])
