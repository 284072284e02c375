// @treehub/level on leveldown.

import {rm} from 'node:fs/promises';
import {promisify} from 'node:util';

import Level from '@treehub/level';
import leveldown from 'leveldown';

import {batches, check, fresh, putOperation, readAsked, readRecords, timed} from './common.mjs';

const MIB = 1024 * 1024;
// The defaults of our backends; leveldown's filter is the same.
const TUNED = {writeBufferSize: 64 * MIB, cacheSize: 32 * MIB, maxOpenFiles: 1000};

function filling(prepare, fill, options = {}) {
  return async (folder) => ({
    async measure() {
      const prepared = prepare(readRecords(folder));
      const name = fresh(folder);
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

// A store that holds the records, compacted and opened anew.
async function filled(folder) {
  const records = readRecords(folder);
  const name = fresh(folder);
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
  const asked = readAsked(folder);
  const {level} = await filled(folder);
  return {
    measure: () => timed(async () => {
      for (const key of asked) {
        await level.get(key);
      }
    }),
    close: () => level.close(),
  };
}

async function queryall(folder) {
  const {level, count} = await filled(folder);
  return {
    measure: () => timed(async () => {
      check((await level.query()).length, count);
    }),
    close: () => level.close(),
  };
}

export const workloads = {
  fillbatch: filling(inBatches, putBatches),
  fillbatch_tuned: filling(inBatches, putBatches, TUNED),
  fillawait: filling((records) => records, putEach),
  get,
  queryall,
};
