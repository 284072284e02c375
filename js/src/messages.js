/** The messages of the exchange, as in `docs/protocol.md`. */
import { findContradiction } from './contradictions.js'
import { LevelError } from './errors.js'
import { findTypeFault, isChange, isId, isRow } from './fields.js'
import {
  countItems,
  findRepeatedName,
  splitItems,
  splitMember,
  splitMembers,
  utf8Length,
} from './json.js'
import { checkKey } from './keys.js'
import { MAX_BYTES, MAX_CHANGES, MAX_HEADER_ITEMS, MAX_ITEMS, MAX_REPLY_BYTES } from './limits.js'
import { joinRecord, splitRecord } from './records.js'
import { MAX_VALUE_BYTES, isWithinLimits } from './values.js'

/** @import { Change } from './records.js' */
/** @import { Push } from './state.js' */

/**
 * The fields of a request, but for its changes, under their names on the wire.
 * @typedef {object} Request
 * @property {number} protocol
 * @property {string | null} server the id of the server that the client follows; `null` before the
 *   first reply
 * @property {string} client
 * @property {number} cid
 * @property {number} hi the highest head that the client has seen
 * @property {[string, number][]} epochs
 * @property {string} nonce a new one for each request: the reply repeats it
 * @property {number} seq the number of the last push
 * @property {string | null} push the nonce of the frozen push
 * @property {[number, number][]} [groups] of the push
 * @property {number} limit of the changes and the entries in the reply
 * @property {string[]} complete the prefixes of which the client has all keys
 * @property {string[]} partial the prefixes for which the log is wanted, though keys are missing
 * @property {[string, string] | null} fill the prefix whose next entries are wanted, and the key
 *   after which they begin; the log is wanted up to that key
 * @property {string[]} [read] keys whose present values are wanted
 */

/**
 * A pulled change and its CID.
 * @typedef {Change & { cid: number }} Row
 */

/**
 * Changes that were written together: the first and the last CID, the client id, the principal, the
 * time in milliseconds since 1970, and the groups of changes.
 * @typedef {[number, number, string | null, string | null, number | null, any[]]} Commit
 */

/**
 * A part of the server's live entries, in the order of their keys: all after `after`, up to `to`.
 * @typedef {object} FillPart
 * @property {string} after
 * @property {string} to
 * @property {boolean} end true if the part reaches the end of the range
 * @property {Change[]} entries
 */

/**
 * A reply that passed the checks. Fields of other kinds than its own are absent.
 * @typedef {object} Reply
 * @property {'page' | 'reset' | 'forked'} kind
 * @property {string} server
 * @property {number} cid of a page
 * @property {number} head of a page
 * @property {[string, number][]} epochs of a page
 * @property {[number, number, string | null] | null} [ack] the CIDs around the changes that the
 *   server took from the push, and the epoch of those changes
 * @property {boolean} [more] true if the server has more changes
 * @property {number} common of a reset: the highest CID that both histories share
 * @property {Row[]} rows of a page
 * @property {Commit[]} commits of these changes, as far as they are known
 * @property {string[]} rejected keys of the push that the server did not take
 * @property {[string, string[]][]} refused of these, the keys that the server refuses to take, with
 *   the reason
 * @property {Change[]} values the present values of rejected and of read keys
 * @property {FillPart} [fill]
 */

/** The text of a request. @param {Request} request @param {Push} [push] @returns {string} */
export function writeRequest(request, push) {
  const changes = push?.changes.map(joinRecord) ?? []
  return `${JSON.stringify(request).slice(0, -1)},"changes":[${changes}]}`
}

/**
 * Read a reply. Either all of it is returned or an error is thrown: a proxy may deliver the reply
 * to another request.
 * @param {string} text
 * @param {Request} request
 * @param {Push} [push] in the request
 * @returns {Reply}
 * @throws {LevelError} `LEVEL_STORE_MISMATCH`: another server replied; `LEVEL_PROTOCOL`: the reply
 *   is impossible
 */
export function readReply(text, request, push) {
  const { message, members } = parseMessage(text)
  if (request.server !== null && message.server !== request.server && isId(message.server)) {
    throw new LevelError(
      'LEVEL_STORE_MISMATCH',
      `this client has synchronised with the server ${request.server}, ` +
        `and ${message.server} has answered: check the address of the database`,
    )
  }
  const fault = findTypeFault(message) ?? findContradiction(message, request, push)
  if (fault !== null) throw impossible(fault)
  const rows = splitMember(members, 'page').map(readRow)
  const values = splitMember(members, 'values').map(splitRecord)
  const entries = splitMember(members, 'entries').map(splitRecord)
  checkChanges([...rows, ...values, ...entries])
  if (message.fill && !message.fill.end) checkKey(message.fill.to, 'LEVEL_PROTOCOL')
  const { commits = [], rejected = [], refused = [], fill } = message
  return { ...message, rows, values, commits, rejected, refused, fill: fill && { ...fill, entries } }
}

/**
 * Parse the text of a reply. Its rows are parsed one by one, and their values dropped: a reply of
 * 8 MiB could take 400 MiB otherwise.
 * @param {string} text
 * @returns {{message: any, members: Map<string, string>}} the message, whose values are `null`, and
 *   the text of each member
 */
function parseMessage(text) {
  if (text.length > MAX_REPLY_BYTES || countItems(text) > MAX_ITEMS) throw impossible(TOO_LARGE)
  try {
    const items = splitItems(text, MAX_MEMBERS)
    if (text.trim()[0] !== '{') throw impossible('it is not an object')
    const repeated = findRepeatedName(text)
    if (repeated !== undefined) {
      throw impossible(`an object in it names the member ${JSON.stringify(repeated)} twice`)
    }
    const members = splitMembers(items)
    const header = [...members].filter(([name]) => !Object.hasOwn(SECTIONS, name))
    const headerItems = header.reduce((sum, [, value]) => sum + countItems(value), 0)
    if (headerItems > MAX_HEADER_ITEMS) throw impossible(TOO_LARGE)
    const fields = [...members].map(([name, value]) => [name, parseMember(name, value)])
    return { message: Object.fromEntries(fields), members }
  } catch (error) {
    if (error instanceof LevelError) throw error
    if (error instanceof RangeError) throw impossible(TOO_LARGE)
    throw impossible('it is not JSON')
  }
}

/** The most members of a reply: there are fewer than 30 now. */
const MAX_MEMBERS = 100
const TOO_LARGE = 'it is larger than a reply can be'
const TOO_LARGE_VALUES = 'its values are larger or deeper than the limits'
/** The most bytes of a row beside its value: a CID, and a key of 1024 bytes, each escaped. */
const ROW_BYTES = 16 << 10

/** A change, entry or row without its value. */
const withoutValue = ([key, ...value]) => [key, ...value.map(() => null)]

/** The members of a reply with rows: the test of a row, and the function that drops its value. */
const SECTIONS = {
  page: [isRow, ([cid, change]) => [cid, withoutValue(change)]],
  values: [isChange, withoutValue],
  entries: [isChange, withoutValue],
}

/** Parse a member of a reply. @param {string} name @param {string} text @returns {any} */
function parseMember(name, text) {
  if (!Object.hasOwn(SECTIONS, name) || text.trim()[0] !== '[') {
    if (countItems(text) > MAX_HEADER_ITEMS) throw impossible(TOO_LARGE)
    return JSON.parse(text)
  }
  const [isValid, shorten] = SECTIONS[name]
  return splitRows(name, text).map((item) => {
    if (item.length > MAX_VALUE_BYTES + ROW_BYTES) throw impossible(TOO_LARGE_VALUES)
    const row = JSON.parse(item)
    if (!isValid(row)) throw malformed(name)
    return shorten(row)
  })
}

/** Split an array of rows. @param {string} name of the member @param {string} text */
function splitRows(name, text) {
  try {
    return splitItems(text, MAX_CHANGES)
  } catch (error) {
    throw error instanceof RangeError ? malformed(name) : error
  }
}

/** @param {string} name of a member */
function malformed(name) {
  return impossible(`its field "${name}" is missing or malformed`)
}

/** @param {string} fault */
function impossible(fault) {
  return new LevelError(
    'LEVEL_PROTOCOL',
    `the server's reply is impossible: ${fault}. Nothing of it was written`,
  )
}

/** A row of a page, `[cid,record]`. @param {string} text @returns {Row} */
function readRow(text) {
  const [cid, record] = splitItems(text)
  return { cid: Number(cid), ...splitRecord(record) }
}

/** Check that keys and values of a reply are within the limits. @param {Change[]} changes */
function checkChanges(changes) {
  const sizes = changes.map(({ key, value = '' }) => utf8Length(key) + utf8Length(value))
  const isSmall = sizes.reduce((sum, size) => sum + size, 0) <= MAX_BYTES
  if (!isSmall || !changes.every(({ value = '' }) => isWithinLimits(value))) {
    throw impossible(TOO_LARGE_VALUES)
  }
  for (const { key } of changes) checkKey(key, 'LEVEL_PROTOCOL')
}
