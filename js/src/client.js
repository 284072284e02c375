/**
 * The client's half of the exchange: making a request, and writing a reply, in one batch each. Both
 * read, decide and write, so the caller must exclude other writers until they are done.
 */
import { takePart } from './fill.js'
import { resetFollowing } from './following.js'
import { DIRTY_RANGE } from './keys.js'
import { MAX_CHANGES, MAX_EPOCHS, MAX_READ, PROTOCOL } from './limits.js'
import { readLosses } from './losses.js'
import { takeDecision, takePage } from './page.js'
import { pushableChanges } from './push.js'
import { Receipt } from './receipt.js'
import { DURABLE, UTF8, newId } from './records.js'
import { readState, stateEntries } from './state.js'
import { readDirtyKeys, readUncompared } from './uncompared.js'

/** @import { Reply, Request } from './messages.js' */
/** @import { Outcome } from './receipt.js' */
/** @import { Push, State } from './state.js' */

/**
 * A request, and the state that it was made from.
 * @typedef {object} Outgoing
 * @property {Request} request
 * @property {Push} [push] in the request
 * @property {boolean} isBusy true if changes are dirty or have lost, a push is undecided or a fill
 *   is under way
 * @property {string} version of the state
 */

/** The past of a session, as far as its next request depends on it. */
export class History {
  /** True if the last request had a push. It got no part of a fill, so the two take turns. */
  hasPushed = false
  /**
   * The server's CID when it last rejected changes. Below that CID the client has not pulled all
   * changes to which these lose, so it does not push.
   */
  rejectedTo = 0

  /** @param {Outgoing} outgoing the request that is sent */
  send({ push }) {
    this.hasPushed = push !== undefined
  }

  /** @param {Reply} reply */
  receive({ kind, rejected, head }) {
    if (kind === 'reset') this.rejectedTo = 0
    else if (kind === 'page' && rejected.length > 0) this.rejectedTo = head
  }
}

/**
 * Make the next request. Dirty changes are frozen, durably, before they are sent, and then sent
 * unaltered until the server has decided on them: so a push whose reply was lost is recognised when
 * it comes again.
 * @param {any} store
 * @param {History} history
 * @returns {Promise<Outgoing>}
 */
export async function prepareRequest(store, { hasPushed, rejectedTo }) {
  let { state, version } = await readState(store)
  const { losses } = await readLosses(store)
  const isFilling = state.following.range !== 'complete'
  if (mayFreeze(state) && state.cid >= rejectedTo && !(isFilling && hasPushed)) {
    const uncompared = await readUncompared(store, state.following)
    const changes = await pushableChanges(store, state, losses, uncompared)
    if (changes.length > 0) {
      const push = { seq: state.seq + 1, nonce: newId(), changes }
      await store.batch(stateEntries({ ...state, seq: push.seq, push }), DURABLE)
      ;({ state, version } = await readState(store))
    }
  }
  const { push } = state
  const request = makeRequest(state, [...losses.keys()].slice(0, MAX_READ))
  const isBusy = push !== undefined || isFilling || losses.size > 0 || (await hasDirty(store))
  return { request, push, isBusy, version }
}

/** True if a push may be frozen. @param {State} state */
function mayFreeze({ push, ownRange, following }) {
  return push === undefined && ownRange === undefined && !following.isResetting
}

/**
 * The request of a client in a state.
 * @param {State} state
 * @param {string[]} read keys whose present values are wanted
 * @returns {Request}
 */
function makeRequest({ server, id, cid, maxHead, epochs, seq, push, following }, read) {
  const { range, after } = following
  return {
    protocol: PROTOCOL,
    server,
    client: id,
    cid,
    hi: Math.max(maxHead, cid), // a manual sync in Python does not record it
    epochs: epochs.slice(-MAX_EPOCHS),
    nonce: newId(),
    seq,
    push: push?.nonce ?? null,
    groups: push?.groups,
    limit: MAX_CHANGES,
    complete: range === 'complete' ? [''] : [],
    partial: range === 'checked' ? [''] : [],
    fill: range === 'complete' ? null : ['', after],
    read: read.length > 0 ? read : undefined,
  }
}

/** True if a change has not been acknowledged. @param {any} store @returns {Promise<boolean>} */
async function hasDirty(store) {
  return (await store.keys({ ...DIRTY_RANGE, ...UTF8, limit: 1 }).all()).length > 0
}

/**
 * Write a reply.
 * @param {any} store
 * @param {Outgoing} outgoing the request, which `readReply` has compared with the reply
 * @param {Reply} reply
 * @returns {Promise<Outcome | null>} `null` if nothing was written, because the client has moved on
 *   since the request was made (in another tab, for example)
 */
export async function receiveReply(store, { push, version }, reply) {
  const current = await readState(store)
  if (current.version !== version) return null
  const { state } = current
  state.server = reply.server
  const receipt = await Receipt.begin(store, state)
  if (reply.kind === 'page') {
    await takePage(receipt, push, reply)
    if (reply.fill) await takePart(receipt, reply.fill)
    const { following } = state
    // A reset ends at the server's head: until then, dirty changes may lose to changes of the log.
    if (!reply.more && following.range === 'complete') following.isResetting = false
  } else if (reply.kind === 'reset') {
    await takeReset(receipt, push, reply)
  } else {
    takeFork(state)
  }
  return receipt.finish()
}

/**
 * Go back to the last CID that both histories have in common, and fill again: the server's history
 * is not the one that this client has seen.
 * @param {Receipt} receipt @param {Push | undefined} push @param {Reply} reply
 */
async function takeReset(receipt, push, reply) {
  const { state, store } = receipt
  receipt.isReset = state.cid + state.maxHead > 0
  await receipt.lookUp(push?.changes.map(({ key }) => key) ?? [])
  takeDecision(receipt, push, reply)
  const accepted = (push?.changes ?? []).filter(({ key }) => receipt.dirtyOf(key) === undefined)
  const cleaned = new Set(accepted.map(({ key }) => key))
  const dirty = (await readDirtyKeys(store)).filter((key) => !cleaned.has(key))
  const uncompared = dirty.filter((key) => receipt.isUnchecked(key))
  const bases = await receipt.baseValuesOf(uncompared)
  // The server may never have had the other base values in its present history.
  if (state.bases) state.bases = { ...state.bases, generation: state.bases.generation + 1 }
  for (const key of uncompared) receipt.markUncompared(key)
  for (const [key, value] of bases) receipt.keepBaseValue(key, value)
  const { common } = reply
  state.cid = common
  state.maxHead = common
  state.epochs = state.epochs.filter(([, start]) => start < common)
  state.following = resetFollowing(dirty.length > 0)
}

/**
 * Go on as a new client: the server has seen another push under this client's id and number.
 * @param {State} state
 */
function takeFork(state) {
  state.id = newId()
  state.seq = 0
  state.push = undefined
}
