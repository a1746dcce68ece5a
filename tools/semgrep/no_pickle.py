"""Planted violations for no_pickle.yaml."""
import json

# ruleid: no-pickle
import pickle
# ruleid: no-pickle
import pickle as p
# ruleid: no-pickle
from pickle import loads
# ruleid: no-pickle
import cloudpickle
# ruleid: no-pickle
from dill import load
# ruleid: no-pickle
from joblib import dump

import numpy as np
import pandas
import torch
from safetensors.torch import load_file

# ruleid: no-pickle
np.load("a.npy", allow_pickle=True)
# ok: no-pickle
np.load("a.npy")
# ruleid: no-pickle
pandas.read_pickle("a")
# ruleid: no-torch-load
torch.load("state.pt", weights_only=True)
# ruleid: no-torch-load
torch.save({}, "state.pt")
# ok: no-torch-load
load_file("state.safetensors")
# ok: no-pickle
json.loads("{}")
