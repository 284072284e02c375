/** Keys of users and keys of metadata, as `docs/format.md` lays them out, for the prefix `!`. */
import { LevelError } from './errors.js'
import { utf8Length } from './json.js'

/** The least key that users may write: the successor of the prefix. */
export const FIRST_USER_KEY = '"'
const MAX_KEY_BYTES = 1024

/** The keys of the client's own records. */
export const CID_KEY = '!'
export const STORE_KEY = '!!store'
export const CLIENT_ID_KEY = '!!id'
export const SERVER_KEY = '!!server'
export const PUSH_KEY = '!!push'
export const OWN_RANGE_KEY = '!!own'
export const FOLLOW_KEY = '!!follow'
export const BASES_KEY = '!!bases'
/** The progress of a reset that an earlier version has begun. */
export const EARLIER_RESET_KEY = '!!reset'
const JOURNAL_PREFIX = '!!conflict/'
const BASE_PREFIX = '!!base/'
const LOST_PREFIX = '!!lost/'
const UNCOMPARED_PREFIX = '!!uncompared/'

/** The ranges of the records of which there is one for each key, group or conflict. */
export const DIRTY_RANGE = { gte: '!"', lt: '"' }
export const JOURNAL_RANGE = { gte: JOURNAL_PREFIX, lt: '!!conflict0' }
export const LOST_RANGE = { gte: LOST_PREFIX, lt: '!!lost0' }
export const UNCOMPARED_RANGE = { gte: UNCOMPARED_PREFIX, lt: '!!uncompared0' }
export const GROUP_RANGE = { gte: '!!group/', lt: '!!group0' }

/** The key of the dirty change of a user key. @param {string} key @returns {string} */
export function dirtyKey(key) {
  return CID_KEY + key
}

/** The user key of a dirty change. @param {string} storedKey @returns {string} */
export function parseDirtyKey(storedKey) {
  return storedKey.slice(CID_KEY.length)
}

/** The key of the base value of a user key. @param {string} key @returns {string} */
export function baseKey(key) {
  return BASE_PREFIX + key
}

/** The key of the loss of a user key's dirty change. @param {string} key @returns {string} */
export function lostKey(key) {
  return LOST_PREFIX + key
}

/** The user key of a loss. @param {string} storedKey @returns {string} */
export function parseLostKey(storedKey) {
  return storedKey.slice(LOST_PREFIX.length)
}

/** The key of the mark of an uncompared user key. @param {string} key @returns {string} */
export function uncomparedKey(key) {
  return UNCOMPARED_PREFIX + key
}

/** The user key of such a mark. @param {string} storedKey @returns {string} */
export function parseUncomparedKey(storedKey) {
  return storedKey.slice(UNCOMPARED_PREFIX.length)
}

/** The key of a conflict in the journal. @param {number} id @returns {string} */
export function journalKey(id) {
  return JOURNAL_PREFIX + cidKey(id)
}

/** The id of the conflict that a journal key belongs to. @param {string} key @returns {number} */
export function parseJournalKey(key) {
  const number = key.slice(JOURNAL_PREFIX.length)
  return Number(number.length === 1 ? number : number.slice(1))
}

/**
 * A number as a key whose bytewise order is numeric order: 9 is `9`, 10 is `:10`, 100 is `;100`.
 */
function cidKey(number) {
  const digits = `${number}`
  return digits.length === 1 ? digits : String.fromCharCode(0x38 + digits.length) + digits
}

/**
 * Check a user key.
 * @param {any} key
 * @param {string} [code] of the error
 * @returns {string} the key
 * @throws {LevelError} the key is not a string, empty, too long, below `"`, or not Unicode text
 */
export function checkKey(key, code = 'LEVEL_INVALID_KEY') {
  if (
    typeof key !== 'string' ||
    key < FIRST_USER_KEY ||
    /\p{Surrogate}/u.test(key) ||
    utf8Length(key) > MAX_KEY_BYTES
  ) {
    throw new LevelError(
      code,
      `the key ${JSON.stringify(key)} is invalid: a key is a string without lone surrogates, ` +
        `sorts at or after ${FIRST_USER_KEY}, and takes at most ${MAX_KEY_BYTES} bytes of UTF-8`,
    )
  }
  return key
}

/**
 * True if one key sorts before another by the bytes of their UTF-8. JavaScript compares the units
 * of UTF-16, in which surrogates sort before U+E000 to U+FFFF.
 * @param {string} one @param {string} other
 */
export function isBefore(one, other) {
  const length = Math.min(one.length, other.length)
  for (let index = 0; index < length; index++) {
    const [a, b] = [one.charCodeAt(index), other.charCodeAt(index)]
    if (a !== b) return rank(a) < rank(b)
  }
  return one.length < other.length
}

/** A number that orders units of UTF-16 as UTF-8 does. @param {number} unit */
function rank(unit) {
  if (unit < 0xd800) return unit
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800
}
