/**
 * The client's half of the exchange: making a request, and writing a reply, in one batch each. Both
 * read, decide and write, so the caller must exclude other writers until they are done.
 */
import { utf8Length } from './json.js'
import { journalEntries } from './journal.js'
import { DIRTY_RANGE, FIRST_USER_KEY, dirtyKey } from './keys.js'
import { MAX_BYTES, MAX_CHANGES, MAX_EPOCHS, MAX_KEYS, MAX_PUSH, PROTOCOL } from './messages.js'
import { UTF8, batchEntry, joinRecord, newId, splitRecord } from './records.js'
import { readState, stateEntries } from './state.js'

/** @import { Conflict, LostChange } from './journal.js' */
/** @import { Reply, Request, Row } from './messages.js' */
/** @import { Change } from './records.js' */
/** @import { Reset, State } from './state.js' */

/** Options of a write that outlives a power cut, where the store underneath offers that. */
const DURABLE = { ...UTF8, sync: true }

/**
 * A request, and the state that it was made from.
 * @typedef {object} Outgoing
 * @property {Request} request
 * @property {Change[]} changes of the push in the request
 * @property {boolean} isBusy true if changes are dirty, a push is undecided or a reset is under way
 * @property {string} version of the state
 */

/**
 * The effects of a reply.
 * @typedef {object} Outcome
 * @property {number} pulled changes of other clients that were written
 * @property {number} pushed changes of the push that the server took
 * @property {Conflict[]} conflicts
 * @property {string[]} rejected keys of the push that the server refused
 * @property {boolean} isReset true if the server's history differs from the one that this client
 *   has seen
 * @property {boolean} isCaughtUp true if the client is where the server was when it replied
 */

/**
 * Make the records of a store that is new.
 * @param {any} store
 * @param {any[]} entries to write with them
 */
export async function createState(store, entries) {
  const state = { cid: 0, id: newId(), seq: 0, server: null, maxHead: 0, epochs: [] }
  await store.batch([...entries, ...stateEntries(state)], DURABLE)
}

/**
 * Make the next request. Dirty changes are frozen, durably, before they are sent, and then sent
 * unaltered until the server has decided on them: so a push whose reply was lost is recognised when
 * it comes again.
 * @param {any} store
 * @returns {Promise<Outgoing>}
 */
export async function prepareRequest(store) {
  let { state, version } = await readState(store)
  const hasDirty = await isDirty(store)
  if (hasDirty && !state.push && !state.ownRange && !state.reset) {
    const seq = state.seq + 1
    const push = { seq, nonce: newId(), changes: await dirtyChanges(store) }
    await store.batch(stateEntries({ ...state, seq, push }), DURABLE)
    ;({ state, version } = await readState(store))
  }
  const { push, reset } = state
  const request = {
    protocol: PROTOCOL,
    server: state.server,
    client: state.id,
    cid: state.cid,
    hi: state.maxHead,
    epochs: state.epochs.slice(-MAX_EPOCHS),
    seq: state.seq,
    limit: reset?.phase === 'B' ? MAX_KEYS : MAX_CHANGES,
    nonce: push?.nonce ?? newId(),
    reset: reset !== undefined,
    keys_after: reset?.phase === 'B' ? reset.cursor : null,
  }
  const isBusy = hasDirty || push !== undefined || reset !== undefined
  return { request, changes: push?.changes ?? [], isBusy, version }
}

/** True if a change has not been acknowledged. @param {any} store @returns {Promise<boolean>} */
async function isDirty(store) {
  return (await store.keys({ ...DIRTY_RANGE, ...UTF8, limit: 1 }).all()).length > 0
}

/**
 * The first dirty changes, as many as one push may hold.
 * @param {any} store
 * @returns {Promise<Change[]>}
 */
async function dirtyChanges(store) {
  const changes = []
  let bytes = 0
  for await (const record of store.values({ ...DIRTY_RANGE, ...UTF8, limit: MAX_PUSH })) {
    bytes += utf8Length(record)
    if (bytes > MAX_BYTES && changes.length > 0) break
    changes.push(splitRecord(record))
  }
  return changes
}

/**
 * Write a reply.
 * @param {any} store
 * @param {Outgoing} outgoing the request, which `readReply` has compared with the reply
 * @param {Reply} reply
 * @returns {Promise<Outcome | null>} `null` if nothing was written, because the client has moved on
 *   since the request was made (in another tab, for example)
 */
export async function receiveReply(store, { changes, version }, reply) {
  const current = await readState(store)
  if (current.version !== version) return null
  const dirty = await dirtyRecords(store, [...changes, ...reply.rows])
  const receipt = new Receipt(store, current.state, reply, dirty)
  await receipt.take(changes)
  return receipt.write()
}

/**
 * The dirty records of the keys of some changes.
 * @returns {Promise<Map<string, string>>} by user key
 */
async function dirtyRecords(store, changes) {
  if (!(await isDirty(store))) return new Map()
  const keys = changes.map(({ key }) => key)
  const records = await store.getMany(keys.map(dirtyKey), UTF8)
  const dirty = new Map()
  keys.forEach((key, index) => {
    if (records[index] !== undefined) dirty.set(key, records[index])
  })
  return dirty
}

/** One reply being written: the batch as it grows, and the state as it will be. */
class Receipt {
  /**
   * @param {any} store
   * @param {State} state as it was read; it is altered
   * @param {Reply} reply
   * @param {Map<string, string>} dirty records, by user key; it is altered
   */
  constructor(store, state, reply, dirty) {
    this.store = store
    this.state = state
    this.reply = reply
    this.dirty = dirty
    /** @type {any[]} */
    this.batch = []
    /** @type {LostChange[]} */
    this.lost = []
    this.pulled = 0
    this.isReset = false
    this.isCaughtUp = false
  }

  /** Decide what to write. @param {Change[]} changes of the push that was sent */
  async take(changes) {
    const { reply, state } = this
    this.takeAck(changes)
    state.server = reply.server
    state.push = undefined
    if (reply.kind === 'page') this.takePage()
    else if (reply.kind === 'keys') await this.takeKeys()
    else if (reply.kind === 'reset') this.takeReset()
    else this.takeForked()
  }

  /** Write it all, in one batch. @returns {Promise<Outcome>} */
  async write() {
    const { ack, rejected } = this.reply
    const { entries, conflicts } = await journalEntries(this.store, this.lost)
    await this.store.batch([...this.batch, ...stateEntries(this.state), ...entries], DURABLE)
    return {
      pulled: this.pulled,
      pushed: ack ? ack[1] - ack[0] : 0,
      conflicts,
      rejected,
      isReset: this.isReset,
      isCaughtUp: this.isCaughtUp,
    }
  }

  /**
   * Mark the changes that the server took as clean, unless they were rewritten since they were
   * frozen.
   */
  takeAck(changes) {
    const { ack } = this.reply
    if (!ack) return
    const rejected = new Set(this.reply.rejected)
    for (const change of changes) {
      const isAsSent = this.dirty.get(change.key) === joinRecord(change)
      if (isAsSent && !rejected.has(change.key)) this.clean(change.key)
    }
    if (ack[2]) this.state.ownRange = ack
  }

  /** Remember the history that a reply comes from, and its head. */
  learnHistory() {
    const { reply, state } = this
    const known = new Set(state.epochs.map(([id]) => id))
    state.epochs.push(...reply.epochs.filter(([id]) => !known.has(id)))
    state.maxHead = Math.max(state.maxHead, reply.head)
  }

  takePage() {
    const { reply, state } = this
    this.learnHistory()
    for (const row of reply.rows) this.applyRow(row)
    this.isCaughtUp = !reply.more
    state.cid = reply.cid
    const isPassed = state.ownRange !== undefined && state.ownRange[1] <= reply.cid
    if (isPassed || this.isCaughtUp) state.ownRange = undefined
    if (this.isCaughtUp && state.reset) state.reset.phase = 'B'
    // `isOwn` needs the epochs of the changes that are not pulled yet.
    while (state.epochs.length > MAX_EPOCHS && state.epochs[1][1] <= reply.cid) state.epochs.shift()
  }

  /**
   * Write a pulled change. A dirty change of the same key loses to it and is journaled. But a dirty
   * change that was made after the pulled one stays: if this client pushed the pulled change, or
   * had pulled it before a reset.
   * @param {Row} row
   */
  applyRow({ cid, key, value }) {
    const isOwn = this.isOwn(cid)
    const local = this.dirty.get(key)
    const remote = joinRecord({ key, value })
    if (local !== undefined) {
      const isSeen = isOwn || (this.state.reset !== undefined && cid <= this.state.reset.common)
      if (isSeen) return
      if (local !== remote) this.lost.push({ key, local, remote, cid })
      this.clean(key)
    }
    this.batch.push(batchEntry(key, value))
    if (!isOwn) this.pulled++
  }

  /** True if a pulled change is one of this client's own last push. @param {number} cid */
  isOwn(cid) {
    const { epochs, ownRange } = this.state
    if (!ownRange) return false
    const [before, after, epoch] = ownRange
    const [epochOfChange] = epochs.findLast(([, start]) => start < cid) ?? []
    return before < cid && cid <= after && epochOfChange === epoch
  }

  /**
   * Delete the clean keys that the server does not have, up to the last key that the reply names.
   */
  async takeKeys() {
    const { batch, lost, reply, state, store } = this
    const reset = /** @type {Reset} */ (state.reset)
    this.learnHistory()
    const live = new Set(reply.keys)
    const lastKey = /** @type {string} */ (reply.keys.at(-1))
    const start = reply.after ? { gt: reply.after } : { gte: FIRST_USER_KEY }
    const stop = reply.end ? {} : { lte: lastKey }
    const local = await store.keys({ ...start, ...stop, limit: MAX_KEYS, ...UTF8 }).all()
    let bytes = 0
    let count = 0
    while (count < local.length && bytes <= MAX_BYTES) {
      const key = local[count++]
      if (live.has(key)) continue
      const [value, dirtyRecord] = await store.getMany([key, dirtyKey(key)], UTF8)
      if (dirtyRecord !== undefined) continue
      lost.push({ key, local: joinRecord({ key, value }), remote: null, cid: state.cid })
      batch.push(batchEntry(key))
      bytes += utf8Length(value)
    }
    const isComplete = count === local.length && count < MAX_KEYS
    if (isComplete && reply.end) {
      state.reset = undefined
      this.isCaughtUp = reply.head === state.cid
    } else {
      state.reset = { ...reset, cursor: isComplete ? lastKey : local[count - 1] }
    }
  }

  /**
   * Begin to pull everything again: the server's history is not the one that this client has seen.
   */
  takeReset() {
    const { reply, state } = this
    this.isReset = state.cid + state.maxHead > 0
    const common = Math.min(reply.common, state.reset?.common ?? reply.common)
    state.cid = 0
    state.maxHead = 0
    state.epochs = []
    state.reset = { common, phase: 'A', cursor: '' }
  }

  /** Go on as a new client: the server has seen another push under this client's id and number. */
  takeForked() {
    this.state.id = newId()
    this.state.seq = 0
  }

  /** Delete the dirty record of a key. @param {string} key */
  clean(key) {
    this.dirty.delete(key)
    this.batch.push(batchEntry(dirtyKey(key)))
  }
}
