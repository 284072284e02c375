/** Stores of earlier versions, and of Python clients, as this client goes on with them. */
import { resetFollowing, followingRecord } from './following.js'
import { CID_KEY, EARLIER_RESET_KEY, FOLLOW_KEY, GROUP_RANGE } from './keys.js'
import { UTF8, batchEntry } from './records.js'

/**
 * The entries to write when a store is opened.
 *
 * - A reset of an earlier version becomes a fill. Its dirty changes were compared with the log up
 *   to the last CID that both histories share.
 * - The groups of a client in Python are dropped: this client pushes each change for itself.
 * @param {any} store
 * @returns {Promise<any[]>}
 */
export async function upgradeEntries(store) {
  const groups = await store.keys({ ...GROUP_RANGE, ...UTF8 }).all()
  const entries = groups.map((key) => batchEntry(key))
  const [reset, cid = '0'] = await store.getMany([EARLIER_RESET_KEY, CID_KEY], UTF8)
  if (reset === undefined) return entries
  const reached = Math.max(Number(cid), JSON.parse(reset).common)
  return [
    ...entries,
    batchEntry(EARLIER_RESET_KEY),
    batchEntry(CID_KEY, `${reached}`),
    batchEntry(FOLLOW_KEY, followingRecord(resetFollowing(true), reached)),
  ]
}
