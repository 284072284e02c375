// @treehub/level on leveldown.

import {rm} from 'node:fs/promises';
import {promisify} from 'node:util';

import Level from '@treehub/level';
import leveldown from 'leveldown';

import {batches, checkCount, newStorePath, putOperation, readKeys, readRecords, timed} from './common.mjs';

const MIB = 1024 * 1024;
// The defaults of treehub-level's backends; leveldown uses the same filter.
const TUNED = {writeBufferSize: 64 * MIB, cacheSize: 32 * MIB, maxOpenFiles: 1000};

function writeWorkload(prepare, fill, options = {}) {
  return async (folder) => ({
    async measure() {
      const prepared = prepare(readRecords(folder));
      const name = newStorePath(folder);
      const level = new Level({name, backend: leveldown, mode: Level.SERVER});
      await level.open(options);
      const seconds = await timed(() => fill(level, prepared));
      await level.close();
      await rm(name, {recursive: true});
      return seconds;
    },
  });
}

function inBatches(records) {
  return batches(records, putOperation);
}

async function putBatches(level, prepared) {
  for (const batch of prepared) {
    await level.batch(batch);
  }
}

async function putEach(level, records) {
  for (const [key, value] of records) {
    await level.put(key, value);
  }
}

// Returns a store of the records that was compacted and reopened.
async function filledStore(folder) {
  const records = readRecords(folder);
  const name = newStorePath(folder);
  const level = new Level({name, backend: leveldown});
  await level.open(TUNED);
  await putBatches(level, inBatches(records));
  await level.close();
  const db = leveldown(name);
  await promisify(db.open.bind(db))({});
  await promisify(db.compactRange.bind(db))('\x00', '\u{10ffff}');
  await promisify(db.close.bind(db))();
  const reopened = new Level({name, backend: leveldown});
  await reopened.open();
  return {level: reopened, count: records.length};
}

async function get(folder) {
  const keys = readKeys(folder);
  const {level} = await filledStore(folder);
  return {
    measure: () => timed(async () => {
      for (const key of keys) {
        await level.get(key);
      }
    }),
    close: () => level.close(),
  };
}

async function queryall(folder) {
  const {level, count} = await filledStore(folder);
  return {
    measure: () => timed(async () => {
      checkCount((await level.query()).length, count);
    }),
    close: () => level.close(),
  };
}

export const workloads = {
  fillbatch: writeWorkload(inBatches, putBatches),
  fillbatch_tuned: writeWorkload(inBatches, putBatches, TUNED),
  fillawait: writeWorkload((records) => records, putEach),
  get,
  queryall,
};
