// Runs clients of this package: node driver.mjs <package.json> <module of the client>
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

import { serve } from './lines.mjs'

const [, , manifest, module] = process.argv
const require = createRequire(pathToFileURL(manifest))
const { SyncedLevel } = await import(pathToFileURL(module).href)
const { MemoryLevel } = require('memory-level')
const { ClassicLevel } = require('classic-level')

/** A `fetch` over a network with the given faults, one for each request in turn. */
function faultyFetch(client, faults) {
  return async (url, options) => {
    const fault = faults.shift() ?? {}
    for (const late of fault.late ? client.requests.slice(-3) : []) await fetch(url, { ...options, body: late })
    if (fault.lost === 'request') throw new TypeError('the request was lost')
    if (fault.portal) return new Response('<html>', { headers: { 'content-type': 'text/html' } })
    if (fault.twice) await fetch(url, options)
    const response = await fetch(url, options)
    const reply = { text: await response.text(), status: response.status, headers: response.headers }
    client.requests.push(options.body)
    client.replies.push(reply)
    if (fault.edit) client.edits.push(await client.level.batch([fault.edit]).then(() => fault.edit))
    if (fault.lost === 'reply') throw new TypeError('the reply was lost')
    const { text, status, headers } = fault.old ? client.replies.at(-2) ?? reply : reply
    const kept = [...headers].filter(([name]) => name === 'content-type' || name === 'treehub-level')
    return new Response(fault.replace ? text.replace(...fault.replace) : text, { status, headers: kept })
  }
}

/** Make the store fail at one of its next batches, before or after it is written. */
function crash(client, { batch, written }) {
  const { store } = client
  store.batch = async (...parameters) => {
    if (batch-- > 0 || written) await Object.getPrototypeOf(store).batch.apply(store, parameters)
    if (batch >= 0) return
    throw Object.assign(new Error('the process died'), { code: 'CRASH' })
  }
}

await serve({
  /** Open a client over memory or in a directory, or open its store again, as after a crash. */
  async open(client, { path }) {
    if (client.store && !path) delete client.store.batch
    else client.store = path ? new ClassicLevel(path) : new MemoryLevel()
    if (!client.requests) Object.assign(client, { requests: [], replies: [], edits: [] })
    client.level = new SyncedLevel(client.store)
    return client.level.cid()
  },
  async close(client) {
    await client.store.close()
  },
  batch: ({ level }, { operations }) => level.batch(operations),
  get: ({ level }, { key }) => level.get(key),
  cid: ({ level }) => level.cid(),
  pending: ({ level }) => level.pending(),
  conflicts: ({ level }) => level.conflicts(),
  dismiss: ({ level }, { conflict }) => level.dismiss(conflict),
  /** Keys and values, as the iterator yields them. */
  async items({ level }, { range }) {
    const items = []
    for await (const item of level.iterator(range)) items.push(item)
    return items
  },
  /** All stored rows. */
  raw: ({ store }) => store.iterator({ keyEncoding: 'utf8', valueEncoding: 'utf8' }).all(),
  /** Write and delete stored rows: `[key, text]` or `[key]`. */
  write: ({ store }, { rows }) =>
    store.batch(rows.map(([key, value]) => (value === undefined ? { type: 'del', key } : { type: 'put', key, value }))),
  async crash(client, options) {
    crash(client, options)
  },
  /** Two calls of `sync` at the same time. */
  syncTwice: ({ level }, { url, token }) => Promise.all([level.sync(url, { token }), level.sync(url, { token })]),
  sync: (client, { url, token, faults = [] }) => client.level.sync(url, { token, fetch: faultyFetch(client, faults) }),
  /** A `sync` over the network as it is. */
  syncDirectly: ({ level }, { url, ...options }) => level.sync(url, options),
  /** The edits that were made during exchanges since the last call of `edits`. */
  edits: async (client) => client.edits.splice(0),
  requests: async ({ requests }) => requests.map((request) => JSON.parse(request)),
})
