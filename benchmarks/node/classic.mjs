// classic-level, which keeps no log.

import {rm} from 'node:fs/promises';

import {ClassicLevel} from 'classic-level';

import {batches, check, fresh, putOperation, readAsked, readRecords, timed} from './common.mjs';

const OPTIONS = {valueEncoding: 'json'};

function filling(prepare, fill) {
  return async (folder) => ({
    async measure() {
      const prepared = prepare(readRecords(folder));
      const name = fresh(folder);
      const db = new ClassicLevel(name, OPTIONS);
      await db.open();
      const seconds = await timed(() => fill(db, prepared));
      await db.close();
      await rm(name, {recursive: true});
      return seconds;
    },
  });
}

function inBatches(records) {
  return batches(records, putOperation);
}

async function putBatches(db, prepared) {
  for (const batch of prepared) {
    await db.batch(batch);
  }
}

async function putEach(db, records) {
  for (const [key, value] of records) {
    await db.put(key, value);
  }
}

// Reads a store that holds the records, compacted and opened anew.
function reading(read) {
  return async (folder) => {
    const asked = readAsked(folder);
    const records = readRecords(folder);
    const name = fresh(folder);
    const db = new ClassicLevel(name, OPTIONS);
    await putBatches(db, inBatches(records));
    await db.compactRange('\x00', '\u{10ffff}');
    await db.close();
    await db.open();
    return {measure: () => timed(() => read(db, asked, records.length)), close: () => db.close()};
  };
}

async function getEach(db, asked) {
  for (const key of asked) {
    await db.get(key);
  }
}

async function getEachSync(db, asked) {
  for (const key of asked) {
    db.getSync(key);
  }
}

async function listAll(db, asked, count) {
  check((await db.iterator().all()).length, count);
}

export const workloads = {
  fillbatch: filling(inBatches, putBatches),
  fillawait: filling((records) => records, putEach),
  get: reading(getEach),
  get_sync: reading(getEachSync),
  queryall: reading(listAll),
};
