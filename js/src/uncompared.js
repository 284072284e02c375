/**
 * Marks of dirty keys that were compared with nothing of the server, although their range is
 * `checked`: a reset has made it so, or the fill had not reached the key when it became dirty. The
 * log decides on the other dirty changes of the range, and may not tell of these keys. So they are
 * remembered one by one until a change or a part of the fill tells of them.
 */
import { DIRTY_RANGE, UNCOMPARED_RANGE, parseDirtyKey, parseUncomparedKey } from './keys.js'
import { UTF8 } from './records.js'

/** @import { Following } from './following.js' */

/**
 * Read the marks.
 * @param {any} store
 * @param {Following} following
 * @returns {Promise<Set<string>>} the keys
 */
export async function readUncompared(store, following) {
  if (following.range === 'complete') return new Set() // the fill has told of all keys
  const marks = await store.keys({ ...UNCOMPARED_RANGE, ...UTF8 }).all()
  return new Set(marks.map(parseUncomparedKey))
}

/** The keys of all dirty changes. @param {any} store @returns {Promise<string[]>} */
export async function readDirtyKeys(store) {
  return (await store.keys({ ...DIRTY_RANGE, ...UTF8 }).all()).map(parseDirtyKey)
}
