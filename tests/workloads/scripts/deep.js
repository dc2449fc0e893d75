// Recursion 40 deep through Array.prototype.map; code made at run time, with frame pointers.
"use strict";

function bottom() {
  let total = 0;
  for (let i = 0; i < 20000; i++) total = (total * 31 + i) | 0;
  return total;
}

function descend(depth) {
  if (depth === 0) return bottom();
  return [depth - 1].map(descend)[0];
}

const seconds = Number(process.argv[2] || 0);
const end = seconds > 0 ? Date.now() + seconds * 1000 : Infinity;
console.log("ready");
let sum = 0;
while (Date.now() < end) sum ^= descend(40);
if (sum === 1.5) console.log(sum);
