/**
 * How far a client has the keys that it follows. This client follows all keys: one range, whose
 * prefix is empty. Clients in Python may follow several ranges (`docs/protocol.md`).
 */
import { LevelError } from './errors.js'
import { isBefore } from './keys.js'

/**
 * The state of the range of all keys.
 *
 * - `complete`: all keys are as they were on the server at the client's CID.
 * - `checked`: the range is being filled, and the log is pulled for it. Dirty changes are compared
 *   with the log, so a part of the fill leaves them alone.
 * - `unchecked`: the range is being filled, and the log is pulled for the filled part only. Beyond
 *   it, a part of the fill is a conflict for a dirty change.
 * @typedef {'complete' | 'checked' | 'unchecked'} RangeState
 */

/**
 * The progress of a client.
 * @typedef {object} Following
 * @property {RangeState} range
 * @property {string} after the last key of the filled part; `''` if nothing is filled yet, or all
 * @property {boolean} isResetting true during a reset: keys that the fill proves absent are
 *   journaled
 */

/** The progress of a client without the record. @param {number} cid @returns {Following} */
function withoutRecord(cid) {
  return { range: cid > 0 ? 'complete' : 'unchecked', after: '', isResetting: false }
}

/**
 * Parse the record.
 * @param {string | undefined} record
 * @param {number} cid of the client
 * @returns {Following}
 * @throws {LevelError} `LEVEL_STATE`: the store does not follow all keys, or in several ranges
 */
export function parseFollowing(record, cid) {
  if (record === undefined) return withoutRecord(cid)
  const { ranges, fill, resetting } = JSON.parse(record)
  if (ranges.length !== 1 || ranges[0][0] !== '') {
    throw new LevelError(
      'LEVEL_STATE',
      `the store follows the ranges ${JSON.stringify(ranges.map(([prefix]) => prefix))}, and this ` +
        'client follows all keys as one range: call follow("") and unfollow() in Python first',
    )
  }
  return { range: ranges[0][1], after: fill?.[1] ?? '', isResetting: resetting }
}

/**
 * Encode the record.
 * @param {Following} following
 * @param {number} cid of the client
 * @returns {string | undefined} `undefined` if a client at this CID needs none
 */
export function followingRecord(following, cid) {
  const { range, after, isResetting } = following
  const initial = withoutRecord(cid)
  if (range === initial.range && after === '' && !isResetting) return undefined
  return JSON.stringify({
    ranges: [['', range]],
    fill: after === '' ? null : ['', after],
    resetting: isResetting,
    evicting: false,
  })
}

/** The progress at the beginning of a reset. @param {boolean} hasDirty @returns {Following} */
export function resetFollowing(hasDirty) {
  // The log decides on dirty changes. Without any, it is not needed.
  return { range: hasDirty ? 'checked' : 'unchecked', after: '', isResetting: true }
}

/**
 * The progress after a part of the fill.
 * @param {Following} following
 * @param {string} to the last key that is filled now
 * @param {boolean} isLast true if that is the end of the range
 * @returns {Following}
 */
export function fillTo(following, to, isLast) {
  if (isLast) return { ...following, range: 'complete', after: '' }
  return { ...following, after: to }
}

/** True if a key lies in the filled part. @param {Following} following @param {string} key */
function isFilled({ after }, key) {
  return after !== '' && !isBefore(after, key)
}

/**
 * True if a change of a key misses values that the log does not show: the range is checked, and the
 * client has not got the server's value of the key.
 * @param {Following} following @param {string} key
 */
export function isUncompared(following, key) {
  return following.range === 'checked' && !isFilled(following, key)
}

/**
 * True if the client pulls the log for a key. If not, its dirty change was compared with no value
 * of the server.
 * @param {Following} following @param {string} key
 */
export function isLogged(following, key) {
  return following.range !== 'unchecked' || isFilled(following, key)
}
