// classic-level, which keeps no change log.

import {rm} from 'node:fs/promises';

import {ClassicLevel} from 'classic-level';

import {batches, checkCount, newStorePath, putOperation, readKeys, readRecords, timed} from './common.mjs';

const OPTIONS = {valueEncoding: 'json'};

function writeWorkload(prepare, fill) {
  return async (folder) => ({
    async measure() {
      const prepared = prepare(readRecords(folder));
      const name = newStorePath(folder);
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

// Reads a store of the records that was compacted and reopened.
function readWorkload(read) {
  return async (folder) => {
    const keys = readKeys(folder);
    const records = readRecords(folder);
    const name = newStorePath(folder);
    const db = new ClassicLevel(name, OPTIONS);
    await putBatches(db, inBatches(records));
    await db.compactRange('\x00', '\u{10ffff}');
    await db.close();
    await db.open();
    return {measure: () => timed(() => read(db, keys, records.length)), close: () => db.close()};
  };
}

async function getEach(db, keys) {
  for (const key of keys) {
    await db.get(key);
  }
}

async function getEachSync(db, keys) {
  for (const key of keys) {
    db.getSync(key);
  }
}

async function listAll(db, keys, count) {
  checkCount((await db.iterator().all()).length, count);
}

export const workloads = {
  fillbatch: writeWorkload(inBatches, putBatches),
  fillawait: writeWorkload((records) => records, putEach),
  get: readWorkload(getEach),
  get_sync: readWorkload(getEachSync),
  queryall: readWorkload(listAll),
};
