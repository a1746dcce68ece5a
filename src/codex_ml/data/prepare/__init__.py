"""Raw files made into records, and what that needs: preparers, readers of raw files, a tokenizer trained on them."""
