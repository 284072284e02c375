// A contender in Node, as benchmarks/process.py wants it: node --expose-gc child.mjs MODULE WORKLOAD FOLDER.
// FOLDER holds records.jsonl and asked.json, and is where stores go. Whoever made it removes it.

import {createInterface} from 'node:readline';

const [name, workload, folder] = process.argv.slice(2);

function answer(object) {
  process.stdout.write(`${JSON.stringify(object)}\n`);
}

async function load() {
  try {
    return await import(`./${name}.mjs`);
  } catch (error) { // no such package, or one whose LevelDB is not made for this machine
    answer({missing: `${name}: ${error.message}`});
    return null;
  }
}

const module = await load();
if (module !== null) {
  const {measure, close} = await module.workloads[workload](folder);
  answer({ready: true});
  for await (const _ of createInterface({input: process.stdin})) {
    globalThis.gc();
    answer({seconds: await measure()});
  }
  await close?.();
}
