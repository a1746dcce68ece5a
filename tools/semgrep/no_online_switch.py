"""Planted violations for no_online_switch.yaml."""
import os

# ruleid: no-online-switch
os.environ["HF_HUB_OFFLINE"] = "0"
# ruleid: no-online-switch
os.environ.pop("MLFLOW_DISABLE_TELEMETRY", None)
# ruleid: no-online-switch
del os.environ["HF_HUB_DISABLE_TELEMETRY"]
# ruleid: no-online-switch
os.environ.setdefault("WANDB_MODE", "online")
# ok: no-online-switch
os.environ["OMP_NUM_THREADS"] = "1"
# ok: no-online-switch
os.environ.get("HF_HUB_OFFLINE")
