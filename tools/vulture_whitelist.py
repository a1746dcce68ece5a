"""What vulture calls unused and is not; each with the reason. Code that nothing calls is deleted, not listed here."""

from __future__ import annotations

# Called by a library through a name or a decorator.
_.model_config  # pydantic reads it
_._check_rules  # a pydantic validator
_._check_rule  # a pydantic validator
_.showwarning  # the warnings module calls it
_.unraisablehook  # the interpreter calls it
_.show_version  # an option whose callback Typer calls
_.error_type  # a parameter of __exit__, which Python passes
_.pad_token  # set for the tokenizer, which reads it
_.inference_mode  # set in a PEFT config that is then written

# Fields of the configuration that are read by name; tools/check_dead_options.py knows by whom.
_.task_type
_.r
_.alpha
_.dropout
_.target_modules
_.schema_version

# Entries of registries, loaded by "module:attribute".
_.ROUGE_1
_.ROUGE_2
_.ROUGE_L
_.ROUGE_LSUM
_.F1
_.EXACT_MATCH
_.create_mlflow_sink

# Read as part of the whole: compared, or written with all its fields.
_.inode  # a key of the digest cache

# Named by the requirements as what users call from Python.
_.split_jsonl
_.assign_split
_.val  # of SplitPaths
_.iter_jsonl
_.read_ndjson
_.permutation  # the order of an epoch as a pure function (DESIGN.md, promise 4)

# Called or read by the standard library's logging.
_.handleError
_.converter

# Held by a test against the page that lists them for users.
_.changeable_keys

# Read by Typer and by the tokenizers library.
_.__signature__
_.__annotations__
_.pre_tokenizer
_.decoder

# Read by RE2, from its options.
_.log_errors
_.max_mem

# For a policy that is held as text; the tests and benchmarks do.
_.parse_policy
_._check_permission

# Called by pydantic, FastAPI and uvicorn, or read by them.
_._stream_options_need_a_stream
_._one_limit
_.health
_.ready
_.capture_signals
_.disabled
_.force_exit
_.limit_concurrency
_.should_exit
_.generation_config  # of a model: transformers writes it into a checkpoint
_.LOSS  # registry.py names it
_.PERPLEXITY
_.TOKEN_ACCURACY
_.constant
_.cosine
_.best_checkpoint  # api.py: read by users
