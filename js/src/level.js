/** The store as programs use it. */
import { newBaseEntries } from './bases.js'
import { LevelError } from './errors.js'
import { httpExchange } from './http.js'
import { readConflicts } from './journal.js'
import { DIRTY_RANGE, FIRST_USER_KEY, STORE_KEY, checkKey, dirtyKey, journalKey } from './keys.js'
import { DURABLE, UTF8, batchEntry, joinRecord, newId } from './records.js'
import { synchronise } from './session.js'
import { newState, readState, stateEntries } from './state.js'
import { upgradeEntries } from './upgrade.js'
import { encodeValue } from './values.js'

/** @import { Exchange, Options } from './http.js' */
/** @import { Conflict } from './journal.js' */
/** @import { Report } from './session.js' */
/** @typedef {{type: 'put' | 'del', key: string, value?: any}} Operation */
/**
 * @typedef {object} Range
 * @property {string} [gt]
 * @property {string} [gte]
 * @property {string} [lt]
 * @property {string} [lte]
 * @property {boolean} [reverse]
 * @property {number} [limit]
 */

const MODE = 'client'
const FORMAT = 1

/**
 * A store that works offline and synchronises. Calls may overlap; writes take turns, also across
 * tabs.
 *
 * No other code may write to the store underneath, and that store must sort keys by their UTF-8
 * bytes: classic-level and browser-level do, and memory-level does with its default
 * `storeEncoding`.
 */
export class SyncedLevel {
  /** @type {any} the types of abstract-level do not know `sync`, an option of classic-level */
  #store
  #isOpen = false
  /** The last write of this object, or a settled promise. */
  #lastStep = Promise.resolve()

  /**
   * @param {import('abstract-level').AbstractLevel<any, any, any>} store an empty one, or one of a
   *   client
   */
  constructor(store) {
    this.#store = store
  }

  /** Read a value. @param {string} key @returns {Promise<any>} `undefined` if the key is absent */
  async get(key) {
    const [text] = await this.#store.getMany([checkKey(key)], UTF8)
    return text && JSON.parse(text)
  }

  /**
   * Iterate over keys and values, in order of their bytes.
   * @param {Range} [range]
   * @returns {AsyncGenerator<[string, any]>}
   */
  async *iterator({ gt = '', gte = '', ...rest } = {}) {
    const metadataEnd = { gte: gte > FIRST_USER_KEY ? gte : FIRST_USER_KEY }
    const start = gt >= FIRST_USER_KEY ? { gt } : metadataEnd
    for await (const [key, text] of this.#store.iterator({ ...rest, ...start, ...UTF8 })) {
      yield [key, JSON.parse(text)]
    }
  }

  /** Write one value. @param {string} key @param {any} value anything that JSON can hold */
  put(key, value) {
    return this.batch([{ type: 'put', key, value }])
  }

  /** Delete one key. @param {string} key */
  del(key) {
    return this.batch([{ type: 'del', key }])
  }

  /** Write all operations, or none. @param {Operation[]} operations @returns {Promise<void>} */
  async batch(operations) {
    const changes = operations.map(({ type, key, value }) => {
      return { key: checkKey(key), value: type === 'del' ? undefined : encodeValue(value) }
    })
    const entries = changes.flatMap((change) => {
      const dirty = batchEntry(dirtyKey(change.key), joinRecord(change))
      return [batchEntry(change.key, change.value), dirty]
    })
    await this.#runExclusively(async () => {
      const bases = await newBaseEntries(this.#store, changes)
      await this.#store.batch([...entries, ...bases], UTF8)
    })
  }

  /** The server's CID up to which everything is here. @returns {Promise<number>} */
  cid() {
    return this.#runExclusively(async () => (await readState(this.#store)).state.cid)
  }

  /** The number of changes that no server has acknowledged. @returns {Promise<number>} */
  async pending() {
    return (await this.#store.keys({ ...DIRTY_RANGE, ...UTF8 }).all()).length
  }

  /** Read the conflict journal, oldest conflict first. @returns {Promise<Conflict[]>} */
  async conflicts() {
    return readConflicts(this.#store)
  }

  /** Delete a conflict from the journal. @param {Conflict} conflict @returns {Promise<void>} */
  dismiss({ id }) {
    return this.#runExclusively(() => this.#store.batch([batchEntry(journalKey(id))], UTF8))
  }

  /**
   * Exchange messages with a server until both sides are drained. The call may fail at any point,
   * and may be repeated. If the server was restored from a backup all entries are filled again,
   * dirty changes are kept, and the report says `reset`.
   * @param {string | URL | Exchange} server the address of a database, or a transport
   * @param {Options} [options]
   * @returns {Promise<Report>}
   */
  async sync(server, options = {}) {
    const exchange = typeof server === 'function' ? server : httpExchange(server, options)
    return synchronise(this.#store, (step) => this.#runExclusively(step), exchange, options.signal)
  }

  /**
   * Run a step that reads, decides and writes, while no other one runs: neither of this object nor,
   * where Web Locks exist, of another tab.
   * @template T
   * @param {() => Promise<T>} run
   * @returns {Promise<T>}
   */
  #runExclusively(run) {
    const step = async () => {
      await this.#ensureOpen()
      return run()
    }
    const name = this.#store.location
    const locks = name && globalThis.navigator?.locks
    const lockedStep = () => (locks ? locks.request(`treehub-level ${name}`, step) : step())
    const result = this.#lastStep.then(lockedStep)
    const settle = () => {}
    this.#lastStep = result.then(settle, settle)
    return result
  }

  /** Check that the store is a client's; make it one if it is empty. */
  async #ensureOpen() {
    if (this.#isOpen) return
    const [record] = await this.#store.getMany([STORE_KEY], UTF8)
    if (record === undefined) {
      const isEmpty = (await this.#store.keys({ limit: 1 }).all()).length === 0
      if (!isEmpty) throw modeMismatch('it holds data without a record of its mode')
      const identity = { id: newId(), mode: MODE, format: FORMAT }
      const record = batchEntry(STORE_KEY, JSON.stringify(identity))
      await this.#store.batch([record, ...stateEntries(newState(newId()))], DURABLE)
    } else {
      const { mode, format } = JSON.parse(record)
      if (mode !== MODE || format !== FORMAT) {
        throw modeMismatch(`its mode is "${mode}", its format ${format}`)
      }
      await readState(this.#store) // refuses a store that follows other ranges
      const entries = await upgradeEntries(this.#store)
      if (entries.length > 0) await this.#store.batch(entries, DURABLE)
    }
    this.#isOpen = true
  }
}

/** The error for a store that is not a client's. @param {string} reason */
function modeMismatch(reason) {
  return new LevelError(
    'LEVEL_MODE_MISMATCH',
    `the store is not that of a client: ${reason}. Use an empty store, or one that a client made`,
  )
}
