// Code that the contenders share: reading the records, and measuring time.

import {readFileSync} from 'node:fs';
import {join} from 'node:path';

const BATCH = 1000;

let stores = 0;

// Returns an unused path within the folder.
export function newStorePath(folder) {
  stores += 1;
  return join(folder, `store-${stores}`);
}

// Returns new [key, value] pairs at each call, because @treehub/level changes its arguments.
export function readRecords(folder) {
  return readFileSync(join(folder, 'records.jsonl'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
}

// Returns the keys to read.
export function readKeys(folder) {
  return JSON.parse(readFileSync(join(folder, 'asked.json'), 'utf8'));
}

// Returns `make(key, value)` for each pair, in batches of the size that all contenders use.
export function batches(records, make) {
  const result = [];
  for (let start = 0; start < records.length; start += BATCH) {
    result.push(records.slice(start, start + BATCH).map(([key, value]) => make(key, value)));
  }
  return result;
}

export function putOperation(key, value) {
  return {type: 'put', key, value};
}

// Returns the duration of `work`, in seconds.
export async function timed(work) {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start) / 1e9;
}

export function checkCount(actual, expected) {
  if (actual !== expected) {
    throw new Error(`${actual} rows instead of ${expected}`);
  }
}
