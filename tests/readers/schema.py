"""A JSON file against a JSON schema: schema.py SCHEMA FILE."""

import json
import sys

import jsonschema

schema, data = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
jsonschema.validate(data, schema)
frames = len(data["shared"]["frames"])
for profile in data["profiles"]:
    assert len(profile["samples"]) == len(profile["weights"]), profile["name"]
    assert all(0 <= frame < frames for stack in profile["samples"] for frame in stack), profile["name"]
    assert profile["endValue"] == sum(profile["weights"]), profile["name"]
