"""Planted violations for no_pickle.yaml."""
import importlib
import json
import multiprocessing
import sys

# ruleid: no-pickle
import pickle
# ruleid: no-pickle
import pickle as p
# ruleid: no-pickle
from pickle import loads
# ruleid: no-pickle
from pickle import loads as read
# ruleid: no-pickle
from pickle import *
# ruleid: no-pickle
import _pickle
# ruleid: no-pickle
from _pickle import Unpickler
# ruleid: no-pickle
import cPickle
# ruleid: no-pickle
import cloudpickle
# ruleid: no-pickle
from dill import load
# ruleid: no-pickle
from joblib import dump
# ruleid: no-pickle
import shelve
# ruleid: no-pickle
from marshal import loads
# ruleid: no-pickle
import jsonpickle
# ruleid: no-pickle
import copyreg
# ruleid: no-pickle
from multiprocessing.reduction import ForkingPickler
# ruleid: no-pickle
from multiprocessing import reduction
# ruleid: no-pickle
import multiprocessing.reduction
# ruleid: no-pickle
from multiprocessing.connection import Client
# ruleid: no-pickle
multiprocessing.reduction.ForkingPickler.loads(data)
# ok: no-pickle
from multiprocessing import get_context
# ok: no-pickle
import pickletools_report
# ok: no-pickle
from codex_ml.runs.manifest import is_pickle

import numpy as np
import pandas
import torch
from safetensors.torch import load_file
# ruleid: no-torch-load
from torch import load as read_weights

# ruleid: no-pickle
importlib.import_module("pickle")
# ruleid: no-pickle
importlib.import_module("pick" + "le")
# ruleid: no-pickle
__import__("_pick" + "le")
# ruleid: no-pickle
sys.modules["pickle"]
# ok: no-pickle
importlib.import_module("mlflow")
# ruleid: no-pickle
np.load("a.npy", allow_pickle=True)
# ruleid: no-pickle
np.load("a.npy", allow_pickle=wanted)
# ok: no-pickle
np.load("a.npy")
# ok: no-pickle
np.load("a.npy", allow_pickle=False)
# ruleid: no-pickle
pandas.read_pickle("a")
# ruleid: no-pickle
read = pandas.read_pickle
# ok: no-pickle
pandas.read_parquet("a")
# ruleid: no-torch-load
torch.load("state.pt", weights_only=True)
# ruleid: no-torch-load
read = torch.load
# ruleid: no-torch-load
torch.save({}, "state.pt")
# ruleid: no-torch-load
torch.jit.load("state.pt")
# ruleid: no-torch-load
torch.serialization.load("state.pt")
# ok: no-torch-load
load_file("state.safetensors")
# ok: no-torch-load
model.load(torch.float32)
# ok: no-pickle
json.loads("{}")
