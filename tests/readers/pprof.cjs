// Datadog's reader of pprof's format decodes a file and writes it again without loss: pprof.cjs FILE

const assert = require("node:assert");
const fs = require("node:fs");
const zlib = require("node:zlib");
const { Profile } = require("pprof-format");

const bytes = zlib.gunzipSync(fs.readFileSync(process.argv[2]));
const profile = Profile.decode(bytes);
assert.strictEqual(profile.sampleType.length, 2);
for (const sample of profile.sample) {
  assert.strictEqual(sample.value.length, 2);
}
const locations = new Set(profile.location.map((location) => Number(location.id)));
for (const sample of profile.sample) {
  for (const id of sample.locationId) {
    assert(locations.has(Number(id)));
  }
}
const again = Profile.decode(profile.encode());
assert.strictEqual(again.sample.length, profile.sample.length);
assert.deepStrictEqual(again.stringTable.strings, profile.stringTable.strings);
