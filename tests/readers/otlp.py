"""Google's protobuf reads the same from OTLP's two encodings: otlp.py BINARY JSON."""

import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.profiles.v1development.profiles_pb2 import ProfilesData

binary = ProfilesData()
with open(sys.argv[1], "rb") as file:
    binary.ParseFromString(file.read())

with open(sys.argv[2], encoding="utf-8") as file:
    data = json.load(file)
# OTLP writes these ids in hex, where proto3's JSON has base64.
for resource in data["resourceProfiles"]:
    for scope in resource["scopeProfiles"]:
        for profile in scope["profiles"]:
            profile["profileId"] = base64.b64encode(bytes.fromhex(profile["profileId"])).decode()
parsed = json_format.ParseDict(data, ProfilesData())
assert parsed == binary, "the encodings differ"
