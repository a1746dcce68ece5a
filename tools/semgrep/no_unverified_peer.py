"""Planted violations for no_unverified_peer.yaml."""
import ssl

# ruleid: no-unverified-peer
session.get("a", verify=False)
# ruleid: no-unverified-peer
context = ssl._create_unverified_context()
# ruleid: no-unverified-peer
context.check_hostname = False
# ruleid: no-unverified-peer
context.verify_mode = ssl.CERT_NONE
# ok: no-unverified-peer
context = ssl.create_default_context()
# ok: no-unverified-peer
session.get("a", verify="authority.pem")
