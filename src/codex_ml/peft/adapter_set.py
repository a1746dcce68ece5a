"""Several adapters over one base in memory, one of them or none at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from codex_ml.errors import CheckpointError, UserError
from codex_ml.peft.adapter_config import read_adapter_config
from codex_ml.peft.adapter_files import check_shapes, load_adapter, read_adapter_tensors


class AdapterSet:
    """A base model and its adapters by name.

    Parameters
    ----------
    base : PreTrainedModel
        Shared by all of them; wrapped, not changed.
    directories : mapping
        Name -> directory of a plain LoRA adapter.

    Raises
    ------
    CheckpointError
        If one does not fit the base.
    UserError
        If one was trained with biases: those belong to the base, which all share.
    """

    def __init__(self, base: PreTrainedModel, directories: Mapping[str, Path]) -> None:
        self._base: nn.Module = base
        self._model: PeftModel | None = None
        # peft's own name of each; those of users may hold dots, which peft's may not.
        self._inner: dict[str, str] = {}
        for name, directory in directories.items():
            if read_adapter_config(directory).bias != "none":
                raise UserError(
                    f"the adapter {name} was trained with biases of the base (adapter.bias)",
                    why="the base is shared by all that is served, and its biases can be those of one only",
                    fix="merge it into a model of its own, or serve an adapter trained with adapter.bias=none",
                )
            self._add(name, directory)

    def _add(self, name: str, directory: Path) -> None:
        if self._model is None:
            assert isinstance(self._base, PreTrainedModel)
            self._model = load_adapter(self._base, directory)
            self._inner[name] = "default"
            return
        inner = f"adapter_{len(self._inner)}"
        config, tensors = read_adapter_config(directory), read_adapter_tensors(directory)
        try:
            self._model.add_adapter(inner, config)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"the adapter in {directory} does not fit this base model",
                why=str(error).splitlines()[0] if str(error) else type(error).__name__,
                fix="use an adapter that was trained on this base",
            ) from error
        check_shapes(
            directory,
            tensors,
            get_peft_model_state_dict(self._model, adapter_name=inner, save_embedding_layers=False),
        )
        set_peft_model_state_dict(self._model, tensors, adapter_name=inner)
        self._inner[name] = inner
        self._model.requires_grad_(False)
        self._model.eval()

    @contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """Give the model with one adapter, or without any, for the length of a block."""
        if self._model is None:
            yield self._base
        elif name is None:
            with self._model.disable_adapter():
                yield self._model
        else:
            self._model.set_adapter(self._inner[name], inference_mode=True)
            yield self._model
