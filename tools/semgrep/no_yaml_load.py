"""Planted violations for no_yaml_load.yaml."""
import yaml

# ruleid: no-yaml-load
yaml.load(text, Loader=yaml.SafeLoader)
# ruleid: no-yaml-load
yaml.unsafe_load(text)
# ruleid: no-yaml-load
yaml.full_load(text)
# ruleid: no-yaml-load
yaml.compose(text)
# ok: no-yaml-load
yaml.safe_load(text)
# ok: no-yaml-load
yaml.compose(text, Loader=yaml.SafeLoader)
