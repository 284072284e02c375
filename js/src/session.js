/** A whole `sync()`: request after request until both sides are drained. */
import { History, prepareRequest, receiveReply } from './client.js'
import { readReply, writeRequest } from './messages.js'
import { ProgressCheck } from './progress.js'

/** @import { LevelError } from './errors.js' */
/** @import { Exchange } from './http.js' */
/** @import { Conflict } from './journal.js' */
/** @import { Outcome } from './receipt.js' */

/**
 * The report of a session.
 * @typedef {object} Report
 * @property {number} cid the server's CID up to which everything is here
 * @property {number} rounds requests that were answered
 * @property {number} pulled changes of other clients that were written
 * @property {number} filled entries that a fill has written
 * @property {number} pushed changes that the server took
 * @property {Conflict[]} conflicts local changes that lost
 * @property {string[]} rejected keys of the pushes that others had written first
 * @property {string[]} refused keys of the pushes that the server's rules, or the rights of the
 *   token, refuse: their conflicts have the reasons
 * @property {boolean} reset true if the server was restored from a backup, and the entries were
 *   filled again
 */

/**
 * Synchronise a store.
 * @param {any} store
 * @param {<T>(step: () => Promise<T>) => Promise<T>} runExclusively runs a step while no other one
 *   runs
 * @param {Exchange} exchange
 * @param {AbortSignal} [signal]
 * @returns {Promise<Report>}
 * @throws {LevelError} `LEVEL_PROTOCOL`: a reply is impossible, or the replies bring no progress
 */
export async function synchronise(store, runExclusively, exchange, signal) {
  /** @type {Report} */
  const report = {
    cid: 0,
    rounds: 0,
    pulled: 0,
    filled: 0,
    pushed: 0,
    conflicts: [],
    rejected: [],
    refused: [],
    reset: false,
  }
  const progress = new ProgressCheck()
  const history = new History()
  for (let isCaughtUp = false; ; report.rounds++) {
    signal?.throwIfAborted()
    const outgoing = await runExclusively(() => prepareRequest(store, history))
    const { request, push, isBusy } = outgoing
    report.cid = request.cid
    if (isCaughtUp && !isBusy) return report
    history.send(outgoing)
    const reply = readReply(await exchange(writeRequest(request, push)), request, push)
    const outcome = await runExclusively(() => receiveReply(store, outgoing, reply))
    isCaughtUp = outcome?.isCaughtUp ?? false
    if (outcome) addOutcome(report, outcome)
    history.receive(reply)
    progress.check(request, reply)
  }
}

/** Add the effects of a reply to a report. @param {Report} report @param {Outcome} outcome */
function addOutcome(report, outcome) {
  report.pulled += outcome.pulled
  report.filled += outcome.filled
  report.pushed += outcome.pushed
  report.conflicts = report.conflicts.concat(outcome.conflicts)
  report.rejected = report.rejected.concat(outcome.rejected)
  report.refused = report.refused.concat(outcome.refused)
  report.reset ||= outcome.isReset
}
