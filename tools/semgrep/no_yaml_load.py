"""Planted violations for no_yaml_load.yaml."""
import yaml
# ruleid: no-yaml-load
from yaml import unsafe_load as u

# ruleid: no-yaml-load
yaml.load(text, Loader=yaml.SafeLoader)
# ruleid: no-yaml-load
yaml.unsafe_load(text)
# ruleid: no-yaml-load
yaml.full_load(text)
# ruleid: no-yaml-load
u(text)
# ruleid: no-yaml-load
read = yaml.load
# ruleid: no-yaml-load
class Reader(yaml.UnsafeLoader):
    pass
# ruleid: no-yaml-load
getattr(yaml, "unsafe_load")(text)
# ruleid: no-yaml-load
yaml.compose(text)
# ok: no-yaml-load
yaml.safe_load(text)
# ok: no-yaml-load
yaml.compose(text, Loader=yaml.SafeLoader)
# ok: no-yaml-load
getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# ok: no-yaml-load
yaml.YAMLError
