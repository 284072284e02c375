/** The messages of the exchange, as in `docs/protocol.md`. */
import { LevelError } from './errors.js'
import { findRepeatedName, splitItems, splitMember } from './json.js'
import { checkKey } from './keys.js'
import { joinRecord, splitRecord } from './records.js'

/** @import { Change } from './records.js' */

/** The version of the protocol. */
export const PROTOCOL = 1
/** Changes or keys in one message. */
export const MAX_CHANGES = 1000
/** Bytes of changes in one push, and of deleted values in one step of a sweep. */
export const MAX_BYTES = 8 << 20
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
  const message = JSON.parse(text)
  const repeated = findRepeatedName(text)
  if (repeated !== undefined) {
    throw new LevelError(
      'LEVEL_PROTOCOL',
      `an object in the server's reply names the member ${JSON.stringify(repeated)} twice. ` +
        'Nothing of it was written',
    )
  }
  const { rejected = [], keys = [] } = message
  const rows = splitMember(text, 'page').map(readRow)
  if (request.server !== null && message.server !== request.server) {
    throw new LevelError(
      'LEVEL_STORE_MISMATCH',
      `this client has synchronised with the server ${request.server}, ` +
        `and ${message.server} has answered: check the address of the database`,
    )
  }
  const fault = findFault(message, rows, request, changes)
  if (fault !== null) {
    throw new LevelError(
      'LEVEL_PROTOCOL',
      `the server's reply is impossible: ${fault}. Nothing of it was written`,
    )
  }
  for (const row of rows) checkKey(row.key, 'LEVEL_PROTOCOL')
  for (const key of keys) checkKey(key, 'LEVEL_PROTOCOL')
  return { ...message, rows, rejected, keys }
}

/** A row of a page, `[cid,record]`. @param {string} text @returns {Row} */
function readRow(text) {
  const [cid, record] = splitItems(text)
  return { cid: Number(cid), ...splitRecord(record) }
}

/**
 * The reason why a message cannot be the reply to a request; `null` if there is none.
 * @param {any} message @param {Row[]} rows @param {Request} request @param {Change[]} changes
 * @returns {string | null}
 */
function findFault(message, rows, request, changes) {
  const { kind, ack, cid = request.cid, keys = [], after = null } = message
  if (message.protocol !== PROTOCOL) return 'it is of another version of the protocol'
  if (message.nonce !== request.nonce || message.base !== request.cid) {
    return 'it replies to another request'
  }
  if (!/^[\w-]{1,64}$/.test(message.server)) return 'it does not name its server'
  if (kind === 'reset') {
    if (!(message.common <= request.cid)) return 'its common CID is above the CID of the client'
  } else if (kind === 'forked') {
    if (changes.length === 0) return 'it rejects a push, and none was sent'
  } else {
    if (kind !== (after === null ? 'page' : 'keys')) return 'it is of an unknown kind'
    if (after !== request.keys_after) return 'it holds keys or changes that were not requested'
    if (!(cid <= message.head)) return 'its CID is above its head'
  }
  const cids = rows.map((row) => row.cid)
  if (!areAscending([request.cid, ...cids, cid + 1])) return 'its CIDs do not ascend'
  if (ack) {
    if (changes.length === 0) return 'it acknowledges a push, and none was sent'
  } else if (message.more && !(cid > request.cid)) {
    return 'it announces more changes, and holds none'
  }
  if (kind === 'keys' && !message.end && keys.length === 0) {
    return 'it announces more keys, and holds none'
  }
  return null
}

/** True if the numbers are exact integers, each above the one before. @param {number[]} numbers */
function areAscending(numbers) {
  const follows = (number, index) => index === 0 || number > numbers[index - 1]
  return numbers.every((number, index) => Number.isSafeInteger(number) && follows(number, index))
}
