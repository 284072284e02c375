// PouchDB on leveldown, which keeps the revisions of each document.

import PouchDB from 'pouchdb';

import {batches, check, fresh, readRecords, timed} from './common.mjs';

function inBatches(records) {
  return batches(records, (key, value) => ({_id: key, ...value}));
}

async function putBatches(db, prepared) {
  for (const batch of prepared) {
    await db.bulkDocs(batch);
  }
}

async function fillbatch(folder) {
  return {
    async measure() {
      const prepared = inBatches(readRecords(folder));
      const db = new PouchDB(fresh(folder));
      await db.info(); // it is open
      const seconds = await timed(() => putBatches(db, prepared));
      await db.destroy();
      return seconds;
    },
  };
}

async function pull(folder) {
  const records = readRecords(folder);
  const source = new PouchDB(fresh(folder));
  await putBatches(source, inBatches(records));
  return {
    async measure() {
      const target = new PouchDB(fresh(folder));
      await target.info();
      let report;
      const seconds = await timed(async () => {
        report = await source.replicate.to(target, {batch_size: 1000});
      });
      check(report.docs_written, records.length);
      await target.destroy();
      return seconds;
    },
    close: () => source.close(),
  };
}

export const workloads = {fillbatch, pull};
