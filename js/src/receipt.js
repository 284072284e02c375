/** One reply being written: the batch as it grows, and the state as it will be. */
import { baseEntry, readBaseValues } from './bases.js'
import { journalEntries } from './journal.js'
import { isSameJson } from './json.js'
import { baseKey, dirtyKey, lostKey, uncomparedKey } from './keys.js'
import { isLogged } from './following.js'
import { lossEntry, readLosses } from './losses.js'
import { DURABLE, UTF8, batchEntry, joinRecord } from './records.js'
import { stateEntries } from './state.js'
import { readUncompared } from './uncompared.js'

/** @import { Bases } from './bases.js' */
/** @import { Conflict, LostChange } from './journal.js' */
/** @import { Loss } from './losses.js' */
/** @import { Change } from './records.js' */
/** @import { State } from './state.js' */

/**
 * The effects of a reply.
 * @typedef {object} Outcome
 * @property {number} pulled changes of other clients that were written
 * @property {number} filled entries that a fill has written
 * @property {number} pushed changes of the push that the server took
 * @property {Conflict[]} conflicts
 * @property {string[]} rejected keys of the push that others had written first
 * @property {string[]} refused keys of the push that the server's rules, or the rights of the
 *   token, refuse
 * @property {boolean} isReset true if the server's history differs from the one that this client
 *   has seen
 * @property {boolean} isCaughtUp true if the client is where the server was when it replied
 */

export class Receipt {
  /** The dirty record of each key that was looked up and has one. @type {Map<string, string>} */
  #dirty = new Map()
  /** The keys that were looked up. @type {Set<string>} */
  #seen = new Set()
  /**
   * The present text of each key that this reply has written.
   * @type {Map<string, string | undefined>}
   */
  #written = new Map()
  /** @type {any[]} */
  #batch = []
  /** @type {LostChange[]} */
  #lostChanges = []

  /**
   * Begin to write a reply to a store.
   * @param {any} store
   * @param {State} state as it was read; the reply alters it
   * @returns {Promise<Receipt>}
   */
  static async begin(store, state) {
    const { losses, outdated } = await readLosses(store)
    const receipt = new Receipt(store, state, losses, await readUncompared(store, state.following))
    receipt.#batch.push(...outdated.map((key) => batchEntry(lostKey(key))))
    return receipt
  }

  /**
   * @param {any} store @param {State} state
   * @param {Map<string, Loss>} losses
   * @param {Set<string>} uncompared the dirty keys that a reset left without a comparison
   */
  constructor(store, state, losses, uncompared) {
    this.store = store
    this.state = state
    this.losses = losses
    this.uncompared = uncompared
    this.pulled = 0
    this.filled = 0
    this.pushed = 0
    this.isReset = false
    this.isCaughtUp = false
    /** @type {string[]} */
    this.rejected = []
    /** @type {string[]} */
    this.refused = []
  }

  /**
   * Look up the dirty changes of some keys. Only then `dirtyOf` knows them.
   * @param {Iterable<string>} keys
   */
  async lookUp(keys) {
    const unseen = [...new Set(keys)].filter((key) => !this.#seen.has(key))
    if (unseen.length === 0) return
    const records = await this.store.getMany(unseen.map(dirtyKey), UTF8)
    unseen.forEach((key, index) => {
      this.#seen.add(key)
      if (records[index] !== undefined) this.#dirty.set(key, records[index])
    })
  }

  /**
   * The dirty record of a key that was looked up; `undefined` if it has none, or no longer.
   * @param {string} key
   */
  dirtyOf(key) {
    return this.#dirty.get(key)
  }

  /** True if this reply has deleted a key. @param {string} key */
  hasDeleted(key) {
    return this.#written.has(key) && this.#written.get(key) === undefined
  }

  /** True if a dirty change was compared with no value of the server. @param {string} key */
  isUnchecked(key) {
    return this.uncompared.has(key) || !isLogged(this.state.following, key)
  }

  /** The base values of some dirty keys. @param {string[]} keys */
  baseValuesOf(keys) {
    return readBaseValues(this.store, this.state.bases, keys)
  }

  /** Record a base value again, in another generation. @param {string} key @param {string} value */
  keepBaseValue(key, value) {
    const { generation } = /** @type {Bases} */ (this.state.bases)
    this.#batch.push(baseEntry(key, generation, value))
  }

  /** Write the server's value of a key. @param {Change} change */
  write({ key, value }) {
    this.#written.set(key, value)
    this.#batch.push(batchEntry(key, value))
  }

  /** Delete the dirty record of a key, and the records that go with it. @param {string} key */
  clean(key) {
    this.#dirty.delete(key)
    this.#batch.push(batchEntry(dirtyKey(key)))
    if (this.state.bases !== undefined) this.#batch.push(batchEntry(baseKey(key)))
    if (this.losses.delete(key)) this.#batch.push(batchEntry(lostKey(key)))
    this.markCompared(key)
  }

  /**
   * Record that a dirty change waits for the server's value.
   * @param {string} key @param {Loss} loss
   */
  lose(key, loss) {
    this.losses.set(key, loss)
    this.#batch.push(lossEntry(key, loss))
  }

  /** Record that others have changed a key whose dirty change has lost. @param {string} key */
  overtake(key) {
    const loss = /** @type {Loss} */ (this.losses.get(key))
    if (loss.kind === 'refused') this.lose(key, { ...loss, isOvertaken: true })
  }

  /** Journal a local change that loses. @param {LostChange} lost */
  journal(lost) {
    this.#lostChanges.push(lost)
  }

  /**
   * Take the server's change of a dirty key, and journal the dirty change if it differs.
   * @param {Change} change
   * @param {Omit<LostChange, 'key' | 'local' | 'remote'>} facts
   */
  replace(change, facts) {
    const { key } = change
    const local = /** @type {string} */ (this.dirtyOf(key))
    const remote = joinRecord(change)
    if (facts.kind === 'refused' || !isSameJson(local, remote)) {
      this.journal({ key, local, remote, ...facts })
    }
    this.clean(key)
    this.write(change)
  }

  /** Record that a dirty change is not compared yet. @param {string} key */
  markUncompared(key) {
    this.uncompared.add(key)
    this.#batch.push(batchEntry(uncomparedKey(key), 'true'))
  }

  /** Record that a dirty change was compared with the server's value. @param {string} key */
  markCompared(key) {
    if (this.uncompared.delete(key)) this.#batch.push(batchEntry(uncomparedKey(key)))
  }

  /** Write it all, in one batch. @returns {Promise<Outcome>} */
  async finish() {
    const { entries, conflicts } = await journalEntries(this.store, this.#lostChanges)
    await this.store.batch([...this.#batch, ...stateEntries(this.state), ...entries], DURABLE)
    const { pulled, filled, pushed, rejected, refused, isReset, isCaughtUp } = this
    return { pulled, filled, pushed, conflicts, rejected, refused, isReset, isCaughtUp }
  }
}
