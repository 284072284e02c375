/** The conflict journal: local changes that the server's changes have replaced. */
import { JOURNAL_RANGE, journalKey, parseJournalKey } from './keys.js'
import { UTF8, batchEntry } from './records.js'

/**
 * A local change that lost.
 * @typedef {object} Conflict
 * @property {number} id
 * @property {string} key
 * @property {any[]} local the change that lost: `[key, value]` or `[key]`
 * @property {any[] | null} remote the server's change; `null` if a reset found that the server has
 *   no such key
 * @property {number} cid of the server's change
 */

/**
 * A local change about to be journaled; its changes are records.
 * @typedef {{ key: string, local: string, remote: string | null, cid: number }} LostChange
 */

/** The conflict in a row of the journal. @param {[string, string]} row @returns {Conflict} */
function parseConflict([key, record]) {
  return { id: parseJournalKey(key), ...JSON.parse(record) }
}

/** Read the journal, oldest conflict first. @param {any} store @returns {Promise<Conflict[]>} */
export async function readConflicts(store) {
  const rows = await store.iterator({ ...JOURNAL_RANGE, ...UTF8 }).all()
  return rows.map(parseConflict)
}

/**
 * Number conflicts, and encode them.
 * @param {any} store
 * @param {LostChange[]} lostChanges
 * @returns {Promise<{ entries: any[], conflicts: Conflict[] }>} the entries to write, and the
 *   conflicts that they hold
 */
export async function journalEntries(store, lostChanges) {
  if (lostChanges.length === 0) return { entries: [], conflicts: [] }
  const range = { ...JOURNAL_RANGE, ...UTF8, reverse: true, limit: 1 }
  const [newest] = await store.iterator(range).all()
  // Ids begin at the clock, so that the id of a dismissed conflict is not given to another.
  const first = Math.max(Date.now(), newest ? parseConflict(newest).id + 1 : 0)
  const rows = lostChanges.map(({ key, local, remote, cid }, index) => [
    journalKey(first + index),
    `{"key":${JSON.stringify(key)},"local":${local},"remote":${remote},"cid":${cid}}`,
  ])
  return {
    entries: rows.map(([key, record]) => batchEntry(key, record)),
    conflicts: rows.map(([key, record]) => parseConflict([key, record])),
  }
}
