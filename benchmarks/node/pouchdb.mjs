// PouchDB on leveldown. It keeps the revisions of each document.

import PouchDB from 'pouchdb';

import {batches, checkCount, newStorePath, readRecords, timed} from './common.mjs';

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
      const db = new PouchDB(newStorePath(folder));
      await db.info(); // opens the database
      const seconds = await timed(() => putBatches(db, prepared));
      await db.destroy();
      return seconds;
    },
  };
}

async function pull(folder) {
  const records = readRecords(folder);
  const source = new PouchDB(newStorePath(folder));
  await putBatches(source, inBatches(records));
  return {
    async measure() {
      const target = new PouchDB(newStorePath(folder));
      await target.info();
      let report;
      const seconds = await timed(async () => {
        report = await source.replicate.to(target, {batch_size: 1000});
      });
      checkCount(report.docs_written, records.length);
      await target.destroy();
      return seconds;
    },
    close: () => source.close(),
  };
}

export const workloads = {fillbatch, pull};
