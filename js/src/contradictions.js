/**
 * Contradictions between a reply and its request, and within a reply. They also ensure that each
 * reply brings the client nearer to the end of its session (`docs/protocol.md`, "Progress").
 */
import { areAscending } from './fields.js'
import { isBefore } from './keys.js'

/** @import { Request } from './messages.js' */
/** @import { Push } from './state.js' */

/**
 * The reason why a message cannot be the reply to a request; `null` if there is none.
 * @param {any} message whose fields have the right types
 * @param {Request} request
 * @param {Push} [push] in the request
 * @returns {string | null}
 */
export function findContradiction(message, request, push) {
  if (message.nonce !== request.nonce || message.base !== request.cid) {
    return 'it replies to another request'
  }
  if (message.kind === 'forked') {
    return push === undefined ? 'it rejects a push, and none was sent' : null
  }
  const fault = findDecisionFault(message, push)
  if (fault !== null) return fault
  if (message.kind === 'reset') return findResetFault(message, request)
  return findPageFault(message, request, push) ?? findFillFault(message, request, push)
}

/** @param {any} message @param {Push} [push] @returns {string | null} */
function findDecisionFault({ kind, ack, rejected, refused = [], more }, push) {
  const sent = new Set(push?.changes.map(({ key }) => key))
  if (!rejected.every((key) => sent.has(key))) return 'it rejects a key that was not sent'
  const rejectedKeys = new Set(rejected)
  const isRejected = ([, keys]) => keys.every((key) => rejectedKeys.has(key))
  if (!refused.every(isRejected)) return 'it refuses a key that it does not reject'
  if (ack === null) {
    const isOwed = kind === 'page' && push !== undefined && !more
    return isOwed ? 'it neither decides on the push nor asks for another request' : null
  }
  if (push === undefined) return 'it acknowledges a push, and none was sent'
  const accepted = ack[1] - ack[0]
  if (accepted > sent.size) return 'it accepts more changes than were sent'
  if (accepted + rejectedKeys.size < sent.size) {
    return 'it neither accepts nor rejects some of the changes that were sent'
  }
  return null
}

/** @param {any} reset @param {Request} request @returns {string | null} */
function findResetFault({ common }, { cid, hi, complete, fill }) {
  if (common > cid) return 'its common CID is above the CID of the client'
  const hasData = hi > 0 || complete.length > 0 || (fill !== null && fill[1] !== '')
  return hasData ? null : 'it resets a client that has no data of the server'
}

/** @param {any} page @param {Request} request @param {Push} [push] @returns {string | null} */
function findPageFault(page, request, push) {
  const { cid, head, more } = page
  if (cid > head) return 'its CID is above its head'
  const cids = page.page.map(([number]) => number)
  if (cid < request.cid || !areAscending([request.cid, ...cids, cid + 1])) {
    return 'its CIDs do not ascend'
  }
  if (!page.page.every(([, [key]]) => isWanted(request, key))) {
    return 'it holds changes that were not requested'
  }
  if (push === undefined && page.page.length > request.limit) {
    return 'it holds more changes than were requested'
  }
  const isOfPage = ([first, last]) => request.cid < last && first <= cid
  if (!(page.commits ?? []).every(isOfPage)) return 'it holds commits of other changes'
  const counts = [page.count, page.value_count ?? 0]
  if (counts[0] !== cids.length || counts[1] !== (page.values ?? []).length) {
    return 'it does not hold as many rows as it announces'
  }
  if (more && cid === request.cid) return 'it announces more changes, and holds none'
  if (!more && cid !== head) return 'it announces no more changes, and ends below its head'
  if (more && (page.values?.length || page.fill)) {
    return 'it announces more changes, and holds values of its end'
  }
  return findValuesFault(page, request, push)
}

/** @param {any} page @param {Request} request @param {Push} [push] @returns {string | null} */
function findValuesFault({ values = [] }, { read = [] }, push) {
  const wanted = new Set([...read, ...(push?.changes.map(({ key }) => key) ?? [])])
  const areWanted = values.every(([key]) => wanted.has(key))
  return areWanted ? null : 'it holds values that were not requested'
}

/** True if the log is wanted for a key. @param {Request} request @param {string} key */
function isWanted({ complete, partial, fill }, key) {
  const isFollowed = complete.length > 0 || partial.length > 0 // the prefix is empty
  return isFollowed || (fill !== null && fill[1] !== '' && !isBefore(fill[1], key))
}

/** @param {any} page @param {Request} request @param {Push} [push] @returns {string | null} */
function findFillFault({ fill: part, entries }, request, push) {
  if (part === undefined) return entries === undefined ? null : 'it holds entries of no range'
  const isRequested =
    push === undefined &&
    request.fill !== null &&
    request.fill[0] === part.prefix &&
    request.fill[1] === part.after
  if (!isRequested) return 'it holds a part of a range that was not requested'
  if (entries === undefined) return 'it holds a part of a range without its entries'
  if (entries.length > request.limit) return 'it holds more entries than were requested'
  const keys = [part.after, ...entries.map(([key]) => key)]
  const ascends = keys.every((key, index) => index === 0 || isBefore(keys[index - 1], key))
  if (!ascends) return 'its keys do not ascend'
  if (!part.end && entries.length === 0) return 'it announces more entries, and holds none'
  if (isBefore(part.to, keys[keys.length - 1])) return 'its part of a range ends before its last key'
  return entries.length === part.count ? null : 'it does not hold as many entries as it announces'
}
