/**
 * Base values: the value that a key had when it became dirty, before the fill had reached the key.
 * The fill then knows which dirty changes were made with knowledge of the server's value. Clients
 * in Python may keep base values of other keys, too (`docs/format.md`).
 *
 * A base value counts only in the present generation, so one write voids all of them.
 */
import { splitItems } from './json.js'
import { BASES_KEY, CID_KEY, FOLLOW_KEY, baseKey, dirtyKey, uncomparedKey } from './keys.js'
import { UTF8, batchEntry } from './records.js'
import { isLogged, isUncompared, parseFollowing } from './following.js'

/** @import { Change } from './records.js' */

/**
 * The record of the base values.
 * @typedef {object} Bases
 * @property {number} generation the generation that counts
 * @property {boolean} kept true if a client in Python keeps base values of all dirty keys
 */

/**
 * The base values, and the marks of uncompared changes, that a local write records.
 * @param {any} store
 * @param {Change[]} changes
 * @returns {Promise<any[]>} entries of a batch
 */
export async function newBaseEntries(store, changes) {
  const [cid, following, bases] = await store.getMany([CID_KEY, FOLLOW_KEY, BASES_KEY], UTF8)
  if (bases === undefined || following === undefined) return []
  const { generation } = JSON.parse(bases)
  const progress = parseFollowing(following, Number(cid))
  const keys = [...new Set(changes.map(({ key }) => key))].filter(
    (key) => !isLogged(progress, key) || isUncompared(progress, key),
  )
  const found = await store.getMany(keys.flatMap((key) => [dirtyKey(key), key]), UTF8)
  const entries = []
  keys.forEach((key, index) => {
    const [dirty, value] = found.slice(2 * index, 2 * index + 2)
    if (dirty !== undefined) return
    if (value !== undefined) entries.push(baseEntry(key, generation, value))
    if (isUncompared(progress, key)) entries.push(batchEntry(uncomparedKey(key), 'true'))
  })
  return entries
}

/**
 * The entry that stores a base value.
 * @param {string} key @param {number} generation @param {string} value
 */
export function baseEntry(key, generation, value) {
  return batchEntry(baseKey(key), `[${generation},${value}]`)
}

/**
 * The base values of some dirty keys.
 * @param {any} store
 * @param {Bases | undefined} bases
 * @param {string[]} keys
 * @returns {Promise<Map<string, string>>} the text of each value that is known, by key
 */
export async function readBaseValues(store, bases, keys) {
  const known = new Map()
  if (bases === undefined || keys.length === 0) return known
  const records = await store.getMany(keys.map(baseKey), UTF8)
  keys.forEach((key, index) => {
    const [generation, value] = records[index] === undefined ? [] : splitItems(records[index])
    if (Number(generation) === bases.generation && value !== undefined) known.set(key, value)
  })
  return known
}
