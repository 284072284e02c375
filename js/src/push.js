/** The next push: the dirty changes that the server may judge now. */
import { utf8Length } from './json.js'
import { DIRTY_RANGE, dirtyKey } from './keys.js'
import { MAX_BYTES, MAX_PUSH } from './limits.js'
import { UTF8, splitRecord } from './records.js'

/** @import { Loss } from './losses.js' */
/** @import { Change } from './records.js' */
/** @import { State } from './state.js' */

/**
 * The first dirty changes that may be pushed, as many as one push may hold. These may not: changes
 * that have lost, and changes that were compared with no value of the server. Both would overwrite
 * a value that this client has not seen.
 * @param {any} store
 * @param {State} state
 * @param {Map<string, Loss>} losses
 * @param {Set<string>} uncompared
 * @returns {Promise<Change[]>}
 */
export async function pushableChanges(store, { following }, losses, uncompared) {
  // Beyond the filled part of an unchecked range, no change was compared with anything.
  const filled = following.range === 'unchecked' ? { lte: dirtyKey(following.after) } : {}
  const changes = []
  let bytes = 0
  for await (const record of store.values({ ...DIRTY_RANGE, ...filled, ...UTF8 })) {
    const change = splitRecord(record)
    const { key } = change
    if (losses.has(key) || uncompared.has(key)) continue
    bytes += utf8Length(record)
    if (bytes > MAX_BYTES && changes.length > 0) break
    changes.push(change)
    if (changes.length === MAX_PUSH) break
  }
  return changes
}
