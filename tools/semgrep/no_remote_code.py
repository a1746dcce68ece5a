"""Planted violations for no_remote_code.yaml."""
from transformers import AutoModelForCausalLM, AutoTokenizer

# ruleid: no-trust-remote-code
AutoModelForCausalLM.from_pretrained("m", trust_remote_code=True)
# ruleid: no-trust-remote-code
AutoTokenizer.from_pretrained("m", trust_remote_code=wanted)
# ruleid: no-trust-remote-code
settings = {"local_files_only": True, "trust_remote_code": True}
# ruleid: no-trust-remote-code
settings["trust_remote_code"] = 1
# ok: no-trust-remote-code
AutoModelForCausalLM.from_pretrained("m", trust_remote_code=False)
# ok: no-trust-remote-code
settings = {"trust_remote_code": False}
