"""Planted violations for no_shell.yaml."""
import os
import subprocess
from subprocess import run

# ruleid: no-shell
subprocess.run("ls " + name, shell=True)
# ruleid: no-shell
run(name, check=True, shell=wanted)
# ruleid: no-shell
subprocess.getoutput("ls")
# ruleid: no-shell
os.system("ls")
# ruleid: no-shell
os.popen("ls")
# ok: no-shell
subprocess.run(["ls", name], check=True)
# ok: no-shell
subprocess.run(["ls"], shell=False)
