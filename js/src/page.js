/**
 * Taking a page: the decision on the push, changes of the log, and the values of keys whose dirty
 * changes have lost.
 */
import { isLogged } from './following.js'
import { MAX_EPOCHS } from './limits.js'
import { joinRecord } from './records.js'

/** @import { Commit, Reply, Row } from './messages.js' */
/** @import { Receipt } from './receipt.js' */
/** @import { Push, State } from './state.js' */

/**
 * Take a page, but not its part of a fill.
 * @param {Receipt} receipt
 * @param {Push | undefined} push that was sent
 * @param {Reply} page
 */
export async function takePage(receipt, push, page) {
  const { state } = receipt
  await receipt.lookUp(keysIn(receipt, push, page))
  takeDecision(receipt, push, page)
  learnHistory(state, page)
  for (const row of page.rows) takeRow(receipt, row, page.commits)
  if (push) loseRejected(receipt, push, page)
  healLosses(receipt, page)
  receipt.isCaughtUp = !page.more
  state.cid = page.cid
  const isPassed = state.ownRange !== undefined && state.ownRange[1] <= page.cid
  if (isPassed || !page.more) state.ownRange = undefined
  // `isOwn` needs the epochs of the changes that are not pulled yet.
  while (state.epochs.length > MAX_EPOCHS && state.epochs[1][1] <= page.cid) state.epochs.shift()
}

/**
 * The keys whose dirty changes a page concerns.
 * @param {Receipt} receipt @param {Push | undefined} push @param {Reply} page
 */
function* keysIn(receipt, push, page) {
  for (const { key } of push?.changes ?? []) yield key
  for (const { key } of page.rows) yield key
  yield* receipt.losses.keys()
}

/**
 * Mark the changes that the server took as clean, unless they were rewritten since they were
 * frozen. The push is decided, or the server has asked for it to be frozen again later.
 * @param {Receipt} receipt @param {Push | undefined} push @param {Reply} reply
 */
export function takeDecision(receipt, push, { ack, rejected, refused }) {
  const { state } = receipt
  state.push = undefined
  receipt.refused = refused.flatMap(([, keys]) => keys)
  const isRefused = new Set(receipt.refused)
  receipt.rejected = rejected.filter((key) => !isRefused.has(key))
  if (!ack || !push) return
  const rejectedKeys = new Set(rejected)
  for (const change of push.changes) {
    const isAsSent = receipt.dirtyOf(change.key) === joinRecord(change)
    if (isAsSent && !rejectedKeys.has(change.key)) receipt.clean(change.key)
  }
  receipt.pushed = ack[1] - ack[0]
  if (ack[2]) state.ownRange = ack
}

/**
 * Remember the history that a page comes from, and its head.
 * @param {State} state @param {Reply} page
 */
function learnHistory(state, { epochs, head }) {
  const known = new Set(state.epochs.map(([id]) => id))
  state.epochs.push(...epochs.filter(([id]) => !known.has(id)))
  state.maxHead = Math.max(state.maxHead, head)
}

/**
 * Write a pulled change. A dirty change of the same key loses to it, unless it was made after the
 * pulled one, or has lost before and waits for the server's value.
 * @param {Receipt} receipt
 * @param {Row} row
 * @param {Commit[]} commits of the page
 */
function takeRow(receipt, row, commits) {
  const isOwn = isOwnChange(receipt.state, row.cid)
  if (receipt.dirtyOf(row.key) !== undefined) {
    if (isOwn) return
    if (receipt.losses.has(row.key)) return receipt.overtake(row.key)
    receipt.replace(row, { kind: 'conflict', cid: row.cid, ...authorOf(row.cid, commits) })
  } else {
    receipt.write(row)
  }
  if (!isOwn) receipt.pulled++
}

/**
 * True if a pulled change is one of this client's own last push.
 * @param {State} state @param {number} cid
 */
function isOwnChange({ epochs, ownRange }, cid) {
  if (!ownRange) return false
  const [before, after, epoch] = ownRange
  const [epochOfChange] = epochs.findLast(([, start]) => start < cid) ?? []
  return before < cid && cid <= after && epochOfChange === epoch
}

/**
 * The author and the time of a change, as far as a commit tells them.
 * @param {number} cid @param {Commit[]} commits
 */
function authorOf(cid, commits) {
  const commit = commits.find(([first, last]) => first <= cid && cid <= last)
  if (commit === undefined) return {}
  const [, , client, principal, at] = commit
  return { by: principal ?? client, at }
}

/**
 * Record the losses that no pulled change shows: changes that the server refuses, those that
 * belonged to another rejected change, and those of keys whose log is not pulled.
 * @param {Receipt} receipt @param {Push} push @param {Reply} page
 */
function loseRejected(receipt, push, page) {
  const reasons = new Map(page.refused.flatMap(([reason, keys]) => keys.map((key) => [key, reason])))
  const isRejected = new Set(page.rejected)
  const isGrouped = groupedIndexes(push)
  push.changes.forEach((change, index) => {
    const { key } = change
    const frozen = joinRecord(change)
    // A change that was rewritten since it was frozen was not judged.
    if (!isRejected.has(key) || receipt.dirtyOf(key) !== frozen) return
    if (reasons.has(key)) {
      receipt.lose(key, { kind: 'refused', reason: reasons.get(key), local: frozen })
    } else if (isGrouped.has(index) || !isLogged(receipt.state.following, key)) {
      receipt.lose(key, { kind: 'conflict' })
    }
  })
}

/** The indexes of the changes of a push that belong to others. @param {Push} push */
function groupedIndexes({ groups = [] }) {
  const runs = groups.map(([first, count]) => Array.from({ length: count }, (_, n) => first + n))
  return new Set(runs.flat())
}

/**
 * Take the server's values of keys whose dirty changes have lost, and journal these.
 * @param {Receipt} receipt @param {Reply} page
 */
function healLosses(receipt, { values, rows, commits, cid }) {
  const pulled = new Map(rows.map((row) => [row.key, row.cid]))
  for (const change of values) {
    const loss = receipt.losses.get(change.key)
    if (loss === undefined) continue
    const { kind, reason } = loss
    const changedAt = pulled.get(change.key)
    const source =
      changedAt === undefined
        ? { cid, isRead: true }
        : { cid: changedAt, ...authorOf(changedAt, commits) }
    receipt.replace(change, { kind, reason, ...source })
  }
}
