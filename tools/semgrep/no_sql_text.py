"""Planted violations for no_sql_text.yaml."""
import sqlite3

import sqlalchemy

connection = sqlite3.connect("runs.db")
# ruleid: no-sql-text
connection.execute(f"SELECT * FROM runs WHERE name = '{name}'")
# ruleid: no-sql-text
connection.execute("SELECT * FROM runs WHERE name = '%s'" % name)
# ruleid: no-sql-text
connection.execute("SELECT * FROM runs WHERE name = " + name)
# ruleid: no-sql-text
connection.execute("SELECT * FROM {}".format(table))
# ruleid: no-sql-text
connection.cursor().executemany(f"INSERT INTO {table} VALUES (?)", rows)
# ruleid: no-sql-text
connection.executescript("DROP TABLE " + table)
# ruleid: no-sql-text
statement = f"DELETE FROM runs WHERE name = '{name}'"
# ruleid: no-sql-text
session.execute(sqlalchemy.text(f"SELECT {column} FROM runs"))
# ok: no-sql-text
connection.execute("SELECT * FROM runs WHERE name = ?", (name,))
# ok: no-sql-text
title = f"selected {count} from runs"
