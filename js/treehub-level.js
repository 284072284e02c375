/**
 * A client of treehub-level over an `abstract-level` store, for browsers and Node: it works offline, and synchronises
 * with a server over HTTP. `docs/protocol.md` has the protocol, `docs/format.md` the bytes that are stored.
 *
 * A value is kept, pulled and pushed as the text of its JSON, so what other clients wrote passes through exactly. But
 * `get`, `iterator` and `conflicts` hand out numbers of JavaScript: an integer beyond 2^53 is rounded there.
 */

/** @typedef {{type: 'put' | 'del', key: string, value?: any}} Operation */
/** @typedef {{gt?: string, gte?: string, lt?: string, lte?: string, reverse?: boolean, limit?: number}} Range */
/** @typedef {{id: number, key: string, local: any[], remote: any[] | null, cid: number}} Conflict */
/** @typedef {(request: string) => Promise<string>} Exchange carries one message to a server, and brings the reply */
/** @typedef {{token?: string | (() => Promise<string>), fetch?: typeof fetch, signal?: AbortSignal}} Options */

const MAX_CHANGES = 1000, MAX_BYTES = 8 << 20, MAX_EPOCHS = 32, MAX_KEY = 1024, MAX_VALUE = 4 << 20, MAX_DEPTH = 64
const UTF8 = { keyEncoding: 'utf8', valueEncoding: 'utf8' }, DURABLE = { ...UTF8, sync: true }
const DIRTY = { gte: '!"', lt: '"', ...UTF8 }, JOURNAL = { gte: '!!conflict/', lt: '!!conflict0', ...UTF8 }

/** What is raised here on purpose. `code` is one of the Python library's; `status` that of an HTTP answer, if any. */
export class LevelError extends Error {
  /** @param {string} code @param {string} message @param {number} [status] */
  constructor(code, message, status) {
    super(message)
    this.code = code
    this.status = status
  }
}

const bytesOf = (text) => new TextEncoder().encode(text).length
const depthOf = (value) =>
  Object(value) === value ? 1 + Object.values(value).reduce((most, part) => Math.max(most, depthOf(part)), 0) : 0
const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, '0')).join('')
const entry = (key, value) => (value === undefined ? { type: 'del', key } : { type: 'put', key, value })
const cidKey = (n) => (n < 10 ? `${n}` : String.fromCharCode(0x38 + `${n}`.length) + n)
const conflictOf = ([key, record]) => ({ id: Number(key.replace(/^.*\/\D?/, '')), ...JSON.parse(record) })

/** The items of an array, or the members of an object, as they are written in this JSON. */
function split(text) {
  const items = []
  for (let at = 0, depth = 0, start = 0; at < text.length; at++) {
    const unit = text[at]
    if (unit === '"') while (++at < text.length && text[at] !== '"') at += text[at] === '\\' ? 1 : 0
    else if (unit === '[' || unit === '{') start = depth++ ? start : at + 1
    else if (unit === ',' || unit === ']' || unit === '}') {
      if (depth === 1) items.push(text.slice(start, at).trim()), (start = at + 1)
      if (unit !== ',') depth--
    }
  }
  return items[0] === '' ? [] : items
}

/** The items of an array that is a member of an object. */
const itemsOf = (text, name) =>
  split(split(text).findLast((member) => member.startsWith(`"${name}"`))?.slice(name.length + 2) ?? '')
/** The record of a change: `[key]`, or `[key,value]`, where the value is JSON already. */
const join = ({ key, value }) => (value === undefined ? JSON.stringify([key]) : `[${JSON.stringify(key)},${value}]`)
const parse = (record) => (([key, value]) => ({ key: JSON.parse(key), value }))(split(record))

/** A key, if it may be one. */
function legal(key, code = 'LEVEL_INVALID_KEY') {
  if (typeof key === 'string' && key >= '"' && !/\p{Surrogate}/u.test(key) && bytesOf(key) <= MAX_KEY) return key
  throw new LevelError(code, `a key is Unicode, from '"' on, of at most 1024 bytes: ${JSON.stringify(key)} is not`)
}

/** A value as JSON. */
function encode(value) {
  const text = JSON.stringify(value)
  // JSON.stringify escapes halves of characters in this way, and nothing else.
  const isUnicode = text !== undefined && !/(?<!\\)(\\\\)*\\ud/.test(text)
  if (isUnicode && bytesOf(text) <= MAX_VALUE && depthOf(JSON.parse(text)) <= MAX_DEPTH) return text
  throw new LevelError('LEVEL_INVALID_VALUE', 'a value is JSON of whole characters, at most 4 MiB, at most 64 deep')
}

/** What carries messages to a server. @param {string | URL} url of a database @param {Options} [options] */
export function httpExchange(url, { token, fetch = globalThis.fetch, signal } = {}) {
  return async (/** @type {string} */ body) => {
    const secret = typeof token === 'function' ? await token() : token
    const headers = { 'content-type': 'application/json', ...(secret && { authorization: `Bearer ${secret}` }) }
    const response = await fetch(`${url}/exchange`, { method: 'POST', headers, body, signal, redirect: 'error' })
    const isJson = response.headers.get('content-type')?.startsWith('application/json')
    const text = await response.text(), answer = isJson ? JSON.parse(text) : { message: 'not in JSON' }
    if (answer.kind) return text
    const { code = 'LEVEL_TRANSPORT', message } = answer
    throw new LevelError(code, `${url} answered ${response.status}: ${message}`, response.status)
  }
}

/** Read a reply. Nothing of it is taken unless it is whole, and answers this request: a proxy may bring another. */
function readReply(text, sent, changes) {
  const reply = JSON.parse(text), { kind, server, ack, cid = sent.cid, rejected = [], keys = [], after = null } = reply
  const rows = itemsOf(text, 'page').map(split).map(([cid, record]) => ({ cid: Number(cid), ...parse(record) }))
  const cids = [sent.cid, ...rows.map(({ cid }) => cid), cid + 1]
  const isAnswer = kind === (after === null ? 'page' : 'keys') && after === sent.keys_after && cid <= reply.head
  const isSound = [
    reply.protocol === 1 && reply.nonce === sent.nonce && reply.base === sent.cid && /^[\w-]{1,64}$/.test(server),
    isAnswer || (kind === 'reset' && reply.common <= sent.cid) || (kind === 'forked' && changes.length),
    cids.every((one, at) => Number.isSafeInteger(one) && !(one <= cids[at - 1])),
    ack ? changes.length : !reply.more || cid > sent.cid,
    kind !== 'keys' || reply.end || keys.length,
  ].every(Boolean)
  const isFollowed = sent.server === null || server === sent.server
  if (!isFollowed) throw new LevelError('LEVEL_STORE_MISMATCH', `this client follows ${sent.server}, not ${server}`)
  if (!isSound) throw new LevelError('LEVEL_PROTOCOL', 'an impossible reply, or one to something else: it is not taken')
  for (const { key } of [...rows, ...keys.map((key) => ({ key }))]) legal(key, 'LEVEL_PROTOCOL')
  return { ...reply, rows, rejected, keys }
}

/**
 * A store that works offline and synchronises. Calls may overlap: those that write take turns, in other tabs, too.
 * Nothing else may write to the store underneath, and it must sort keys by their UTF-8 bytes: classic-level and
 * browser-level do, and memory-level unless it is given another `storeEncoding`.
 */
export class SyncedLevel {
  /** @type {any} */ #store; #isOpen = false; #writing = Promise.resolve()

  /** @param {import('abstract-level').AbstractLevel<any, any, any>} store an empty one, or a client's */
  constructor(store) {
    this.#store = store
  }

  /** The value of a key, or `undefined`. @param {string} key @returns {Promise<any>} */
  async get(key) {
    const [text] = await this.#store.getMany([legal(key)], UTF8)
    return text && JSON.parse(text)
  }

  /** Keys and values, in order. @param {Range} [range] @returns {AsyncGenerator<[string, any]>} */
  async *iterator({ gt = '', gte = '', ...rest } = {}) {
    const range = { ...rest, ...(gt >= '"' ? { gt } : { gte: gte > '"' ? gte : '"' }), ...UTF8 }
    for await (const [key, text] of this.#store.iterator(range)) yield [key, JSON.parse(text)]
  }

  put = (/** @type {string} */ key, /** @type {any} */ value) => this.batch([{ type: 'put', key, value }])
  del = (/** @type {string} */ key) => this.batch([{ type: 'del', key }])
  /** The CID of the server up to which everything is here. @returns {Promise<number>} */
  cid = () => this.#step(async () => (await this.#read()).cid)
  /** How many changes no server has acknowledged yet. @returns {Promise<number>} */
  pending = async () => (await this.#store.keys(DIRTY).all()).length
  /** The local changes that lost and were not dismissed yet, oldest first. @returns {Promise<Conflict[]>} */
  conflicts = async () => (await this.#store.iterator(JOURNAL).all()).map(conflictOf)
  /** Take a change that lost out of the journal. @param {Conflict} conflict @returns {Promise<void>} */
  dismiss = ({ id }) => this.#step(() => this.#store.batch([entry(JOURNAL.gte + cidKey(id))], UTF8))

  /** Write all of it, or nothing; a value is whatever JSON can hold. @param {Operation[]} operations */
  async batch(operations) {
    const batch = operations.flatMap(({ type, key, value }) => {
      const text = type === 'del' ? undefined : encode(value)
      return [entry(legal(key), text), entry(`!${key}`, join({ key, value: text }))]
    })
    await this.#step(() => this.#store.batch(batch, UTF8))
  }

  /**
   * Exchange with a server until both sides are drained. It may fail, and be called again, at any time. If the server
   * was restored from a backup everything is pulled anew, what is dirty is kept, and the report says `reset`.
   * @param {string | URL | Exchange} server the address of a database, or what carries messages to it
   * @param {Options} [options]
   */
  async sync(server, options = {}) {
    const exchange = typeof server === 'function' ? server : httpExchange(server, options)
    const conflicts = /** @type {Conflict[]} */ ([]), rejected = /** @type {string[]} */ ([])
    const report = { cid: 0, rounds: 0, pulled: 0, pushed: 0, conflicts, rejected, reset: false }
    for (let caughtUp = false; ; report.rounds++) {
      options.signal?.throwIfAborted()
      const { fields, changes, isBusy, seen } = await this.#step(() => this.#request())
      report.cid = fields.cid
      if (!isBusy && caughtUp) return report
      const text = await exchange(`${JSON.stringify(fields).slice(0, -1)},"changes":[${changes.map(join)}]}`)
      const reply = readReply(text, fields, changes)
      caughtUp = await this.#step(() => this.#take(reply, changes, seen, report))
    }
  }

  /** Run what reads, decides and writes, while nothing else does. */
  #step(run) {
    const step = async () => (await this.#open(), run())
    const name = this.#store.location, locks = name && globalThis.navigator?.locks
    const turn = this.#writing.then(() => (locks ? locks.request(`treehub-level ${name}`, step) : step()))
    this.#writing = turn.then(() => {}, () => {})
    return turn
  }

  /** Check that the store is a client's, and make it one if it is empty. */
  async #open() {
    if (this.#isOpen) return
    const [record] = await this.#store.getMany(['!!store'], UTF8)
    const { mode, format } = record ? JSON.parse(record) : { mode: 'client', format: 1 }
    if (mode !== 'client' || format !== 1 || (!record && (await this.#store.keys({ limit: 1 }).all()).length)) {
      throw new LevelError('LEVEL_MODE_MISMATCH', 'this store holds data, and was not made as that of a client')
    }
    const birth = entry('!!store', JSON.stringify({ id: newId(), mode, format }))
    if (!record) await this.#write({ cid: 0, id: newId(), seq: 0, server: {} }, [birth])
    this.#isOpen = true
  }

  /** The CID, and the client's own records by their names in `docs/format.md`. */
  async #read() {
    const texts = await this.#store.getMany(['!', '!!id', '!!server', '!!push', '!!own', '!!reset'], UTF8)
    const [cid = 0, [id, seq], server, push, own, reset] = texts.map((text) => text && JSON.parse(text))
    if (push) push.changes = itemsOf(texts[3], 'changes').map(parse)
    return { cid, id, seq, server: server ?? { hi: 0, epochs: [] }, push, own, reset, seen: texts.join() }
  }

  /** Write them, whatever else was decided, and the changes that lost, in one batch. Returns the conflicts. */
  async #write(/** @type {any} */ { cid, id, seq, push, server, own, reset }, batch = [], lost = []) {
    const [newest] = lost.length ? await this.#store.iterator({ ...JOURNAL, reverse: true, limit: 1 }).all() : []
    // The clock keeps numbers from being given again: they are what `dismiss` goes by.
    const first = Math.max(Date.now(), newest ? conflictOf(newest).id + 1 : 0)
    const journal = lost.map(({ key, local, remote, cid }, at) => entry(JOURNAL.gte + cidKey(first + at),
      `{"key":${JSON.stringify(key)},"local":${local},"remote":${remote},"cid":${cid}}`))
    const frozen = push && `{"seq":${push.seq},"nonce":"${push.nonce}","changes":[${push.changes.map(join)}]}`
    const parts = { '!': cid, '!!id': [id, seq], '!!server': server.id && server, '!!own': own, '!!reset': reset }
    const records = Object.entries(parts).map(([key, part]) => entry(key, JSON.stringify(part)))
    await this.#store.batch([...batch, ...records, entry('!!push', frozen), ...journal], DURABLE)
    return journal.map(({ key, value }) => conflictOf([key, value]))
  }

  /** The next request. What is dirty is frozen, durably, before it is sent; and then sent so until it is decided on. */
  async #request() {
    let state = await this.#read()
    const isDirty = (await this.#store.keys({ ...DIRTY, limit: 1 }).all()).length > 0
    if (isDirty && !state.push && !state.own && !state.reset) {
      let changes = [], bytes = 0
      for await (const record of this.#store.values({ ...DIRTY, limit: MAX_CHANGES })) {
        if ((bytes += bytesOf(record)) > MAX_BYTES && changes.length) break
        changes.push(parse(record))
      }
      await this.#write({ ...state, seq: state.seq + 1, push: { seq: state.seq + 1, nonce: newId(), changes } })
      state = await this.#read()
    }
    const { cid, id: client, seq, push, reset, seen } = state, { id: server = null, hi, epochs } = state.server
    const fields = { protocol: 1, server, client, cid, hi, epochs: epochs.slice(-MAX_EPOCHS), seq, limit: MAX_CHANGES,
      nonce: push?.nonce ?? newId(), reset: !!reset, keys_after: reset?.phase === 'B' ? reset.cursor : null }
    return { fields, changes: push?.changes ?? [], isBusy: isDirty || push || reset, seen }
  }

  /** Take a reply, in one batch. Returns whether the client has caught up. */
  async #take(/** @type {any} */ { kind, rows, ack, rejected, more, ...reply }, changes, seen, report) {
    const state = await this.#read(), { server, reset } = state
    if (state.seen !== seen) return false // it has moved on since: in another tab, say
    const batch = [], lost = [], keys = [...changes, ...rows].map(({ key }) => `!${key}`)
    const records = await this.#store.getMany(keys, UTF8)
    const dirty = new Map(keys.map((key, at) => [key, records[at]]))
    const clean = (key) => dirty.delete(`!${key}`) && batch.push(entry(`!${key}`))
    // What the server took is clean, unless it was written again since it was frozen.
    const isAsSent = (change) => dirty.get(`!${change.key}`) === join(change) && !rejected.includes(change.key)
    if (ack) for (const change of changes.filter(isAsSent)) clean(change.key)
    server.id = reply.server
    if (kind === 'page' || kind === 'keys') {
      const known = new Set(server.epochs.map(([id]) => id))
      server.epochs.push(...reply.epochs.filter(([id]) => !known.has(id)))
      server.hi = Math.max(server.hi, reply.head)
    }
    if (ack?.[2]) state.own = ack
    for (const { cid, key, value } of rows) {
      const [epoch] = server.epochs.findLast(([, start]) => start < cid) ?? []
      const isOwn = state.own?.[0] < cid && cid <= state.own[1] && epoch === state.own[2]
      const local = dirty.get(`!${key}`), remote = join({ key, value })
      if (local && (isOwn || cid <= reset?.common)) continue // it was made in knowledge of this one
      if (local && local !== remote) lost.push({ key, local, remote, cid })
      if (local) clean(key)
      batch.push(entry(key, value))
      report.pulled += isOwn ? 0 : 1
    }
    state.push = undefined
    let caughtUp = kind === 'page' && !more
    if (kind === 'page') {
      state.cid = reply.cid
      if (state.own?.[1] <= reply.cid || caughtUp) state.own = undefined
      if (reset && caughtUp) reset.phase = 'B'
      while (server.epochs.length > MAX_EPOCHS && server.epochs[1][1] <= reply.cid) server.epochs.shift()
    } else if (kind === 'keys') caughtUp = await this.#sweep(state, reply, batch, lost)
    else if (kind === 'reset') {
      report.reset ||= state.cid + server.hi > 0
      state.reset = { common: Math.min(reply.common, reset?.common ?? reply.common), phase: 'A', cursor: '' }
      Object.assign(state, { cid: 0, server: { id: server.id, hi: 0, epochs: [] } })
    } else Object.assign(state, { id: newId(), seq: 0 })
    report.pushed += ack ? ack[1] - ack[0] : 0
    report.rejected.push(...rejected)
    report.conflicts.push(...(await this.#write(state, batch, lost)))
    return caughtUp
  }

  /** Delete the clean keys that the server has no longer, up to the last that it names. Returns whether that is all. */
  async #sweep(state, /** @type {any} */ { after, keys, end, head }, batch, lost) {
    const live = new Set(keys), from = after ? { gt: after } : { gte: '"' }, to = end ? {} : { lte: keys.at(-1) }
    const here = await this.#store.keys({ ...from, ...to, limit: MAX_CHANGES, ...UTF8 }).all()
    let bytes = 0, at = 0
    for (; at < here.length && bytes <= MAX_BYTES; at++) {
      const [value, record] = live.has(here[at]) ? [] : await this.#store.getMany([here[at], `!${here[at]}`], UTF8)
      if (live.has(here[at]) || record) continue
      lost.push({ key: here[at], local: join({ key: here[at], value }), remote: null, cid: state.cid })
      batch.push(entry(here[at]))
      bytes += bytesOf(value)
    }
    const isWhole = at === here.length && at < MAX_CHANGES
    state.reset = isWhole && end ? undefined : { ...state.reset, cursor: isWhole ? keys.at(-1) : here[at - 1] }
    return isWhole && end && head === state.cid
  }
}
