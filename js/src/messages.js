/** The messages of the exchange, as in `docs/protocol.md`. */
import { LevelError } from './errors.js'
import { countItems, findRepeatedName, splitItems, splitMember, utf8Length } from './json.js'
import { checkKey, isBefore } from './keys.js'
import { joinRecord, splitRecord } from './records.js'
import { isWithinLimits } from './values.js'

/** @import { Change } from './records.js' */

/** The version of the protocol. */
export const PROTOCOL = 2
/** Changes in one page. */
export const MAX_CHANGES = 65_536
/** Changes in one push. */
export const MAX_PUSH = 16_384
/** Keys in one part of the live keys. */
export const MAX_KEYS = 1000
/** Bytes of changes in one push, and of deleted values in one step of a sweep. */
export const MAX_BYTES = 8 << 20
/**
 * Bytes of a reply: `MAX_BYTES` of changes, 20 for the CID of each, and as many bytes of rejected
 * keys as a push may have.
 */
export const MAX_REPLY_BYTES = 20 << 20
/** Commas and opening brackets in a reply, as many as a page of `MAX_BYTES` can have. */
const MAX_ITEMS = 7_000_000
/** Epochs that a client keeps and sends. */
export const MAX_EPOCHS = 32

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
 * @property {number} seq
 * @property {number} limit
 * @property {string} nonce
 * @property {boolean} reset
 * @property {string | null} keys_after
 */

/**
 * A pulled change and its CID.
 * @typedef {Change & { cid: number }} Row
 */

/**
 * A reply that passed the checks. Fields of other kinds than its own are absent.
 * @typedef {object} Reply
 * @property {'page' | 'keys' | 'reset' | 'forked'} kind
 * @property {string} server
 * @property {number} cid of a page
 * @property {number} head of a page, or of keys
 * @property {[string, number][]} epochs of a page, or of keys
 * @property {[number, number, string | null]} [ack] the CIDs around the changes that the server
 *   took from the push, and the epoch of those changes
 * @property {boolean} [more] true if the server has more changes
 * @property {number} common of a reset: the highest CID that both histories share
 * @property {string} after of keys
 * @property {boolean} [end] of keys: true if these are the server's last
 * @property {Row[]} rows of a page
 * @property {string[]} rejected keys of the push that the server refused
 * @property {string[]} keys
 */

/** The text of a request. @param {Request} request @param {Change[]} changes @returns {string} */
export function writeRequest(request, changes) {
  return `${JSON.stringify(request).slice(0, -1)},"changes":[${changes.map(joinRecord)}]}`
}

/**
 * Read a reply. Either all of it is returned or an error is thrown: a proxy may deliver the reply
 * to another request.
 * @param {string} text
 * @param {Request} request
 * @param {Change[]} changes the changes of the request
 * @returns {Reply}
 * @throws {LevelError} `LEVEL_STORE_MISMATCH`: another server replied; `LEVEL_PROTOCOL`: the reply
 *   is impossible
 */
export function readReply(text, request, changes) {
  const message = parseMessage(text)
  if (request.server !== null && message.server !== request.server && isId(message.server)) {
    throw new LevelError(
      'LEVEL_STORE_MISMATCH',
      `this client has synchronised with the server ${request.server}, ` +
        `and ${message.server} has answered: check the address of the database`,
    )
  }
  const fault = findTypeFault(message) ?? findFault(message, request, changes)
  if (fault !== null) throw impossible(fault)
  const { rejected = [], keys = [] } = message
  const rows = splitMember(text, 'page').map(readRow)
  if (!arePermitted(rows)) throw impossible('its values are larger or deeper than the limits')
  for (const row of rows) checkKey(row.key, 'LEVEL_PROTOCOL')
  for (const key of keys) checkKey(key, 'LEVEL_PROTOCOL')
  return { ...message, rows, rejected, keys }
}

/** Parse the text of a reply, if it cannot take too much memory. @param {string} text */
function parseMessage(text) {
  if (text.length > MAX_REPLY_BYTES || countItems(text) > MAX_ITEMS) {
    throw impossible('it is larger than a reply can be')
  }
  let message
  try {
    message = JSON.parse(text)
  } catch {
    throw impossible('it is not JSON')
  }
  if (!isObject(message)) throw impossible('it is not an object')
  const repeated = findRepeatedName(text)
  if (repeated !== undefined) {
    throw impossible(`an object in it names the member ${JSON.stringify(repeated)} twice`)
  }
  return message
}

/** @param {string} fault */
function impossible(fault) {
  return new LevelError(
    'LEVEL_PROTOCOL',
    `the server's reply is impossible: ${fault}. Nothing of it was written`,
  )
}

/** True if the rows of a page, and each of their values, are within the limits. */
function arePermitted(rows) {
  const sizes = rows.map(({ key, value = '' }) => utf8Length(key) + utf8Length(value))
  const isSmall = sizes.reduce((sum, size) => sum + size, 0) <= MAX_BYTES
  return isSmall && rows.every(({ value = '' }) => isWithinLimits(value))
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
const isId = (value) => typeof value === 'string' && /^[\w-]{1,64}$/.test(value)
const isCid = (value) => Number.isSafeInteger(value) && value >= 0
const isString = (value) => typeof value === 'string'

/** True for an array of at most `most` items, each of which passes a test. */
function isList(value, most, isItem) {
  return Array.isArray(value) && value.length <= most && value.every(isItem)
}

/** True for a row of a page: `[cid, ["key", value]]` or `[cid, ["key"]]`. */
function isRow(row) {
  if (!Array.isArray(row) || row.length !== 2) return false
  const [cid, record] = row
  const isRecord = Array.isArray(record) && (record.length === 1 || record.length === 2)
  return isCid(cid) && isRecord && isString(record[0])
}

/** True for an array of epochs `[id, CID]` whose CIDs ascend. */
function areEpochs(epochs) {
  if (!Array.isArray(epochs)) return false
  const isEpoch = (epoch) => Array.isArray(epoch) && isId(epoch[0]) && isCid(epoch[1])
  return epochs.every(isEpoch) && areAscending(epochs.map(([, start]) => start))
}

/** True for a decision on a push: `null`, or `[before, after, epoch]`. */
function isAck(ack) {
  if (ack === null) return true
  if (!Array.isArray(ack) || ack.length !== 3) return false
  const [before, after, epoch] = ack
  const isEpoch = before === after ? epoch === null : isId(epoch)
  return isCid(before) && isCid(after) && before <= after && isEpoch
}

/** True for the keys of a push that the server refused. */
function areRejected(keys) {
  return isList(keys, MAX_PUSH, isString)
}

/** The tests of the fields of a reply, by its kind. */
const FIELDS = {
  page: {
    cid: isCid,
    head: isCid,
    more: (value) => typeof value === 'boolean',
    epochs: areEpochs,
    ack: isAck,
    rejected: areRejected,
    page: (value) => isList(value, MAX_CHANGES, isRow),
  },
  keys: {
    head: isCid,
    epochs: areEpochs,
    after: isString,
    keys: (value) => isList(value, MAX_KEYS, isString),
    end: (value) => typeof value === 'boolean',
  },
  reset: { common: isCid, ack: isAck, rejected: areRejected, head: isCid },
  forked: {},
}

/**
 * The reason why a message has fields of a wrong type or size; `null` if there is none.
 * @param {any} message
 * @returns {string | null}
 */
function findTypeFault(message) {
  const { protocol } = message
  if (protocol !== PROTOCOL) {
    const remedy = `upgrade ${protocol < PROTOCOL ? 'the server' : 'this client'}`
    return `it is of version ${protocol} of the protocol, not ${PROTOCOL}: ${remedy}`
  }
  if (!isId(message.server)) return 'it does not name its server'
  if (!Object.hasOwn(FIELDS, message.kind)) return 'it is of an unknown kind'
  const fields = Object.entries(FIELDS[message.kind])
  const [name] = fields.find(([field, test]) => !test(message[field])) ?? []
  return name === undefined ? null : `its field "${name}" is missing or malformed`
}

/** A row of a page, `[cid,record]`. @param {string} text @returns {Row} */
function readRow(text) {
  const [cid, record] = splitItems(text)
  return { cid: Number(cid), ...splitRecord(record) }
}

/**
 * The reason why a message cannot be the reply to a request; `null` if there is none.
 * @param {any} message whose fields have the right types
 * @param {Request} request @param {Change[]} changes
 * @returns {string | null}
 */
function findFault(message, request, changes) {
  const { kind, ack = null, rejected = [] } = message
  if (message.nonce !== request.nonce || message.base !== request.cid) {
    return 'it replies to another request'
  }
  if (kind === 'forked') return changes.length === 0 ? 'it rejects a push, and none was sent' : null
  if (ack && changes.length === 0) return 'it acknowledges a push, and none was sent'
  if (ack && ack[1] - ack[0] > changes.length) return 'it accepts more changes than were sent'
  const sent = new Set(changes.map(({ key }) => key))
  if (!rejected.every((key) => sent.has(key))) return 'it rejects a key that was not sent'
  if (kind === 'reset') {
    return message.common > request.cid ? 'its common CID is above the CID of the client' : null
  }
  const after = kind === 'keys' ? message.after : null
  if (after !== request.keys_after) return 'it holds keys or changes that were not requested'
  return kind === 'page' ? findPageFault(message, request) : findKeysFault(message)
}

/** @param {any} page @param {Request} request @returns {string | null} */
function findPageFault({ cid, head, more, page }, request) {
  if (cid > head) return 'its CID is above its head'
  const cids = page.map(([number]) => number)
  if (cid < request.cid || !areAscending([request.cid, ...cids, cid + 1])) {
    return 'its CIDs do not ascend'
  }
  if (more && cid === request.cid) return 'it announces more changes, and holds none'
  if (!more && cid !== head) return 'it announces no more changes, and ends below its head'
  return null
}

/** @param {any} reply @returns {string | null} */
function findKeysFault({ after, keys, end }) {
  const ascends = keys.every((key, index) => isBefore(index === 0 ? after : keys[index - 1], key))
  if (!ascends) return 'its keys do not ascend'
  return end || keys.length > 0 ? null : 'it announces more keys, and holds none'
}

/** True if the numbers are exact integers, each above the one before. @param {number[]} numbers */
function areAscending(numbers) {
  const follows = (number, index) => index === 0 || number > numbers[index - 1]
  return numbers.every((number, index) => Number.isSafeInteger(number) && follows(number, index))
}
