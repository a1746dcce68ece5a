"""Files of records divided into splits: the hash that decides, and files of any size written whole or not at all."""
