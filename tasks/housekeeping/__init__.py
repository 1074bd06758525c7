"""What runs have left on the disk: what it is, what it is good for, and how to be rid of it.

item.py            one thing that a run has made
data_items.py      what lies in data folders
model_items.py     model folders, promoted versions, interrupted trainings
cache_items.py     what a user's runs share: token rows, search indexes, logs, results of tasks
inventory.py       all of it
prune.py           which of it may go, and its going
"""
