/** The conflict journal: local changes that the server's changes have replaced. */
import { JOURNAL_RANGE, journalKey, parseJournalKey } from './keys.js'
import { UTF8, batchEntry } from './records.js'

/**
 * The kind of a conflict: another change of the key was first, the server refuses the change, or a
 * reset has removed the key.
 * @typedef {'conflict' | 'refused' | 'reset'} ConflictKind
 */

/**
 * A local change that lost.
 * @typedef {object} Conflict
 * @property {number} id
 * @property {string} key
 * @property {any[]} local the change that lost: `[key, value]` or `[key]`
 * @property {any[] | null} remote the server's change; `null` if a reset found that the server has
 *   no such key
 * @property {number} cid of the server's change, or the one at which its value was read
 * @property {boolean} isRead true if the server's value was read: its change may be earlier
 * @property {ConflictKind} kind
 * @property {string} [reason] of a refusal
 * @property {string} [by] the author of the server's change, if it is known
 * @property {number} [at] the server's clock at its change, if it is known, in milliseconds since
 *   1970
 * @property {number} [noticedAt] the client's clock when the change lost, in milliseconds since
 *   1970
 */

/**
 * A local change about to be journaled; its changes are records.
 * @typedef {object} LostChange
 * @property {string} key
 * @property {string} local
 * @property {string | null} remote
 * @property {number} cid
 * @property {boolean} [isRead]
 * @property {ConflictKind} kind
 * @property {string} [reason]
 * @property {string | null} [by]
 * @property {number | null} [at]
 */

/** The conflict in a row of the journal. @param {[string, string]} row @returns {Conflict} */
function parseConflict([storedKey, record]) {
  const { key, local, remote, cid, kind, reason, by, at, ...rest } = JSON.parse(record)
  return {
    id: parseJournalKey(storedKey),
    key,
    local,
    remote,
    cid,
    isRead: rest.read ?? false,
    kind: kind ?? (remote === null ? 'reset' : 'conflict'), // earlier versions did not record it
    reason,
    by,
    at,
    noticedAt: rest.noticed_at,
  }
}

/** The record of a conflict. @param {LostChange} lost @param {number} noticedAt */
function conflictRecord({ key, local, remote, cid, isRead, kind, reason, by, at }, noticedAt) {
  const facts = {
    read: isRead || undefined,
    kind,
    reason,
    by: by ?? undefined,
    at: at ?? undefined,
    noticed_at: noticedAt,
  }
  const changes = `"key":${JSON.stringify(key)},"local":${local},"remote":${remote},"cid":${cid}`
  return `{${changes},${JSON.stringify(facts).slice(1)}`
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
  const now = Date.now()
  // Ids begin at the clock, so that the id of a dismissed conflict is not given to another.
  const first = Math.max(now, newest ? parseConflict(newest).id + 1 : 0)
  const rows = lostChanges.map((lost, index) => [journalKey(first + index), conflictRecord(lost, now)])
  return {
    entries: rows.map(([key, record]) => batchEntry(key, record)),
    conflicts: rows.map(([key, record]) => parseConflict([key, record])),
  }
}
