// Runs a contender in Node for benchmarks/process.py:
// node --expose-gc child.mjs MODULE WORKLOAD FOLDER
//
// FOLDER holds records.jsonl and asked.json, and receives the stores. The caller deletes it.

import {createInterface} from 'node:readline';

const [name, workload, folder] = process.argv.slice(2);

function respond(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}

async function load() {
  try {
    return await import(`./${name}.mjs`);
  } catch (error) { // the package is missing, or has no LevelDB for this machine
    respond({missing: `${name}: ${error.message}`});
    return null;
  }
}

const module = await load();
if (module !== null) {
  const {measure, close} = await module.workloads[workload](folder);
  respond({ready: true});
  for await (const _ of createInterface({input: process.stdin})) {
    globalThis.gc();
    respond({seconds: await measure()});
  }
  await close?.();
}
