// What the contenders share: the records that they were handed, and the clock.

import {readFileSync} from 'node:fs';
import {join} from 'node:path';

const BATCH = 1000;

let stores = 0;

// A path within the folder where nothing is.
export function fresh(folder) {
  stores += 1;
  return join(folder, `store-${stores}`);
}

// [key, value] pairs, made anew at each call: @treehub/level changes what it is handed.
export function readRecords(folder) {
  return readFileSync(join(folder, 'records.jsonl'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
}

export function readAsked(folder) {
  return JSON.parse(readFileSync(join(folder, 'asked.json'), 'utf8'));
}

// What `make` makes of each pair, in batches of the size that all contenders use.
export function batches(records, make) {
  const made = [];
  for (let at = 0; at < records.length; at += BATCH) {
    made.push(records.slice(at, at + BATCH).map(([key, value]) => make(key, value)));
  }
  return made;
}

export function putOperation(key, value) {
  return {type: 'put', key, value};
}

// The seconds that `work` takes.
export async function timed(work) {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

export function check(got, wanted) {
  if (got !== wanted) {
    throw new Error(`${got} rows instead of ${wanted}`);
  }
}
