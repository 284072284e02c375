/**
 * Fills: a new client, and one in a reset, get the server's live entries part by part in the order
 * of their keys, instead of the log that has led to them.
 */
import { fillTo } from './following.js'
import { utf8Length } from './json.js'
import { FIRST_USER_KEY, isBefore } from './keys.js'
import { MAX_BYTES, MAX_CHANGES } from './limits.js'
import { UTF8, joinRecord } from './records.js'

/** @import { FillPart } from './messages.js' */
/** @import { Receipt } from './receipt.js' */
/** @import { Change } from './records.js' */

/** Values that are read at a time: each may have 4 MiB. */
const VALUES_AT_ONCE = 16

/**
 * Take a part of a fill, or only its beginning if the client has many keys that the server has not.
 * @param {Receipt} receipt of the page that the part has come with, after the page was taken
 * @param {FillPart} part
 */
export async function takePart(receipt, part) {
  const end = await removeAbsentKeys(receipt, part)
  const entries = part.entries.filter(({ key }) => !isBefore(end.to, key) || end.isLast)
  await takeEntries(receipt, entries)
  const { state } = receipt
  state.following = fillTo(state.following, end.to, end.isLast)
  for (const key of [...receipt.uncompared]) {
    if (isBefore(part.after, key) && (end.isLast || !isBefore(end.to, key))) receipt.markCompared(key)
  }
}

/**
 * Delete the clean keys that a part proves absent. In a reset they are journaled: the server had
 * them once.
 * @param {Receipt} receipt
 * @param {FillPart} part
 * @returns {Promise<{ to: string, isLast: boolean }>} where the compared part ends: one batch
 *   compares and journals only so many keys
 */
async function removeAbsentKeys(receipt, part) {
  const { store, state } = receipt
  const start = part.after ? { gt: part.after } : { gte: FIRST_USER_KEY }
  const stop = part.end ? {} : { lte: part.to }
  const local = await store.keys({ ...start, ...stop, limit: MAX_CHANGES, ...UTF8 }).all()
  const live = new Set(part.entries.map(({ key }) => key))
  const absent = local.filter((key) => !live.has(key) && !receipt.hasDeleted(key))
  await receipt.lookUp(absent)
  const removed = absent.filter((key) => receipt.dirtyOf(key) === undefined)
  let bytes = 0
  for (let first = 0; first < removed.length; first += VALUES_AT_ONCE) {
    const keys = removed.slice(first, first + VALUES_AT_ONCE)
    const values = await store.getMany(keys, UTF8)
    for (const [index, key] of keys.entries()) {
      if (bytes > MAX_BYTES) return { to: removed[first + index - 1], isLast: false }
      bytes += utf8Length(values[index])
      removeKey(receipt, { key, value: values[index] })
    }
  }
  if (local.length === MAX_CHANGES) return { to: local[MAX_CHANGES - 1], isLast: false }
  return { to: part.to, isLast: part.end }

  /** @param {Receipt} to @param {Change} change */
  function removeKey(to, change) {
    const { key } = change
    if (state.following.isResetting) {
      const local = joinRecord(change)
      to.journal({ key, local, remote: null, cid: state.cid, kind: 'reset' })
    }
    to.write({ key })
  }
}

/**
 * Write entries of a part. A dirty change stays if the log decides on it, or if it was made with
 * knowledge of the server's value.
 * @param {Receipt} receipt
 * @param {Change[]} entries
 */
async function takeEntries(receipt, entries) {
  await receipt.lookUp(entries.map(({ key }) => key))
  const { state } = receipt
  const isCompared = ({ key }) => receipt.dirtyOf(key) !== undefined && receipt.isUnchecked(key)
  const compared = entries.filter(isCompared).map(({ key }) => key)
  const bases = await receipt.baseValuesOf(compared)
  const isKept = new Set(compared)
  for (const entry of entries) {
    const { key, value } = entry
    if (receipt.dirtyOf(key) === undefined) {
      receipt.write(entry)
      receipt.filled++
    } else if (isKept.has(key) && bases.get(key) !== value) {
      if (receipt.losses.has(key)) receipt.overtake(key)
      else receipt.replace(entry, { kind: 'conflict', cid: state.cid, isRead: true })
    }
  }
}
