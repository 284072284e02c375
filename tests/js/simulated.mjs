// Runs clients for simulations, step by step:
// node simulated.mjs <package.json> <module of the client>
// The other end is in simulated.py. The limits of the package are small there, and can be set.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

import { serve } from './lines.mjs'

const [, , manifest, module] = process.argv
const { MemoryLevel } = createRequire(pathToFileURL(manifest))('memory-level')
const load = (name) => import(new URL(name, pathToFileURL(module)).href)
const { SyncedLevel } = await load('./treehub-level.js')
const { History, prepareRequest, receiveReply } = await load('./src/client.js')
const { readReply, writeRequest } = await load('./src/messages.js')
const { setLimits } = await load('./src/limits.js')

const UTF8 = { keyEncoding: 'utf8', valueEncoding: 'utf8' }
const rowsOf = (store) => store.iterator(UTF8).all()

/** A store that remembers its rows after each batch that a power cut may lose. */
class FragileStore extends MemoryLevel {
  commits = 0
  atRisk = []

  async batch(operations, options) {
    await super.batch(operations, options)
    this.commits++
    this.atRisk = options?.sync ? [] : [...this.atRisk, await rowsOf(this)]
    if (options?.sync) this.durable = await rowsOf(this)
  }

  /** Go back to the state after the first `kept` batches that were at risk. */
  async lose(kept) {
    const rows = kept > 0 ? this.atRisk[kept - 1] : this.durable
    const commits = this.commits - this.atRisk.length + kept
    await this.replace(rows)
    this.commits = commits
    this.durable = rows
  }

  async replace(rows) {
    const puts = rows.map(([key, value]) => ({ type: 'put', key, value }))
    await this.clear()
    await this.batch(puts, { ...UTF8, sync: true })
  }
}

/** The state of a client after a command. */
async function view(client, more = {}) {
  const { store } = client
  return { commits: store.commits, atRisk: store.atRisk.length, rows: await rowsOf(store), ...more }
}

/** Open the store anew: all of the memory of a process is lost. */
async function reopen(client) {
  client.level = new SyncedLevel(client.store)
  client.outgoing = undefined
  client.history = new History()
  await client.level.cid()
}

/** The next request; none if the session has ended. */
async function nextRequest(client, isCaughtUp) {
  const outgoing = await prepareRequest(client.store, client.history)
  if (isCaughtUp && !outgoing.isBusy) return {}
  const { request, push } = outgoing
  client.outgoing = outgoing
  client.history.send(outgoing)
  return { request: writeRequest(request, push) }
}

await serve({
  async open(client, { limits }) {
    setLimits(limits)
    client.store = new FragileStore()
    await reopen(client)
    return view(client)
  },
  async crash(client, { kept }) {
    if (kept !== null) await client.store.lose(kept)
    await reopen(client)
    return view(client)
  },
  async restore(client, { rows }) {
    await client.store.replace(rows)
    await reopen(client)
    return view(client)
  },
  async batch(client, { operations }) {
    await client.level.batch(operations)
    return view(client)
  },
  async dismiss(client, { id }) {
    await client.level.dismiss({ id })
    return view(client)
  },
  /** Write a lost change again, and dismiss its conflict: one batch, as in Python. */
  async writeAgain(client, { operation, id }) {
    const { store } = client
    const [commits, atRisk] = [store.commits, store.atRisk]
    await client.level.batch([operation])
    await client.level.dismiss({ id })
    store.commits = commits + 1
    store.atRisk = [...atRisk, await rowsOf(store)]
    return view(client)
  },
  start: async (client) => view(client, await nextRequest(client, false)),
  async receive(client, { text }) {
    const { outgoing, store } = client
    if (outgoing === undefined) return view(client)
    let reply
    try {
      reply = readReply(text, outgoing.request, outgoing.push)
    } catch (error) {
      if (/replies to another request/.test(error.message)) return view(client)
      throw error
    }
    client.outgoing = undefined
    const outcome = await receiveReply(store, outgoing, reply)
    client.history.receive(reply)
    const isCaughtUp = outcome?.isCaughtUp ?? false
    return view(client, { isCaughtUp, ...(await nextRequest(client, isCaughtUp)) })
  },
})
