"""Planted violations for no_network_client.yaml."""
# ruleid: no-network-client
import socket
# ruleid: no-network-client
import requests
# ruleid: no-network-client
import urllib.request
# ruleid: no-network-client
from urllib.request import urlopen
# ruleid: no-network-client
from http import client
# ruleid: no-network-client
from httpx import Client
# ok: no-network-client
from urllib.parse import urlsplit

import torch
from huggingface_hub import snapshot_download

# ruleid: no-network-client
snapshot_download("a/b")
# ruleid: no-network-client
torch.hub.load_state_dict_from_url("a")
