/** Tests of the fields of a reply: their types and their sizes, one by one. */
import { MAX_CHANGES, MAX_PUSH, MAX_READ, MAX_REASON, PROTOCOL } from './limits.js'

/** True for an object that is no array. @param {any} value */
export function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** True for the id of a store, a client or an epoch. @param {any} value */
export function isId(value) {
  return typeof value === 'string' && /^[\w-]{1,64}$/.test(value)
}

/** True if the numbers are exact integers, each above the one before. @param {number[]} numbers */
export function areAscending(numbers) {
  const follows = (number, index) => index === 0 || number > numbers[index - 1]
  return numbers.every((number, index) => Number.isSafeInteger(number) && follows(number, index))
}

const isCid = (value) => Number.isSafeInteger(value) && value >= 0
const isString = (value) => typeof value === 'string'
const isBoolean = (value) => typeof value === 'boolean'
const isNullOr = (isValue) => (value) => value === null || isValue(value)
const isAbsentOr = (isValue) => (value) => value === undefined || isValue(value)

/** True for an array of at most `most` items, each of which passes a test. */
function isList(value, most, isItem) {
  return Array.isArray(value) && value.length <= most && value.every(isItem)
}

/** True for a change: `["key", value]` or `["key"]`. @param {any} change */
export function isChange(change) {
  const isOfLength = Array.isArray(change) && (change.length === 1 || change.length === 2)
  return isOfLength && isString(change[0])
}

/** True for an entry: `["key", value]`. */
function isEntry(entry) {
  return isChange(entry) && entry.length === 2
}

/** True for a row of a page: `[cid, change]`. @param {any} row */
export function isRow(row) {
  return Array.isArray(row) && row.length === 2 && isCid(row[0]) && isChange(row[1])
}

/** True for an array of epochs `[id, CID]` whose CIDs ascend. */
function areEpochs(epochs) {
  const isEpoch = (epoch) => Array.isArray(epoch) && isId(epoch[0]) && isCid(epoch[1])
  return isList(epochs, Infinity, isEpoch) && areAscending(epochs.map(([, start]) => start))
}

/** True for a decision on a push: `null`, or `[before, after, epoch]`. */
function isAck(ack) {
  if (ack === null) return true
  if (!Array.isArray(ack) || ack.length !== 3) return false
  const [before, after, epoch] = ack
  const isEpoch = before === after ? epoch === null : isId(epoch)
  return isCid(before) && isCid(after) && before <= after && isEpoch
}

/** True for the keys of a push that the server did not take. */
function areRejected(keys) {
  return isList(keys, MAX_PUSH, isString)
}

/** True for a refusal: `[reason, keys]`. */
function isRefusal(refusal) {
  if (!Array.isArray(refusal) || refusal.length !== 2) return false
  const [reason, keys] = refusal
  const isReason = isString(reason) && reason !== '' && reason.length <= MAX_REASON
  return isReason && areRejected(keys) && keys.length > 0
}

/** True for the present values of keys, each of which occurs once. */
function areValues(changes) {
  const areChanges = isList(changes, MAX_PUSH + MAX_READ, isChange)
  return areChanges && new Set(changes.map(([key]) => key)).size === changes.length
}

/** True for a commit: `[first, last, client, principal, time, groups]`. */
function isCommit(commit) {
  if (!Array.isArray(commit) || commit.length !== 6) return false
  const [first, last, client, principal, time, groups] = commit
  const isAuthor = isNullOr(isString)(client) && isNullOr(isString)(principal)
  return areAscending([first - 1, last]) && isAuthor && isNullOr(isCid)(time) && Array.isArray(groups)
}

/** True for an array of commits that ascend, and share no CID. */
function areCommits(commits) {
  const isAfter = ([first], index) => index === 0 || first > commits[index - 1][1]
  return isList(commits, MAX_CHANGES, isCommit) && commits.every(isAfter)
}

/** True for the fields of a part of a fill, without its entries. */
function isPart(part) {
  return isObject(part) && [part.prefix, part.after, part.to].every(isString) && isBoolean(part.end)
}

/** The tests of the fields of a reply, by its kind. */
const TESTS = {
  page: {
    cid: isCid,
    head: isCid,
    more: isBoolean,
    epochs: areEpochs,
    ack: isAck,
    rejected: areRejected,
    page: (rows) => isList(rows, MAX_CHANGES, isRow),
    commits: isAbsentOr(areCommits),
    refused: isAbsentOr((refusals) => isList(refusals, MAX_PUSH, isRefusal)),
    values: isAbsentOr(areValues),
    fill: isAbsentOr(isPart),
    entries: isAbsentOr((entries) => isList(entries, MAX_CHANGES, isEntry)),
    refill: isAbsentOr(isBoolean),
  },
  reset: { common: isCid, ack: isAck, rejected: areRejected, head: isCid },
  forked: {},
}

/**
 * The reason why a message has fields of a wrong type or size; `null` if there is none.
 * @param {any} message
 * @returns {string | null}
 */
export function findTypeFault(message) {
  const { protocol } = message
  if (protocol !== PROTOCOL) {
    const remedy = `upgrade ${protocol < PROTOCOL ? 'the server' : 'this client'}`
    return `it is of version ${protocol} of the protocol, not ${PROTOCOL}: ${remedy}`
  }
  if (!isId(message.server)) return 'it does not name its server'
  if (!Object.hasOwn(TESTS, message.kind)) return 'it is of an unknown kind'
  const tests = Object.entries(TESTS[message.kind])
  const [name] = tests.find(([field, test]) => !test(message[field])) ?? []
  return name === undefined ? null : `its field "${name}" is missing or malformed`
}
